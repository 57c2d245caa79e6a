"""`drpo objectives`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from drpo.cli.objectives_compare import show_aliases, show_comparison
from drpo.cli.printing import PlainConsole, wide_console
from drpo.errors import ConfigError
from drpo.objectives import MODIFIERS, OBJECTIVES, Objective, make_objective
from drpo.objectives.documentation import Documentation, document, documentation
from drpo.train.config_text import parse_overrides

#: Module of an objective → the heading it stands under.
GROUPS = {
    "divergence": "Bound the probability shift or a divergence: drop what is beyond",
    "regularized": "Bound it by a penalty",
    "projection": "Bound it by a projection",
    "ratio": "Bound the importance ratio of a token",
    "masking": "Drop tokens whose importance ratio leaves an interval",
    "sequence": "Bound the ratio of a whole response, or weigh by it",
    "update": "Choose tokens among all of an update",
    "modifiers": "Modifiers, for any objective",
    "centering": "Modifiers, for any objective",
}
OTHERS = "Others"
#: What `--plot` shows unless told otherwise.
SHOWN = ("ppo", "spo", "dppo_tv", "drpo")


@dataclass(frozen=True, slots=True)
class Display:
    """What `drpo objectives` shows instead of the list: its options."""

    plot: bool = False
    out: Path | None = None
    compare: bool = False
    log: Path | None = None
    alias: bool = False
    as_json: bool = False

    def require_sense(self, settings: list[str]) -> None:
        """Raise a ConfigError for an option that would be ignored."""
        if self.log is not None and not self.compare:
            raise ConfigError("--log is for --compare only. Add --compare, or leave it out.")
        if self.as_json and not (self.compare or self.alias):
            raise ConfigError("--json is for --compare and --alias only. Add one of them, or leave it out.")
        if self.out is not None and not self.plot:
            raise ConfigError("--out is for --plot only. Add --plot, or leave it out.")
        if settings and not (self.plot or self.compare):
            raise ConfigError(f"{settings[0]} is for --plot only, or --compare. Add one, or leave it out.")


def run_objectives(arguments: list[str], display: Display) -> None:
    """List every objective, explain those that are named, compare or draw them."""
    names = [argument for argument in arguments if "=" not in argument]
    settings = [argument for argument in arguments if "=" in argument]
    for name in names:
        documentation(name)  # refuses what does not exist
    display.require_sense(settings)
    if display.alias:
        show_aliases(display.as_json)
    if display.compare:
        show_comparison(labels(chosen(names or list(SHOWN), settings)), display.log, display.as_json)
    if display.plot:
        draw(names or list(SHOWN), settings, display.out or Path())
    if display.alias or display.compare or display.plot:
        return
    console = PlainConsole()
    for name in names:
        explain(console, name)
    if not names:
        list_all(wide_console())


def list_all(console: PlainConsole) -> None:
    """A line each, by what they bound."""
    kinds = (*OBJECTIVES.values(), *MODIFIERS.values())
    widest = max(len(kind.name) for kind in kinds)
    groups: dict[str, list[Documentation]] = {title: [] for title in (*GROUPS.values(), OTHERS)}
    for kind in kinds:
        groups[GROUPS.get(kind.__module__.rpartition(".")[2], OTHERS)].append(document(kind))
    secondary = 0
    for title, members in ((title, members) for title, members in groups.items() if members):
        console.print(f"{title}", style="bold")
        for about in members:
            secondary += about.status != "verified"
            mark = " " if about.status == "verified" else "*"
            line = Text.assemble(f"  {about.name:<{widest}} {mark} ", about.summary)
            console.print(line, no_wrap=True, overflow="ellipsis")
    console.say(
        f"\n{len(kinds) - secondary} of {len(kinds)} formulas are verified against the paper or its authors' "
        "code; * known from another document only."
    )
    console.say("`drpo objectives NAME` explains one, with equation, ranges and source; `--plot NAME…` draws.")


def explain(console: PlainConsole, name: str) -> None:
    """The whole docstring of one, and of the modifier of the same name."""
    for about in documentation(name):
        console.print(f"{about.signature}\n")
        console.say(about.text + "\n")


def draw(names: list[str], settings: list[str], folder: Path) -> None:
    """Both pictures of the named objectives, their parameters changed by ``name.parameter=value``."""
    from drpo.cli.plots import write_plots
    from drpo.report.figures.weights import MOST

    if len(names) > MOST:
        raise ConfigError(f"a figure shows at most {MOST} objectives, got {len(names)}")
    for file in write_plots(labels(chosen(names, settings)), folder):
        PlainConsole().say(str(file))


def chosen(names: list[str], settings: list[str]) -> list[Objective]:
    """The named objectives, their parameters changed by ``name.parameter=value``."""
    changes: dict[str, Any] = parse_overrides(settings)
    for name, change in changes.items():
        if name not in names or not isinstance(change, dict):
            raise ConfigError(
                f"{name!r} is not among the objectives to draw ({', '.join(names)}). Write for example drpo.delta=0.2"
            )
    objectives = []
    for name in names:
        if name not in OBJECTIVES:
            raise ConfigError(
                f"{name} is a modifier: draw an objective with it, for example `drpo objectives --plot "
                f'grpo "grpo.modifiers=[{name}]" grpo.anchor=proximal`'
            )
        objectives.append(make_objective(name, **changes.get(name, {})))
    return objectives


def labels(objectives: Sequence[Objective]) -> dict[str, Objective]:
    """A label for each objective: its name, with the parameters that are not its defaults and its modifiers."""
    found: dict[str, Objective] = {}
    for objective in objectives:
        settings = objective.settings()
        defaults = OBJECTIVES[settings.pop("name")].parameters()
        modifiers = [modifier["name"] for modifier in settings.pop("modifiers", [])]
        changed = [f"{key} = {value}" for key, value in settings.items() if value != defaults.get(key, "behavior")]
        inside = ", ".join([*changed, *modifiers])
        found[objective.name + (f" ({inside})" if inside else "")] = objective
    return found
