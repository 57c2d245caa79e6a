"""docs/architectures.md, from results/architectures.json (`python -m tools.measure.architectures`)."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any

from drpo.files import read_json
from tools.measure.architectures import FILE

ABOUT = (
    "The result of the start check ([sampling.md](sampling.md#the-start-check)) on every causal language model of "
    "transformers {version}, as a tiny model with random weights, on prompts of different lengths, in float32 on "
    "a CPU. *Difference* is the largest difference of log π or log μ from a plain forward pass of each sequence "
    "alone, in nats. {passed} architectures and variants pass, {refused} are refused with the reason "
    "(bailing_hybrid and kimi_linear because their tiny settings do not fit together), and {unbuilt} could not be "
    "made tiny. "
    "`python -m tools.measure.architectures` measures this again."
)
HEAD = "| architecture | trainer | sampler | difference |\n|---|---|---|---|\n"


def page() -> str:
    """The whole file."""
    found = read_json(FILE)
    counts = Counter(row["outcome"] for row in found["rows"])
    outcomes = {name: counts[name] for name in ("passed", "refused", "unbuilt")}
    about = ABOUT.format(version=found["transformers"], **outcomes)
    lines = [f"{line(row)}\n" for row in found["rows"]]
    about = textwrap.fill(about, 120, break_long_words=False, break_on_hyphens=False)
    return f"# Architectures\n\n{about}\n\n{HEAD}" + "".join(lines)


def line(row: dict[str, Any]) -> str:
    """An architecture's row of the table."""
    if row["outcome"] == "passed":
        return f"| {row['name']} | {row['trainer']} | {row['sampler']} | {row['difference']:.1e} |"
    why = {"refused": "refused", "unbuilt": "not made"}[row["outcome"]]
    return f"| {row['name']} | {why}: {row['reason'].replace('|', '/')} | | |"
