"""A whole TRL run on the CPU learns the demo task (benchmarks/trl_learning.py has the full curves, beside ours)."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from types import ModuleType

import trl_runs  # noqa: F401 - sets the environment before transformers is imported

from drpo.train.config_layers import load_config

ROOT = Path(__file__).resolve().parents[3]


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trl_learning", ROOT / "benchmarks" / "trl_learning.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drpo_trainer_learns_the_demo(tmp_path: Path) -> None:
    """The demo's first steps, with the demo's settings, judged by the demo's evaluation."""
    config, _ = load_config(None, ["steps=12", "device=cpu", "eval_examples=128"])
    curve = load_benchmark().trl_curve(config, tmp_path)
    assert curve["after"] - curve["before"] > 0.2, curve
    assert statistics.fmean(curve["rewards"][-4:]) - statistics.fmean(curve["rewards"][:4]) > 0.1, curve
    assert len(curve["rewards"]) == 12
    assert curve["start_mismatch_max"] < 1e-4 < curve["stale_mismatch"]
