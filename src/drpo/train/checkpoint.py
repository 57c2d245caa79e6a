"""Checkpoints: written atomically, verified on load, nothing in them ever unpickled.

step-NNNNNN/
    config.json, model.safetensors, tokenizer.json, …   a Hugging Face model directory
    optimizer.safetensors                               optimizer moments and generator states
    rollout_weights.safetensors                         older weights to sample from, with rollout_lag only
    trainer_state.json                                  step, updates, data cursor, other generator states; its
                                                        ``schema`` number stands for the whole checkpoint
    checksums.json                                      SHA-256 of every other file
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from drpo.errors import CheckpointError, DataError, WriteError
from drpo.files import flush, remove_folder, writing
from drpo.model.policy import Policy
from drpo.run_checkpoints import checkpoint_folders, checkpoint_name, step_of
from drpo.schema import numbered
from drpo.train.checkpoint_schema import TrainerState, read_checksums, read_state, require_known
from drpo.train.rollout_weights import Snapshot

CHECKSUMS = "checksums.json"
_OPTIMIZER = "optimizer.safetensors"
_OLDER = "rollout_weights.safetensors"
_STATE = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: ``step`` rollout batches and ``updates`` optimizer steps done, ``cursor`` training examples
    used."""

    step: int = 0
    updates: int = 0
    cursor: int = 0


def save_checkpoint(
    folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, progress: Progress, older: Sequence[Snapshot] = ()
) -> Path:
    """Write ``folder/step-NNNNNN``.

    The model is saved as it is trained, in float32; ``older`` are weights that steps to come sample from.

    The files are written under a temporary name, flushed to disk, and renamed: a crash at any moment leaves the
    previous checkpoints as they were.

    Raises:
        WriteError: the disk refuses; the previous checkpoints are intact.
    """
    final = folder / checkpoint_name(progress.step)
    temporary = folder / f".writing-{final.name}"
    try:
        clean_up(folder)
        temporary.mkdir(parents=True)
        with policy.saved_weights():
            policy.model.save_pretrained(temporary, max_shard_size="100GB")
        policy.tokenizer.save_pretrained(temporary)
        save_file({**_optimizer_tensors(optimizer), **_generator_tensors()}, temporary / _OPTIMIZER)
        if older:
            save_file(_older_tensors(older), temporary / _OLDER)
        state = {
            "step": progress.step,
            "updates": progress.updates,
            "cursor": progress.cursor,
            "older": [[snapshot.step, snapshot.updates] for snapshot in older],
            **_generator_values(),
        }
        (temporary / _STATE).write_text(json.dumps(numbered("checkpoint", state)))
        sums = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
        (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=2))
        for file in temporary.iterdir():
            flush(file)
        flush(temporary)
        remove_folder(final)  # left by a run that was resumed from before it, or damaged
        temporary.replace(final)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise WriteError(
            f"cannot write the checkpoint {final}: {error}. Free space or fix the permissions, then continue with "
            f"`drpo train --resume {folder.parent}`; earlier checkpoints are intact."
        ) from error
    return final


def remove_old_checkpoints(folder: Path, step: int, keep: int, best: int | None) -> None:
    """Remove checkpoints in ``folder`` of a run that has done ``step`` steps.

    Args:
        folder: of the run.
        step: a later checkpoint, left by a run that was resumed from before it, is no business of this one's.
        keep: how many of the newest stay.
        best: the step of one that stays besides them.

    Raises:
        WriteError: the system refuses.
    """
    found = [path for at, path in checkpoint_folders(folder).items() if at <= step]
    with writing(folder):
        for old in found[:-keep]:
            if step_of(old) != best:
                remove_folder(old)


