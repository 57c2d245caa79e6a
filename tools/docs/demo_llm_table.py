"""The tables of docs/demo-llm.md, from results/demo-llm.json (`python -m tools.measure.demo_llm`)."""

from __future__ import annotations

import re
from typing import Any

from drpo.files import read_json
from tools.measure.demo_llm import FILE

_CHANGE = re.compile(r"\((\S+), 95 % confidence interval (\S+) to (\S+)\)")


def block() -> str:
    """A line a seed, how it was measured, and answers before and after."""
    runs = read_json(FILE)["runs"]
    return "\n\n".join([_accuracies(runs), _measured(runs), _answers(runs[0])])


def _accuracies(runs: list[dict[str, Any]]) -> str:
    heads = ["seed", "accuracy before", "after", "change, 95 % confidence interval", "sampled tokens with μ ≤ 0.01"]
    heads += ["\\|π − μ\\| > δ", "CPU time", "peak memory"]
    return table(heads, [_row(run) for run in runs])


def _row(run: dict[str, Any]) -> list[str]:
    found = _CHANGE.search(run["outcome"])
    change = "–" if found is None else f"{found[1]} ({found[2]} to {found[3]})"
    minutes, seconds = divmod(round(run["cpu_seconds"]), 60)
    return [
        str(run["seed"]),
        *(f"{run[when]['accuracy']:.3f}" for when in ("before", "after")),
        change,
        f"{run['rare_share']:.1%}",
        f"{run['beyond_delta']:.2%}",
        f"{minutes} min {seconds:02d} s",
        f"{run['peak_bytes'] / 2**30:.1f} GiB",
    ]


def _measured(runs: list[dict[str, Any]]) -> str:
    machines = dict.fromkeys(
        f"{machine['date']}, {machine['cpu']}, torch {machine['versions']['torch']}, "
        f"transformers {machine['versions']['transformers']}, threads a run: {machine['threads']}"
        for machine in (run["machine"] for run in runs)
    )
    first = runs[0]
    return (
        f"{first['steps']} steps; accuracy over {first['before']['samples']} sampled responses to held-out sums. CPU "
        "time is of all processes of the training, evaluations included; other programs ran beside it. Measured "
        f"{'; '.join(machines)}."
    )


def _answers(run: dict[str, Any]) -> str:
    rows = [[code(answer[key]) for key in ("prompt", "before", "after")] for answer in run["answers"]]
    return "\n\n".join(
        [
            f"The first responses to the first held-out sums, of seed {run['seed']}, cut off at 24 tokens:",
            table(["prompt", f"before: accuracy {run['before']['accuracy']:.3f}", "after"], rows),
        ]
    )


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Text of a model as code within a cell of a table, on one line."""
    return f"`{' '.join(text.split()).replace('`', 'ʼ').replace('|', '¦')}`"
