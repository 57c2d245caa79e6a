"""A square of shares as colored cells: the pattern at a glance, each value by pointer, by keyboard and as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.frame import anchor_name

HINT = "Point at a cell, or move with the arrow keys, to read its value."


def heat_map(caption: str, names: Sequence[str], shares: Sequence[Sequence[float]], lowest: float = 0.0) -> str:
    """The square as HTML.

    Args:
        caption: what a share is, for readers who do not see it, and for the name of the file.
        names: of the rows, which are those of the columns too.
        shares: ``[K, K]`` between 0 and 1.
        lowest: the share that is drawn palest, as all below it.
    """
    heads = "".join(f"<th scope='col'>{visible(name)}</th>" for name in ("", *names))
    rows = "".join(
        f"<tr><th scope='row' class='words'>{visible(name)}</th>"
        f"{''.join(_cell(name, other, share, lowest) for other, share in zip(names, row, strict=True))}</tr>"
        for name, row in zip(names, shares, strict=True)
    )
    return (
        f"<div class='framed'><div class='scroll'><table class='heat' data-file='{anchor_name(caption)}' "
        f"data-hint='{HINT}' aria-label='{visible_plain(caption)}'><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def whole_percent(share: float) -> str:
    """A percentage without decimals that never rounds to 100 what is less."""
    return "100 %" if share == 1 else f"{min(99.9, 100 * share):.3g} %" if share > 0.99 else f"{100 * share:.0f} %"


def _cell(name: str, other: str, share: float, lowest: float) -> str:
    strength = 100 * max(0.0, share - lowest) / (1 - lowest)
    said = visible_plain(f"{name} and {other}: {whole_percent(share)}")
    return f"<td data-v='{share:.6g}' title='{said}' style='--share:{strength:.0f}%'></td>"
