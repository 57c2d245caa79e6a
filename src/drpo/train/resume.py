"""Going on with a run: from which checkpoint, under which settings, and what may not change."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import CheckpointError, ConfigError
from drpo.files import without_nan
from drpo.model.source import find_model
from drpo.run_checkpoints import step_of
from drpo.run_directory import RunDirectory
from drpo.run_schema import shortened
from drpo.train.checkpoint import clean_up, find_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.config_layers import layer_config
from drpo.train.config_text import as_text, flat, parse_overrides

#: Settings that a resumed run may change: how long it runs, how far a step goes, what it costs, what it records, where
#: it runs. None of them changes which data comes next or what the objective means.
CHANGEABLE = frozenset(
    {
        "steps",
        "learning_rate",
        "warmup_updates",
        "weight_decay",
        "gradient_clip",
        "micro_batch_tokens",
        "gradient_checkpointing",
        "device",
        "threads",
        "sampler",
        "eval_every",
        "eval_examples",
        "eval_samples",
        "eval_final",
        "checkpoint_every",
        "checkpoint_keep",
        "stop_on_collapse",
        "log_tokens",
        "log_tokens_share",
        "trackers",
        "project",
        "delta_shown",
        "mismatch_limit",
        "grading_time_limit",
        "grading_workers",
        "trust_remote_code",
    }
)
_DATA = "the order of the training data follows from it"
_OBJECTIVE = "it decides what the objective is"
_WEIGHTS = "the weights and the optimizer's moments of the checkpoint belong to it"
#: Setting → why a resumed run keeps it.
KEPT = {
    **dict.fromkeys(("seed", "prompts_per_step", "group_size", "updates_per_step", "task"), _DATA),
    **dict.fromkeys(
        (
            *("objective", "advantages", "aggregation", "max_new_tokens"),
            *("temperature", "top_p", "top_k", "min_p", "support_replay", "router_replay"),
        ),
        _OBJECTIVE,
    ),
    **dict.fromkeys(("lora", "precision", "rollout_precision", "rollout_lag"), _WEIGHTS),
}
#: Every version writes these into config.yaml, the last one last.
ALWAYS = ("model", "task", "objective", "steps", "seed", "device")


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on: after ``step``, from ``checkpoint`` (None: from the start), with ``changes`` of settings."""

    step: int
    checkpoint: Path | None
    changes: list[dict[str, Any]]


def resumed_config(run: RunDirectory, overrides: Iterable[str] = ()) -> TrainConfig:
    """The run's own configuration, with ``key=value`` changes over it.

    Raises:
        CheckpointError: there is no run, or its configuration is not what it wrote. ConfigError: a change is not
            allowed at all.
    """
    layers = [(str(run.config_file), written_config(run)), ("command line", parse_overrides(overrides))]
    return layer_config(layers)[0]


def written_config(run: RunDirectory) -> dict[str, Any]:
    """The values of config.yaml, found to be those that the run wrote.

    The manifest holds them too. A run of an earlier version, or one whose manifest is gone, has no second copy: its
    configuration has to be whole.

    Raises:
        CheckpointError: the file was cut, emptied or edited.
    """
    values, manifest = run.read_config(), run.read_manifest()
    copies = [manifest[name] for name in ("config", "config_before") if name in manifest]
    if not copies:
        missing = [key for key in ALWAYS if key not in values]
        if missing or not run.config_file.read_bytes().endswith(b"\n"):
            lacks = f"lacks {', '.join(missing)}" if missing else "ends in the middle of a line"
            raise CheckpointError(
                f"{run.config_file} is cut off: it {lacks}. Restore it from a backup; nothing was changed."
            )
        return values
    if json_values(values) not in copies:
        there, ours = flat(json_values(values)), flat(copies[0])
        keys = [key for key in dict.fromkeys([*ours, *there]) if there.get(key, "") != ours.get(key, "")]
        said = [
            f"{key} ({shortened(ours[key]) if key in ours else 'absent'} when it was written, "
            f"{shortened(there[key]) if key in there else 'absent'} now)"
            for key in keys[:3]
        ]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise CheckpointError(
            f"{run.config_file} is not what the run wrote: {', '.join(said)}{more}. Put it back; "
            f"changes go on the command line, for example `drpo train --resume {run.path} "
            "learning_rate=1e-5`. Nothing was changed."
        )
    return values


def find_resumption(config: TrainConfig, run: RunDirectory, note: Callable[[str], None]) -> Resumption:
    """Where ``config`` goes on with ``run``; half-written leftovers of a killed process are removed.

    Raises:
        CheckpointError: there is no way on. ConfigError: ``config`` changes what the run has to keep.
    """
    before = layer_config([(str(run.config_file), written_config(run))])[0]
    if run.checkpoints.is_dir():
        clean_up(run.checkpoints)
    checkpoint = find_checkpoint(run.checkpoints, note)
    step = 0 if checkpoint is None else step_of(checkpoint) or 0
    if checkpoint is None:
        _refuse_lost_checkpoints(run, before)
    changes = changed_settings(before.resolved(), config.resolved())
    for change in changes:
        _refuse(change["key"], before, run, checkpoint)
        if change["key"] == "model":
            find_model(config.model, config.trust_remote_code)  # says so if it is not there
    if config.steps < step:
        raise ConfigError(f"steps={config.steps}: the run has done {step} already. Give more, or start a new run.")
    _check_data(config, run)
    for change in changes if step < config.steps else ():
        note(f"{change['key']}: {shortened(change['before'])} → {shortened(change['after'])} from step {step + 1} on")
    return Resumption(step, checkpoint, [{"step": step, **change} for change in changes])


