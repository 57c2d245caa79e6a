"""The loss arrives in another process the way SkyRL sends it: through its registry's Ray actor."""

import os
import sys
from pathlib import Path

import cloudpickle
import pytest
import ray
import torch
from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry, sync_registries
from skyrl.train.config import make_config

from drpo.integrations.skyrl import NAME, DRPOAlgorithmConfig, check, drpo_policy_loss, register

SHIM = "import typing, typing_extensions\ntyping.TypedDict = typing_extensions.TypedDict\n"


@pytest.fixture
def cluster(tmp_path):
    # Workers import SkyRL as well: on Python 3.11 they need what conftest.py does here.
    (tmp_path / "sitecustomize.py").write_text(SHIM if sys.version_info < (3, 12) else "")
    paths = [str(tmp_path), *(path for path in sys.path if path)]
    ray.init(
        "local",  # not one that happens to run here
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
    )
    yield
    ray.shutdown()
    PolicyLossRegistry._ray_actor, PolicyLossRegistry._synced_to_actor = None, False


def test_a_worker_finds_the_loss_and_its_configuration(cluster):
    register()
    sync_registries()
    cfg = make_config(algorithm_cls=DRPOAlgorithmConfig).from_cli_overrides(
        ["trainer.algorithm.objective=spo", "trainer.algorithm.parameters.anchor=behavior"]
    )
    row = torch.log(torch.tensor([[0.2, 0.5, 0.9], [0.3, 0.4, 0.01]]))
    inputs = (row, None, torch.ones(2, 3), cfg.trainer.algorithm, torch.ones(2, 3), row.flip(0))

    @ray.remote
    def lose(cfg, *inputs):
        # As SkyRL's policy worker does in its constructor.
        function = PolicyLossRegistry.get(cfg.trainer.algorithm.policy_loss_type)
        check(cfg)
        return function(
            inputs[0],
            inputs[1],
            inputs[2],
            config=cfg.trainer.algorithm,
            loss_mask=inputs[4],
            rollout_logprobs=inputs[5],
        ), os.getpid()

    (loss, metrics), process = ray.get(lose.remote(cfg, *inputs), timeout=120)  # pyright: ignore
    assert process != os.getpid()
    expected, found = drpo_policy_loss(*inputs)
    assert torch.equal(loss, expected) and metrics == found
    assert NAME in PolicyLossRegistry.list_available()
    assert cloudpickle.loads(cloudpickle.dumps(cfg)).trainer.algorithm == cfg.trainer.algorithm
    assert Path(drpo_policy_loss.__code__.co_filename).exists()
