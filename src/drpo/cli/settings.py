"""What stands on a command line beside its options: ``key=value`` settings, and what people type in their place."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

from drpo.errors import ConfigError, DrpoError, suggest
from drpo.tasks.records.files import DATA_SUFFIXES, file_records
from drpo.train.config import TrainConfig
from drpo.train.config_aliases import ALIASES, unknown_key


def refuse_options(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Refuse what looks like an option and is none: settings are written without dashes.

    Args:
        arguments: what was left when the command had taken its own options.
        known: those options.

    Raises:
        ConfigError: saying how the setting is written.
    """
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        if not argument.startswith("-") or argument == "-":
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        key = name.replace("-", "_")
        if not equals:
            value = following if following is not None and not following.startswith("-") else "VALUE"
        if key.partition(".")[0] in TrainConfig.model_fields:
            raise ConfigError(
                f"No such option: {argument.partition('=')[0]}. {key} is a setting, which is written "
                f"without dashes. Type {shlex.quote(f'{key}={value}')}"
            )
        nearest = "" if key.lower() in ALIASES else suggest(f"--{name}", known)
        raise ConfigError(
            f"No such option: {argument.partition('=')[0]}.{nearest} A setting is written without "
            f"dashes, {key}={value}: {unknown_key(key, list(TrainConfig.model_fields))}"
        )


def refuse_data_file(file: Path) -> None:
    """Refuse a data file instead of a configuration.

    Raises:
        ConfigError: saying what to type.
    """
    if not any(suffix in DATA_SUFFIXES for suffix in file.suffixes[-2:]) or not file.is_file():
        return
    try:
        _, record = next(iter(file_records(file, "")))
        task = "jsonl" if {"prompt", "answer"} <= set(record) else "math"
    except (DrpoError, StopIteration):  # whoever reads it as what it is says what is wrong with it
        task = "jsonl"
    raise ConfigError(
        f"{file} is a data file, not a configuration. Type task={task} {shlex.quote(f'task.path={file}')} in its place."
    )
