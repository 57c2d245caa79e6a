"""What a run looks like on a terminal and elsewhere."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pytest

from drpo.cli.display import LiveDisplay, PlainDisplay, sparkline, watch
from drpo.cli.printing import PlainConsole
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config


def update(step: int, tokens: int, **changes: Any) -> dict[str, Any]:
    return {
        "step": step,
        "tokens": tokens,
        "sequences": 2,
        "reward": 0.5,
        "shift": 0.01,
        "shift_p99": 0.1,
        "delta": 0.15,
        "beyond_delta": 0.25,
        "corrective_share": 0.5,
        "timing": {"sampling": 0.5, "grading": 0.25, "training": 0.25},
        **changes,
    }


@pytest.mark.parametrize(("terminal", "kind"), [(False, PlainDisplay), (True, LiveDisplay)])
def test_all_figures_are_shown(terminal: bool, kind: type, tmp_path: Path) -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=terminal, width=160, color_system=None)
    config, _ = load_config(None, ["steps=4"])
    with watch(console) as display:
        assert type(display) is kind
        display.on_start(config, RunDirectory(tmp_path), 0)
        display.on_evaluation({"step": 0, "accuracy": 0.375, "correct": 3, "samples": 8})
        display.on_note("a [note] with brackets")
        display.on_step([update(1, 100), update(1, 300, shift=0.03, corrective_share=float("nan"), shift_p99=0.2)])
        display.on_evaluation({"step": 1, "accuracy": 0.625, "correct": 5, "samples": 8})
    shown = stream.getvalue()
    if terminal:  # the table that stays on the screen holds the newest accuracy, and the history the ones before
        last = shown.rsplit("tokens/s", 1)[1]
        assert (
            "0.625 (step 1)" in last and "held-out  0.375 (step 0) → 0.625 (step 1)" in last and "reward    ▁" in last
        )
    # 400 tokens in 2 s; the token means weigh 100 : 300, and leave out what does not exist.
    for figure in ("1/4", "0.500", "0.375", "0.0250", "0.200", "25.00%", "50.00%", "200", "a [note] with brackets"):
        assert figure in shown, figure
    for name in ("reward", "held-out", "|π−μ|", "p99", "beyond δ=0.15", "w<0", "tokens/s", "left"):
        assert name in shown, name
    assert ("\x1b[" in shown) == terminal


def test_the_sparkline_spans_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0.0, 0.5, 1.0], 9) == "▁▅█" and sparkline([3.0, 0.0, 0.5, 1.0], 3) == "▁▅█"
    assert sparkline([0.5, 0.5], 9) == "▁▁" and sparkline([], 9) == "" and sparkline([math.nan, 1.0], 9) == "▁"


def test_the_live_display_fits_into_80_columns(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, width=80, color_system=None)
    config, _ = load_config(None, ["steps=400"])
    with watch(console) as display:
        display.on_start(config, RunDirectory(tmp_path), 0)
        for step in range(0, 200, 40):
            display.on_evaluation({"step": step, "accuracy": 0.5, "correct": 4, "samples": 8})
        for step in range(1, 130):
            display.on_step([update(step, 100, reward=step / 400)])
    table = stream.getvalue().rsplit("step 129/400", 1)[1]
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in table.splitlines()]
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert any(line.startswith("reward    ▁") and "0.200 to 0.323" in line for line in lines)
    assert any("0.500 (step 80) → 0.500 (step 120) → 0.500 (step 160)" in line for line in lines)