def base_of_run(config: TrainConfig) -> str | None:
    """Where the base of a LoRA run's adapters is, if ``config`` knows a place that exists; None: where they say."""
    if config.lora is None:
        return None
    there = config.model.startswith("embedded:") or Path(config.model).expanduser().is_dir()
    return config.model if there else None


def is_finished(run: RunDirectory) -> bool:
    """Whether the run says that it did all its steps."""
    return run.read_manifest().get("status") == "finished"


def nothing_left(run: RunDirectory, steps: int, changes: Iterable[Mapping[str, Any]]) -> str:
    """What to type, told to whoever resumes a finished run."""
    changed = "".join(" " + shlex.quote(f"{change['key']}={as_text(change['after'])}") for change in changes)
    longer = f"`drpo train --resume {run.path} steps={2 * steps}{changed}`"
    done = f"nothing is left to do: the run is finished, after step {steps}"
    if not changed:
        return f"{done}. For more steps, type {longer}"
    branch = f"`drpo train --from {run.path}:best{changed}`"
    return f"{done}, and no setting was changed. For more steps, type {longer}; for a run from its best step, {branch}"


def rewind(run: RunDirectory, step: int, note: Callable[[str], None]) -> None:
    """Forget what the run recorded after ``step``; ``note`` is told what is missing of the steps before."""
    if torn := run.torn_metrics():
        note(torn)
    run.rewind(step)
    if missing := run.missing_metrics(step):
        note(missing)


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``key``, ``before`` and ``after`` of each dotted setting that differs."""
    old, new = flat(json_values(before)), flat(json_values(after))
    keys = [
        key
        for key in dict.fromkeys([*old, *new])
        if old.get(key, "") != new.get(key, "") or (key in old) != (key in new)
    ]
    return [{"key": key, "before": old.get(key), "after": new.get(key)} for key in keys]


def data_sums(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of every file that the task names (as ``path`` or ``…_path``), by its dotted key."""
    found = {}
    for key, value in config.task.parameters.items():
        if names_data(key) and isinstance(value, str) and Path(value).expanduser().is_file():
            with Path(value).expanduser().open("rb") as stream:
                found[f"task.{key}"] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as JSON gives them back."""
    return json.loads(json.dumps(without_nan(values), default=str))


def names_data(key: str) -> bool:
    """Whether a task's parameter of that name is the path of its data."""
    return key == "path" or key.endswith("_path")


def _refuse_lost_checkpoints(run: RunDirectory, config: TrainConfig) -> None:
    """A run that has checkpointed cannot start again from nothing: what it recorded would be erased. A branch begins
    with a checkpoint."""
    recorded = max((record["step"] for record in run.read_metrics("update")), default=0)
    if recorded > config.checkpoint_every or is_finished(run) or run.first_step():
        raise CheckpointError(
            f"{run.checkpoints} holds no checkpoint, though the run has done {max(recorded, run.first_step())} steps: "
            "they were removed. Restore one from a backup, or start a new run."
        )


def _refuse(key: str, config: TrainConfig, run: RunDirectory, checkpoint: Path | None) -> None:
    """Raise a ConfigError where a resumed run may not change ``key``."""
    section, _, rest = key.partition(".")
    if section in CHANGEABLE or (section == "task" and names_data(rest)):
        return
    if section == "model":
        if checkpoint is None or config.lora is not None:
            return
        reason = "the weights come from the checkpoint, so that it would be ignored. Leave it out"
    elif checkpoint is None:
        reason = f"{_why(section)}. It has no checkpoint yet: start a new run with {key}=VALUE instead"
    elif section == "lora":
        reason = f"{_why(section)}. `drpo train --from {run.path} {key}=VALUE` says how to train other adapters"
    else:
        reason = f"{_why(section)}. To go on with another value, branch: `drpo train --from {run.path} {key}=VALUE`"
    raise ConfigError(f"{key}: a resumed run keeps it: {reason}. May change: {', '.join(sorted(CHANGEABLE))}.")


def _why(section: str) -> str:
    return KEPT.get(section, "it decides what the run computes")


def _check_data(config: TrainConfig, run: RunDirectory) -> None:
    """The task's files hold what they held when the run started, wherever they are now."""
    recorded, now = run.read_manifest().get("data", {}), data_sums(config)
    for key, value in config.task.parameters.items():
        name = f"task.{key}"
        if not (names_data(key) and isinstance(value, str)):
            continue
        if name in recorded and not Path(value).expanduser().exists():
            raise ConfigError(
                f"{name}: {value} is not there any more. Say where it is now: `drpo train --resume "
                f"{run.path} {name}=FILE`."
            )
        if name in recorded and now.get(name) != recorded[name]:
            raise ConfigError(
                f"{name}: {value} has changed since the run started, and the order of the training data "
                f"follows from it. Put the old file back, or give its place with {name}=FILE."
            )
