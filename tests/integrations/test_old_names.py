"""The names that configurations and scripts of users hold: each still leads to what it named.

The hosts are stand-ins: they say what was imported, registered or called, and nothing of the plug-ins is replaced.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STAND_INS = {
    "verl/__init__.py": "",
    "verl/trainer/__init__.py": "",
    "verl/trainer/ppo/__init__.py": "",
    "verl/trainer/ppo/core_algos.py": (
        "POLICY_LOSS_REGISTRY = {}\n"
        "def register_policy_loss(name):\n    return lambda loss: POLICY_LOSS_REGISTRY.setdefault(name, loss)\n"
        "def get_policy_loss_fn(name): return POLICY_LOSS_REGISTRY[name]\n"
        "def agg_loss(**_): raise AssertionError\n"
    ),
    "verl/trainer/ppo/utils.py": "need_critic = need_reference_policy = None\n",
    "verl/workers/__init__.py": "",
    "verl/workers/config.py": "from dataclasses import dataclass\n@dataclass\nclass PolicyLossConfig: pass\n",
    "verl/utils/__init__.py": "",
    "verl/utils/config.py": "omega_conf_to_dataclass = validate_config = None\n",
    "verl/utils/import_utils.py": "load_extern_object = None\n",
    "verl/utils/reward_score/__init__.py": "",
    "verl/utils/reward_score/math_verify.py": "def compute_score(text, truth, timeout): return 1.0\n",
    "math_verify.py": "",
    "omegaconf.py": "DictConfig = OmegaConf = None\n",
    "hydra/__init__.py": (
        "def initialize_config_dir(*_, **__): raise ValueError('composed by Hydra')\ncompose = None\n"
    ),
}


@pytest.fixture
def verl(tmp_path: Path) -> Path:
    """A folder with stand-ins for verl and what it needs."""
    for name, text in STAND_INS.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), *environment.get("PYTHONPATH", "").split(os.pathsep)])
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300)


def test_the_search_path_of_the_presets() -> None:
    """What Hydra does with ``hydra.searchpath=[pkg://drpo.integrations.verl_presets]``."""
    folder = importlib.resources.files("drpo.integrations.verl_presets")
    assert (folder / "__init__.py").is_file()
    preset = yaml.safe_load((folder / "drpo" / "rollout_anchored.yaml").read_text(encoding="utf-8"))
    target = preset["actor_rollout_ref"]["actor"]["policy_loss"]["_target_"]
    assert target == "drpo.integrations.verl.DRPOPolicyLossConfig"


def test_the_presets_need_no_verl_and_exist_once() -> None:
    done = run("-c", "import sys, drpo.integrations.verl_presets; print('verl' in sys.modules, 'torch' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert len(list((ROOT / "src").rglob("rollout_anchored.yaml"))) == 1


LOAD = """
from importlib.metadata import EntryPoint
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY as registry
before = sorted(registry)
EntryPoint(name="drpo", value={value!r}, group="verl.plugins").load()
import drpo.integrations.verl as named
assert registry["drpo"] is named.policy_loss
print(before, sorted(registry), named.DRPOPolicyLossConfig.__name__)
"""


def test_the_entry_point_registers_the_loss_on_import(verl: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["verl.plugins"]["drpo"]
    assert EntryPoint("drpo", value, "verl.plugins").module == "drpo.integrations.verl"
    done = run("-c", LOAD.format(value=value), path=verl)
    assert done.stdout.strip() == "[] ['drpo', 'drpo_record'] DRPOPolicyLossConfig", done.stderr


def test_the_plugin_may_be_imported_before_verl_which_then_loads_it(verl: Path) -> None:
    """verl loads its plug-ins while it is imported, here from inside our own import."""
    (verl / "verl" / "__init__.py").write_text("import importlib\nimportlib.import_module('drpo.integrations.verl')\n")
    code = (
        "import drpo.integrations.verl as named\n"
        "from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY as registry\n"
        "print(registry['drpo'] is named.policy_loss)"
    )
    assert run("-c", code, path=verl).stdout.strip() == "True"


def test_the_package_registers_nothing_by_itself(verl: Path) -> None:
    code = (
        "import drpo.integrations.verl_plugin.doctor, drpo.integrations.verl_plugin.checks\n"
        "from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY as registry\nprint(sorted(registry))"
    )
    assert run("-c", code, path=verl).stdout.strip() == "[]", "`drpo doctor verl` sees what importing verl alone does"


def test_the_reward(verl: Path) -> None:
    code = "import importlib; print(importlib.import_module('drpo.integrations.verl_math').compute_score('', '', '1'))"
    assert run("-c", code, path=verl).stdout.strip() == "1.0"


def test_the_dry_run_of_verl(verl: Path) -> None:
    done = run("-m", "drpo.integrations.verl_dry_run", "--dry-run", "a=1", path=verl)
    assert done.returncode == 0, done.stderr
    (answer,) = (line for line in done.stdout.splitlines() if line.startswith("DRY-RUN "))
    assert json.loads(answer.removeprefix("DRY-RUN ")) == {"error": "ValueError: composed by Hydra"}


def test_the_loss_of_prime_rl() -> None:
    from drpo.integrations.prime_rl import drpo_loss

    assert drpo_loss.__name__ == "drpo_loss" and drpo_loss.__module__.startswith("drpo.integrations.prime_rl")


@pytest.mark.parametrize(
    ("name", "module", "attribute"),
    [("trl", "trl", "DRPOTrainer"), ("skyrl", "skyrl", "register"), ("tinker", "tinker", "make_loss")],
)
def test_the_other_hosts_are_packages_of_the_same_name(name: str, module: str, attribute: str) -> None:
    spec = importlib.util.find_spec(f"drpo.integrations.{name}")
    assert spec is not None and spec.submodule_search_locations
    if importlib.util.find_spec(module) is None:
        with pytest.raises(ImportError):
            importlib.import_module(f"drpo.integrations.{name}")
    else:
        assert hasattr(importlib.import_module(f"drpo.integrations.{name}"), attribute)


def test_skyrl_can_be_started_by_its_name() -> None:
    assert importlib.resources.files("drpo.integrations").joinpath("skyrl", "__main__.py").is_file()


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
@pytest.mark.parametrize("module", ["drpo.integrations.trl_gsm8k", "drpo.integrations.trl.gsm8k"])
def test_training_on_gsm8k_with_trl(module: str) -> None:
    done = run("-m", module, "--dry-run", "modle=x")
    assert done.returncode == 0, done.stderr
    assert "unknown setting 'modle'" in done.stdout
