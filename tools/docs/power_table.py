"""The table of docs/lab.md, from results/power.json (`python -m tools.measure.power`)."""

from __future__ import annotations

from typing import Any

from drpo.files import read_json
from drpo.lab.tables import table as markdown_table
from tools.measure.power import FILE

HEAD = ("true state", "any verdict wrong", "intervals cover", "DRPO − DPPO: better", "equivalent", "undecided", "seeds")


def table() -> str:
    """A line a scenario: how often any verdict is wrong, what is said of DRPO − DPPO, and with how many seeds."""
    found = read_json(FILE)
    given, lines = found["assumptions"], [_line(one) for one in found["scenarios"]]
    return "\n".join(
        [
            f"`{found['command']}`: {found['scenarios'][0]['studies']:,} simulated studies a line, results/power.json. "
            f"Assumed: a run's final accuracy has a standard deviation of {given['run']:g} over seeds; a difference of "
            f"two arms {given['block']:g} over blocks; where arms collapse, each does in {given['collapse']:.0%} of "
            f"its blocks and loses {given['cost']:g}. *Alone* leaves out the other five comparisons of the family.",
            "",
            markdown_table(HEAD, lines),
        ]
    )


def _line(one: dict[str, Any]) -> list[str]:
    answers = one["answers"]
    shares = [f"{answers.get(answer, 0.0):.1%}" for answer in ("better", "equivalent", "undecided")]
    return [one["scenario"], f"{one['wrong']:.1%}", f"{one['coverage']:.1%}", *shares, f"{one['seeds']:.0f}"]
