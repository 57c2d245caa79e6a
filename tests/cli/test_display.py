"""What a run looks like on a terminal and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from drpo.cli.display import LiveDisplay, PlainDisplay, watch
from drpo.cli.printing import PlainConsole
from drpo.run_directory import RunDirectory
from drpo.train.config import load_config


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
    if terminal:  # the table that stays on the screen holds the newest accuracy
        assert "0.625" in shown.rsplit("tokens/s", 1)[1]
    # 400 tokens in 2 s; the token means weigh 100 : 300, and leave out what does not exist.
    for figure in ("1/4", "0.500", "0.375", "0.0250", "0.200", "25.00%", "50.00%", "200", "a [note] with brackets"):
        assert figure in shown, figure
    for name in ("reward", "held-out", "|π−μ|", "p99", "beyond δ=0.15", "w<0", "tokens/s", "left"):
        assert name in shown, name
    assert ("\x1b[" in shown) == terminal
