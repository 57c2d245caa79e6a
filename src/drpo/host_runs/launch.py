"""Checking that a run can start here, and starting it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from drpo.errors import ConfigError, DataError
from drpo.host_runs.command import Plan, gpus, nodes
from drpo.integrations.hosts import run_of

MATH_VERIFY = {"math_verify": "pip install 'math-verify[antlr4_9_3]', on every machine (Hydra needs that antlr)"}
VLLM = {"vllm": "pip install vllm, or sample without it: --set use_vllm=false"}

#: Seconds for a Ray cluster to answer.
RAY_TIME_LIMIT = 60

_START_RAY = "Start one with `ray start --head`, and give its address (HOST:6379, or auto)."
_RESULT = "DRY-RUN "
_HOME = re.compile(r"\$\{oc\.env:(\w+)\}")


def dry_run(plan: Plan) -> dict[str, Any]:
    """What the host's own code validated: ``{"validated": […], "not_validated": […]}``.

    Raises:
        ConfigError: the host is not installed, or refuses the configuration.
    """
    require_host(plan, checking=True)
    command = [sys.executable, "-m", run_of(plan.recipe.host).dry_run, "--dry-run", *plan.arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    result = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(_RESULT)), None)
    if result is None:
        output = (done.stdout + done.stderr).strip()
        raise ConfigError(
            f"{plan.recipe.host} could not check the configuration (exit code {done.returncode}):\n{output[-4000:]}"
        )
    answer = json.loads(result.removeprefix(_RESULT))
    if "error" in answer:
        raise ConfigError(f"{plan.recipe.host} refuses the configuration of {plan.recipe.name}: {answer['error']}")
    return answer


def launch(plan: Plan, address: str | None = None, submit: str | None = None) -> NoReturn:
    """Start the run instead of this process: its output, its signals and its exit code are the host's.

    Args:
        plan: what to start.
        address: of a running Ray cluster to join; None lets verl start Ray on this machine.
        submit: the dashboard of a running Ray cluster, which then runs the command.

    Raises:
        ConfigError: the host is missing, or there are too few GPUs.
        DataError: a data file is missing.
    """
    command, environment = plan.command, dict(os.environ)
    if (address or submit) and not run_of(plan.recipe.host).on_ray:
        raise ConfigError(f"{plan.recipe.name} runs on one machine without Ray. Leave out --address and --submit.")
    if address and submit:
        raise ConfigError("--address joins a Ray cluster from here, --submit hands the command to it. Give one.")
    if submit:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("--submit needs Ray. Install it with: pip install 'ray[default]'")
        # The cluster's own Python, and the machine that submits needs neither the data nor the GPUs.
        command = [*_RAY, "job", "submit", f"--address={submit}", "--", "python", *command[1:]]
    else:
        check(plan, address)
    if address:
        environment["RAY_ADDRESS"] = address
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, environment)


_RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def check(plan: Plan, address: str | None = None) -> None:
    """Whether the run can start here.

    Raises:
        ConfigError: the host is missing, or there are too few GPUs.
        DataError: a data file is missing.
    """
    require_host(plan)
    require_data(plan)
    require_gpus(plan, address)


def require_host(plan: Plan, checking: bool = False) -> None:
    """Refuse to go on without the host's packages; those that only a run needs are left out for ``checking``."""
    host = run_of(plan.recipe.host).needed
    needed = host if checking else host | _needed_to_run(plan)
    for module, fix in needed.items():
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"{plan.recipe.name} needs {module}, which is not installed in {sys.prefix}. "
                f"Install it there: {fix} (docs/integrations/{plan.recipe.host}.md). "
                "`drpo recipe show` works without it."
            )


def _needed_to_run(plan: Plan) -> dict[str, str]:
    graded = str(plan.recipe.value("reward.custom_reward_function.path")).endswith("verl_math")
    return (MATH_VERIFY if graded else {}) | (VLLM if plan.recipe.value("use_vllm") else {})


def require_data(plan: Plan) -> None:
    """Refuse to go on without the data files."""
    for name in ("data.train_files", "data.val_files", "train_data", "eval_data"):
        value = plan.recipe.value(name)
        for file in value if isinstance(value, list) else [value]:
            path = _expanded(str(file or ""))
            is_name = plan.recipe.host == "trl" and not path.suffix  # of a data set, for the datasets package
            if file and not is_name and "://" not in str(file) and not path.exists():
                raise DataError(
                    f"{name}: {path} does not exist. Make it as docs/recipes.md says, or name yours with "
                    f"--set {name}=FILE"
                )


def require_gpus(plan: Plan, address: str | None) -> None:
    """Refuse to go on with fewer GPUs than the run asks for."""
    needed, machines = gpus(plan.recipe), nodes(plan.recipe)
    if needed and not address and machines > 1:
        raise ConfigError(
            f"{plan.recipe.name} asks for {machines} machines ({needed} GPUs). Start Ray on all of "
            "them and give --address (docs/recipes.md), or fewer machines: --set trainer.nnodes=1"
        )
    there = _gpus_of_cluster(address) if address else _gpus_here()
    if there < needed:
        where = f"the Ray cluster {address} has" if address else "this machine has"
        fix = (
            "--set use_cpu=true --set use_vllm=false runs it on the CPU, slowly"
            if plan.recipe.host == "trl"
            else "Ask for fewer with --set trainer.n_gpus_per_node=N (and trainer.nnodes), and adapt the "
            "tensor_model_parallel_size settings"
        )
        raise ConfigError(f"{plan.recipe.name} asks for {needed} GPUs and {where} {there}. {fix}.")


def _expanded(text: str) -> Path:
    return Path(_HOME.sub(lambda match: os.environ.get(match[1], ""), text)).expanduser()


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _gpus_of_cluster(address: str) -> int:
    """Ray's count; in a process of its own, so that this one stays unconnected."""
    ask = (
        "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); "
        "print('GPUS', int(ray.cluster_resources().get('GPU', 0)))"
    )
    try:  # Ray itself tries for many minutes
        done = subprocess.run(
            [sys.executable, "-c", ask, address], capture_output=True, text=True, timeout=RAY_TIME_LIMIT
        )
    except subprocess.TimeoutExpired as error:
        silence = f"no Ray cluster answers at {address} within {RAY_TIME_LIMIT} seconds"
        raise ConfigError(f"{silence}. {_START_RAY}") from error
    found = re.search(r"^GPUS (\d+)$", done.stdout, re.MULTILINE)
    if found is None:
        said = (done.stderr.strip() or "no output").splitlines()[-1]
        raise ConfigError(f"no Ray cluster answers at {address}: {said}. {_START_RAY}")
    return int(found[1])
