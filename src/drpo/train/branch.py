"""A branch: a run of its own that goes on from another run's checkpoint, with other settings.

It goes on exactly: weights, optimizer, random generators, the place in the data and the count of steps and updates are
those of the checkpoint, so that a branch without a change is, bit for bit, what its parent does after that step. What
it records is its own, from that step on. Its directory begins with a copy of the checkpoint, and needs its parent no
more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import CheckpointError, ConfigError, WriteError
from drpo.files import flush, remove_folder
from drpo.run_checkpoints import step_of
from drpo.run_directory import RunDirectory
from drpo.run_schema import shortened
from drpo.train.checkpoint import clean_up
from drpo.train.checkpoint_choice import LAST, choose_checkpoint, run_of_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.config_layers import layer_config
from drpo.train.config_text import flat, parse_overrides
from drpo.train.resume import changed_settings, written_config


@dataclass(frozen=True)
class Branch:
    """A run that is about to go on from ``checkpoint`` of ``parent``, after ``step``.

    ``config`` are its settings, ``sources`` says where each came from, and ``changes`` lists those that are not the
    parent's.
    """

    parent: RunDirectory
    checkpoint: Path
    step: int
    config: TrainConfig
    sources: dict[str, str]
    changes: list[dict[str, Any]]

    def record(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "path": str(self.parent.path.absolute()),
            "run_id": self.parent.read_manifest().get("run_id"),
            "step": self.step,
            "changes": self.changes,
        }

    def notes(self) -> list[str]:
        """What the user should know of it."""
        said = [f"a branch of {self.parent.path}, which goes on after its step {self.step}"]
        return said + [
            f"{change['key']}: {shortened(change['before'])} → {shortened(change['after'])}" for change in self.changes
        ]

    def copy_checkpoint(self, folder: Path) -> None:
        """Put a copy of the checkpoint into ``folder``, whole or not at all.

        Raises:
            CheckpointError: it is not there any more. WriteError: the disk refuses.
        """
        final = folder / self.checkpoint.name
        temporary = folder / f".writing-{final.name}"
        if not self.checkpoint.is_dir():
            raise CheckpointError(
                f"{self.checkpoint} is not there any more: its run went on and removed it. Choose another one."
            )
        try:
            clean_up(folder)
            shutil.copytree(self.checkpoint, temporary)
            for file in (*temporary.iterdir(), temporary):
                flush(file)
            remove_folder(final)
            temporary.replace(final)
            flush(folder)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise WriteError(f"cannot copy {self.checkpoint} to {final}: {error}. Free space and try again.") from error


def make_branch(origin: str, overrides: Iterable[str], note: Callable[[str], None]) -> Branch:
    """The branch that ``drpo train --from ORIGIN key=value…`` asks for.

    Args:
        origin: a run's directory, ``RUN:best``, ``RUN:last``, ``RUN:STEP``, or the directory of a run's checkpoint.
        overrides: what differs from the parent's settings.
        note: told of damaged checkpoints that are passed over, and what else should be known of the choice.

    Raises:
        CheckpointError: there is no such run or checkpoint. ConfigError: a setting is not allowed at all, or not in a
            branch.
    """
    given = list(overrides)
    run, which = _named(origin)
    parent_config = written_config(run)
    checkpoint = choose_checkpoint(run, which, note)
    step = step_of(checkpoint) or 0
    before = layer_config([(str(run.config_file), parent_config)])[0]
    layers: list[tuple[str, dict[str, Any]]] = [("its parent", parent_config)]
    if before.steps <= step:
        layers.append(("as many again", {"steps": step + before.steps}))
    changed = parse_overrides(given)
    config, sources = layer_config([*layers, ("command line", changed)])
    for key in flat({name: value for name, value in changed.items() if name in ("model", "lora")}):
        _refuse(key, before, config, run, checkpoint)
    if config.steps <= step:
        raise ConfigError(
            f"steps={config.steps}: a branch goes on counting, and {checkpoint} has done {step} already. For "
            f"{config.steps} more, give steps={step + config.steps}."
        )
    return Branch(run, checkpoint, step, config, sources, changed_settings(before.resolved(), config.resolved()))


def _named(origin: str) -> tuple[RunDirectory, str]:
    """The run and which of its checkpoints."""
    if RunDirectory(origin).exists():
        return RunDirectory(origin), LAST
    owner = run_of_checkpoint(Path(origin))
    if owner is not None:
        step = step_of(Path(origin))
        if step is None:
            raise CheckpointError(
                f"{origin} is not named step-NNNNNN, so that it is no checkpoint of {owner.path} any more. Give its "
                "old name back, or start a new run with model=DIR."
            )
        return owner, str(step)
    path, colon, which = origin.rpartition(":")
    run = RunDirectory(path if colon else origin)
    if not run.exists():
        raise CheckpointError(
            f"--from {origin}: {run.path} holds no run (no config.yaml). Give the directory that `drpo train` printed, "
            "RUN:best, RUN:last or RUN:STEP. From a model, start a run with model=DIR."
        )
    return run, which


def _refuse(key: str, before: TrainConfig, config: TrainConfig, run: RunDirectory, checkpoint: Path) -> None:
    """Raise a ConfigError where a branch may not change ``key``, one of model and lora."""
    if key == "model":
        if before.lora is not None:  # where the base of the adapters is now
            return
        raise ConfigError(
            "model: a branch has the weights of its checkpoint, so that it would be ignored. Leave it out, or start a "
            "run of another model without --from."
        )
    if before.lora == config.lora:
        return
    fresh = "without --from, which starts with fresh adapters and a fresh optimizer"
    if before.lora is None:
        raise ConfigError(
            f"{key}: the checkpoint's optimizer belongs to all weights, and adapters would have none. Train them on "
            f"these weights {fresh}: `drpo train {run.config_file} model={checkpoint} lora.rank=16 --out DIR`"
        )
    raise ConfigError(
        f"{key}: the checkpoint's adapters and their optimizer have rank {before.lora.rank} and alpha "
        f"{before.lora.alpha:g}, and a branch keeps both. For others, merge these (`drpo export {run.path} --step "
        f"{step_of(checkpoint)} --out MODEL`) and train {fresh}: `drpo train {run.config_file} model=MODEL "
        "lora.rank=RANK --out DIR`"
    )
