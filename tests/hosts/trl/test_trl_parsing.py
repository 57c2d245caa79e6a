"""The objective's settings from Python, a command line and YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser
from trl import TrlParser  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
from trl_runs import make_config

from drpo.errors import ConfigError
from drpo.integrations.trl import DRPOConfig

AS_ANY: Any = DRPOConfig  # typed as the protocol of dataclass types
BASE = ["--use_cpu", "--bf16", "false", "--report_to", "none"]


def test_a_command_line(tmp_path: Path) -> None:
    parameters = '{"ratio_high": 0.3, "anchor": "proximal", "modifiers": [{"name": "tis"}]}'
    line = [
        *BASE,
        "--output_dir",
        str(tmp_path),
        "--objective",
        "grpo",
        "--aggregation",
        "token_mean",
        "--objective_parameters",
        parameters,
    ]
    for parser in (HfArgumentParser, TrlParser):
        (config,) = parser(AS_ANY).parse_args_into_dataclasses(line)
        objective = config.make_objective()
        assert objective.settings()["ratio_high"] == 0.3 and objective.settings()["anchor"] == "proximal"
        assert config.aggregation == "token_mean" and config.horizon is None
    with pytest.raises(ConfigError, match="no parameter 'ratio_hihg'"):
        HfArgumentParser(AS_ANY).parse_args_into_dataclasses(
            [*BASE, "--output_dir", str(tmp_path), "--objective", "grpo", "--objective_parameters", '{"ratio_hihg": 1}']
        )


def test_a_yaml_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\nreport_to: none\nobjective: drpo\n"
        "objective_parameters:\n  delta: 0.2\n  advantage_weighted: false\n  modifiers:\n    - name: opsm\n"
    )
    (config,) = TrlParser(AS_ANY).parse_args_and_config(["--config", str(file)])
    assert config.make_objective().settings() == {
        "name": "drpo",
        "delta": 0.2,
        "deadzone": 0.0,
        "advantage_weighted": False,
        "anchor": "behavior",
        "modifiers": [{"name": "opsm", "kl_max": 0.05}],
    }
    assert config.objective_parameters == config.to_dict()["objective_parameters"]


def test_the_defaults() -> None:
    config = make_config(max_completion_length=100)
    assert config.make_objective().settings() == {
        "name": "drpo",
        "delta": 0.15,
        "deadzone": 0.0,
        "advantage_weighted": True,
    }
    assert (config.aggregation, config.horizon) == ("sequence_sum", 100)
