"""The plug-in arrives by itself: in a fresh process, from the installed package's metadata."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from drpo.integrations.verl_plugin.composition import PRESET, REQUIRED

LOOK = """
import json, sys, verl
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY as registry
print(json.dumps({
    "names": sorted(registry), "from": {name: loss.__module__ for name, loss in registry.items()},
    "vllm": "vllm" in sys.modules,
}))
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    with tempfile.TemporaryDirectory() as folder:  # Hydra writes into the working directory
        return subprocess.run(
            [sys.executable, *arguments],
            env={**clean, **environment},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )


def look(**environment: str) -> dict:
    done = run("-c", LOOK, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_verl_registers_our_losses_and_changes_none() -> None:
    with_plugin, without = look(), look(VERL_USE_EXTERNAL_PLUGINS="none")
    assert set(with_plugin["names"]) - set(without["names"]) == {"drpo", "drpo_record"}
    plugin = "drpo.integrations.verl_plugin"
    ours = {"drpo": f"{plugin}.loss", "drpo_record": f"{plugin}.record"}
    assert with_plugin["from"] == {**without["from"], **ours}
    assert not with_plugin["vllm"]


def main_ppo(*overrides: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "verl.trainer.main_ppo", *REQUIRED, *overrides)


def test_main_ppo_finds_the_preset() -> None:
    done = main_ppo(*PRESET, "--cfg", "job", "--resolve", "--package", "actor_rollout_ref.actor.policy_loss")
    assert done.returncode == 0, done.stderr
    assert "_target_: drpo.integrations.verl.DRPOPolicyLossConfig" in done.stdout
    assert "bypass_mode: true" in done.stdout


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("actor_rollout_ref.rollout.top_p=0.9", "top_p=0.9 cuts the distribution"),
        ("actor_rollout_ref.actor.policy_loss.objective=dropo", "Did you mean 'drpo'?"),
    ],
)
def test_main_ppo_stops_before_it_starts_anything(override: str, said: str) -> None:
    done = main_ppo(*PRESET, override)
    assert done.returncode != 0
    assert said in done.stderr
    assert "ray init kwargs" not in done.stdout
