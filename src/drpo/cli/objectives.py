"""`drpo objectives`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drpo.cli.printing import PlainConsole
from drpo.errors import ConfigError
from drpo.objectives import MODIFIERS, OBJECTIVES, make_objective
from drpo.objectives.documentation import documentation
from drpo.train.config_text import parse_overrides

#: What `--plot` shows unless told otherwise.
SHOWN = ("ppo", "spo", "dppo_tv", "drpo")


def run_objectives(arguments: list[str], plot: bool, out: Path | None) -> None:
    """List every objective, explain those that are named, or draw them."""
    names = [argument for argument in arguments if "=" not in argument]
    settings = [argument for argument in arguments if "=" in argument]
    for name in names:
        documentation(name)  # refuses what does not exist
    if plot:
        draw(names or list(SHOWN), settings, out or Path())
        return
    if settings or out is not None:
        raise ConfigError(f"{settings[0] if settings else '--out'} is for --plot only. Add --plot, or leave it out.")
    console = PlainConsole()
    for name in names:
        explain(console, name)
    if not names:
        list_all(console)


def list_all(console: PlainConsole) -> None:
    """Name, defaults, equation, source and status of everything."""
    statuses: list[str] = []
    for title, registry in (("Objectives", OBJECTIVES), ("Modifiers, for any objective", MODIFIERS)):
        console.print(f"{title}\n", style="bold")
        for name in registry:
            about = documentation(name)
            statuses.append(about.status)
            console.print(f"{about.signature}  ", style="bold", end="")
            console.say(f"[{about.status}] {about.summary}")
            for head in ("Equation", "Source", "Status"):
                console.say(f"    {about.sections[head]}", style="dim")
            console.print()
    console.say(
        f"{statuses.count('verified')} of {len(statuses)} formulas are verified: compared with the text of the paper, "
        "the code of\nits authors, or code that they built on. Secondary: known from the named document only."
    )
    console.print("`drpo objectives NAME` gives ranges, units and deviations; `drpo objectives --plot NAME…` draws.")


def explain(console: PlainConsole, name: str) -> None:
    """The whole docstring of one."""
    about = documentation(name)
    console.print(f"{about.signature}\n")
    console.say(about.text + "\n")


def draw(names: list[str], settings: list[str], folder: Path) -> None:
    """Both pictures of the named objectives, their parameters changed by ``name.parameter=value``."""
    from drpo.cli.plots import labels, write_plots
    from drpo.report.figures.weights import STYLES

    if len(names) > len(STYLES):
        raise ConfigError(f"a figure shows at most {len(STYLES)} objectives, got {len(names)}")
    changes: dict[str, Any] = parse_overrides(settings)
    for name, change in changes.items():
        if name not in names or not isinstance(change, dict):
            raise ConfigError(
                f"{name!r} is not among the objectives to draw ({', '.join(names)}). Write for example drpo.delta=0.2"
            )
    objectives = []
    for name in names:
        if name in MODIFIERS:
            raise ConfigError(
                f"{name} is a modifier: draw an objective with it, for example `drpo objectives --plot "
                f'grpo "grpo.modifiers=[{name}]" grpo.anchor=proximal`'
            )
        objectives.append(make_objective(name, **changes.get(name, {})))
    for file in write_plots(labels(objectives), folder):
        PlainConsole().say(str(file))
