"""`drpo doctor verl` where verl is: what it swallows, and what it says to the configuration of a run."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from drpo.integrations.verl_plugin.checks import explicit_overrides
from support.host_doctor import ask

WITH_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed, which the doctor asks for")

#: Beside our loss, what verl itself wants to be told.
RUN = [
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "algorithm.adv_estimator=grpo",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
    "trainer.n_gpus_per_node=1",
]


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU build of vLLM goes by another name; verl looks for this one."""
    folder = tmp_path / "vllm-0.32.0+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


@WITH_VLLM
def test_a_vllm_that_verl_does_not_find() -> None:
    assert "no distribution is called vllm" in ask("verl", code=1)["rollout"]["found"]


@pytest.mark.usefixtures("vllm")
@WITH_VLLM
def test_a_sound_environment() -> None:
    found = ask("verl", code=0)
    assert {found[what]["status"] for what in ("verl", "registry", "preset", "trainer", "rollout")} == {"ok"}
    assert "drpo.integrations.verl_plugin.loss.policy_loss" in found["registry"]["found"]
    assert found["μ"]["status"] == "note"


def test_a_plugin_that_verl_was_told_not_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    found = ask("verl", code=1)
    assert found["plug-in"]["status"] == "problem" and "VERL_USE_EXTERNAL_PLUGINS" in found["plug-in"]["fix"]
    assert found["registry"]["status"] == "warning"


@pytest.mark.usefixtures("vllm")
@WITH_VLLM
def test_the_configuration_of_a_run() -> None:
    found = ask("verl", *RUN, *explicit_overrides(), code=0)
    assert found["run"]["status"] == "ok" and "anchored on the rollout policy" in found["run"]["found"]
    recomputed = ask("verl", *RUN, *explicit_overrides(), "algorithm.rollout_correction.bypass_mode=false", code=1)
    assert recomputed["run"]["status"] == "problem" and "bypass_mode=true" in recomputed["run"]["found"]
