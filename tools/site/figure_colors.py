"""palette.css of the site: the package's colors for the interactive figure of docs/gradient-weight.md."""

from __future__ import annotations

from drpo.report.palette import DASHES, PAINTS, color_variables


def figure_colors() -> str:
    """The colors of the figure in the theme that the reader chose, and color and dashes of each objective."""
    place, light, dark = "#gradient-weight", color_variables(dark=False), color_variables(dark=True)
    return "\n".join(
        [
            f"{place} {{ {light} }}",
            f'body[data-theme="dark"] {place} {{ {dark} }}',
            f'@media (prefers-color-scheme: dark) {{ body:not([data-theme="light"]) {place} {{ {dark} }} }}',
            *(
                f".gw-{name} {{ color: var(--c{own.color}); stroke-dasharray: {DASHES[own.dash] or 'none'}; }}"
                for name, own in PAINTS.items()
            ),
            "",
        ]
    )