def clean_up(folder: Path) -> None:
    """Remove what a killed process left half written or half removed in ``folder``.

    Raises:
        OSError: the system refuses.
    """
    for pattern in (".writing-step-*", ".removing-step-*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left)


def find_checkpoint(folder: Path, note: Callable[[str], None]) -> Path | None:
    """The newest undamaged checkpoint under ``folder``, or None if none was ever written.

    ``note`` is told of each damaged one that is passed over.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged. SchemaError: a newer version wrote the newest.
    """
    found, damage = list(checkpoint_folders(folder).values()), None
    for checkpoint in reversed(found):
        damage = damage_of(checkpoint)
        if damage is None:
            return checkpoint
        note(f"checkpoint {checkpoint.name} is damaged ({damage}); falling back to the one before")
    if found:
        raise CheckpointError(
            f"every checkpoint under {folder} is damaged ({found[0].name}: {damage}). Restore one "
            "from a backup, or start again in a new directory."
        )
    return None


def restore(checkpoint: Path, optimizer: torch.optim.Optimizer) -> Progress:
    """Load optimizer and random generators from a verified ``checkpoint`` (the model is loaded as any directory is).

    Raises:
        CheckpointError: it does not fit the optimizer.
    """
    tensors = load_file(checkpoint / _OPTIMIZER)
    state = read_state(checkpoint / _STATE)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("state."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = tensor
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in moments.items():
        shape = parameters[index].shape if index < len(parameters) else None
        found = values["exp_avg"].shape if "exp_avg" in values else None
        if found != shape:
            raise CheckpointError(
                f"{checkpoint} does not fit this model: parameter {index} is {shape}, its moments are "
                f"{found}. Resume with the model that the run was started with."
            )
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["generator.cpu"])
    for device in range(torch.cuda.device_count()):
        if f"generator.cuda{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"generator.cuda{device}"], device)
    version, internal, gauss = state.python
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state.numpy
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    return Progress(state.step, state.updates, state.cursor)


def older_weights(checkpoint: Path, device: torch.device) -> list[Snapshot]:
    """The older weights that were saved with a verified ``checkpoint``."""
    saved = read_state(checkpoint / _STATE).older
    weights: list[dict[str, torch.Tensor]] = [{} for _ in saved]
    if saved:
        for key, tensor in load_file(checkpoint / _OLDER, str(device)).items():
            index, name = key.split(".", 1)
            weights[int(index)][name] = tensor
    return [Snapshot(step, updates, found) for (step, updates), found in zip(saved, weights, strict=True)]


def _older_tensors(older: Sequence[Snapshot]) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": weight.cpu().contiguous()
        for index, snapshot in enumerate(older)
        for name, weight in snapshot.weights.items()
    }


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"state.{index}.{name}": value.detach().cpu().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def _generator_tensors() -> dict[str, torch.Tensor]:
    cuda = {f"generator.cuda{d}": torch.cuda.get_rng_state(d) for d in range(torch.cuda.device_count())}
    return {"generator.cpu": torch.get_rng_state(), **cuda}


def _generator_values() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *rest]}


def damage_of(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None.

    Raises:
        SchemaError: a newer version wrote it: it is whole, and an older one beside it is no way on.
    """
    require_known(checkpoint / _STATE)
    try:
        sums = read_checksums(checkpoint / CHECKSUMS)
        for name, expected in sums.items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if _sha256(file) != expected:
                return f"{name} has changed"
        state = read_state(checkpoint / _STATE)
        return _contradiction(checkpoint, state)
    except (DataError, OSError, SafetensorError) as error:
        return str(error).removeprefix(f"{checkpoint}/")


def _contradiction(checkpoint: Path, state: TrainerState) -> str | None:
    """What the files of a checkpoint say against its name or each other, or None."""
    if step_of(checkpoint) not in (None, state.step):
        return f"{_STATE} is of step {state.step}"
    if state.older and not (checkpoint / _OLDER).is_file():
        return f"{_OLDER} is missing"
    with safe_open(checkpoint / _OPTIMIZER, "pt") as tensors:
        name = "generator.cpu"
        sound = name in tensors.keys() and tensors.get_tensor(name).shape == torch.get_rng_state().shape  # noqa: SIM118
    return None if sound else f"{_OPTIMIZER} holds no state of torch's generator"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
