"""The evaluation after the last step may have a size of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.cpus import cpu_model
from drpo.run_directory import RunDirectory
from drpo.train.config import EvaluationSize
from drpo.train.config_layers import layer_config
from drpo.train.loop import train

pytestmark = pytest.mark.slow

SMALL = {
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 2,
    "updates_per_step": 1,
    "eval_every": 1,
    "eval_examples": 3,
    "eval_samples": 1,
    "max_new_tokens": 4,
}


def test_only_the_last_evaluation_has_its_size(tmp_path: Path) -> None:
    config, _ = layer_config([("test", {**SMALL, "eval_final": {"examples": 6, "samples": 2}})])
    assert config.evaluation_size(1) == EvaluationSize(examples=3, samples=1) and config.most_examples == 6
    train(config, RunDirectory(tmp_path / "run"))
    run = RunDirectory(tmp_path / "run")
    sizes = [(record["step"], record["examples"], record["samples"]) for record in run.read_metrics("evaluation")]
    assert sizes == [(0, 3, 3), (1, 3, 3), (2, 6, 12)]
    assert run.read_manifest()["cpu"] == cpu_model() and len(run.read_manifest()["code"]) == 16
    plain, _ = layer_config([("test", SMALL)])
    train(plain, RunDirectory(tmp_path / "plain"))
    before, after = (RunDirectory(tmp_path / name).read_metrics("update") for name in ("plain", "run"))
    drop = {"timing"}
    assert [{k: v for k, v in record.items() if k not in drop} for record in before] == [
        {k: v for k, v in record.items() if k not in drop} for record in after
    ]
