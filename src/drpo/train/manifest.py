"""What a run's manifest.json says of how it was started."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import drpo
from drpo.code_version import training_code
from drpo.cpus import cpu_model
from drpo.model.policy import Policy
from drpo.train.branch import Branch
from drpo.train.config import TrainConfig
from drpo.train.outcome import Outcome
from drpo.train.resume import data_sums, json_values

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "reasoning-gym", "numpy", "peft")


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def new_manifest(
    config: TrainConfig, policy: Policy, loss: str, memory: dict[str, Any], branch: Branch | None = None
) -> dict[str, Any]:
    """What is said of a run that starts now.

    Args:
        config: every setting.
        policy: its device, its source and what the start check found are recorded.
        loss: how the loss is computed.
        memory: the bytes expected.
        branch: which other run it goes on from, if any.
    """
    return {
        "status": "running",
        "run_id": new_run_id(),
        "seed": config.seed,
        "config": json_values(config.resolved()),
        "data": data_sums(config),
        "command": ["drpo", *sys.argv[1:]],
        "started": now(),
        "device": str(policy.device),
        "model": None if policy.source is None else policy.source.as_dict(),
        "trust_remote_code": config.trust_remote_code,
        "loss": loss,
        "memory": memory,
        "start_check": policy.passes.as_dict(),
        "threads": torch.get_num_threads(),
        **({} if branch is None else {"parent": branch.record()}),
        "cpu": cpu_model(),
        "code": training_code(),
        "versions": {"drpo": drpo.__version__, "python": sys.version.split()[0], **_versions()},
    }


def continued_manifest(
    before: dict[str, Any], config: TrainConfig, threads: int, written: dict[str, Any], changes: list[dict[str, Any]]
) -> dict[str, Any]:
    """The manifest of a run that goes on: how it ended last time no longer holds.

    Args:
        before: the manifest as it is.
        config: the settings from now on.
        threads: CPU threads from now on.
        written: what config.yaml holds until it is replaced.
        changes: of settings, with the step after which they hold; added to those made before.
    """
    kept = {key: value for key, value in before.items() if key not in ("ended", "failure", "outcome")}
    made = {"changes": [*before.get("changes", []), *changes]} if changes else {}
    return {
        "run_id": new_run_id(),
        **kept,
        "threads": threads,
        "cpu": _also(before.get("cpu"), cpu_model()),
        "code": _also(before.get("code"), training_code()),
        "status": "running",
        **made,
        "config": json_values(config.resolved()),
        "config_before": json_values(written),
    }


def _also(before: str | None, now: str) -> str:
    """What a run was made with so far, and now: each once."""
    parts = (before or "not recorded").split("; ")
    return "; ".join(dict.fromkeys([*parts, now]))


def new_run_id() -> str:
    """What trackers know a run by, wherever its directory is moved."""
    return secrets.token_hex(4)


def ended_manifest(
    before: dict[str, Any], status: str, failure: str | None = None, outcome: Outcome | None = None
) -> dict[str, Any]:
    """The manifest of a run that ended as ``status``, with what went wrong, or what it came to."""
    reason = {} if failure is None else {"failure": failure}
    found = {} if outcome is None else {"outcome": dataclasses.asdict(outcome)}
    return {**before, "status": status, "ended": now(), **reason, **found}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
