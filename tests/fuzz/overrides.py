"""Overrides and configuration files, through the functions of `drpo train` and now and then through the command."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drpo.cli.train import split_settings
from drpo.objectives import MODIFIERS, OBJECTIVES
from drpo.run_directory import RunDirectory
from drpo.tasks import make_task
from drpo.train.config import TrainConfig
from drpo.train.config_aliases import ALIASES
from drpo.train.config_layers import as_overrides, load_config, validate_config
from fuzz.outcomes import outcome, run_command

UNITS = 25

_CHARACTERS = ["\x00", "\x1b", "\ud800", "\u202e", "<<", *"aZé漢𝔸\n\t =.:#&*!|>'\"%@`{}[],?-~09\\/"]
_SECTIONS = {
    "task": [
        "copy",
        "jsonl",
        "math",
        "word_problems",
        "reasoning_gym:chain_sum",
        "reasoning_gym:countdown",
        "reasoning_gym:",
        "python:os:path",
        "python:json:JSONDecoder",
        "python::",
        "python:x",
    ],
    "objective": [*OBJECTIVES],
    "sampler": ["in_process", "vllm"],
}
_PARAMETERS = {
    "task": [
        "length",
        "alphabet",
        "min_terms",
        "max_terms",
        "min_digits",
        "max_digits",
        "operators",
        "path",
        "dataset",
        "heldout_fraction",
        "min_steps",
        "max_steps",
        "largest_start",
        "largest_change",
        "prompt_column",
        "seed",
        "size",
        "self",
        "name",
        "parameters",
        "model_config",
        "__class__",
        "layout",
        "memory_gib",
    ],
    "objective": [
        "delta",
        "anchor",
        "modifiers",
        "ratio_low",
        "ratio_high",
        "k",
        "kl_max",
        "dual_clip",
        "deadzone",
        "epsilon",
        "coefficient",
        "name",
        "self",
        "estimator",
        "advantage_weighted",
        "boundary",
    ],
    "sampler": ["compiled", "max_rows", "sleep", "cache_gib", "attempts", "eager", "gpu_memory_utilization"],
    "lora": ["rank", "alpha", "targets", "dropout"],
    "chat_template_kwargs": ["enable_thinking", "tools", "chat_template", "add_generation_prompt"],
}


def run_case(seed: int, folder: Path) -> str | None:
    """``UNITS`` lists of settings."""
    random_ = random.Random(f"overrides {seed}")
    for unit in range(UNITS):
        settings = make_settings(random_, folder)
        problem = check(settings, random_, folder)
        if problem is not None:
            return f"unit {unit}, settings {[text[:200] for text in settings]}: {problem}"
    return None


def check(settings: list[str], random_: random.Random, folder: Path) -> str | None:
    """What went wrong with these settings, if anything."""
    result, error, problem = outcome(lambda: load_config(*split_settings(settings)))
    if problem is not None:
        return problem
    if error is not None:
        if random_.random() < 0.02 and "--" not in settings and all("\x00" not in text for text in settings):
            _, said, problem = run_command(["train", "--dry-run", *settings])
            return problem or (None if "error" in said.lower() else f"refused, but not by the command: {said[:200]}")
        return None
    config: TrainConfig = result[0]
    return _round_trip(config, folder) or outcome(lambda: make_task(config.task.name, **config.task.parameters))[2]


def _round_trip(config: TrainConfig, folder: Path) -> str | None:
    """A configuration that was accepted can be written and read again."""
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    _, error, problem = outcome(lambda: run.create(config.resolved(), {}))
    if error is not None or problem is not None:
        return f"cannot be written: {error or problem}"
    read, error, problem = outcome(lambda: load_config(run.config_file)[0])
    if error is not None or problem is not None or repr(read.resolved()) != repr(config.resolved()):
        return f"reads otherwise than it was written: {error or problem or run.config_file.read_text()}"
    again, error, problem = outcome(lambda: validate_config(config.as_dict()))
    if error is not None or problem is not None or repr(again) != repr(config):
        return f"does not load as itself: {error or problem}"
    same, error, problem = outcome(lambda: load_config(None, as_overrides(config))[0])
    if error is not None or problem is not None or repr(same) != repr(config):
        return f"as overrides it is another one: {error or problem or as_overrides(config)}"
    return None


def make_settings(random_: random.Random, folder: Path) -> list[str]:
    """A list of what may stand on the command line."""
    settings = [_setting(random_) for _ in range(random_.choice((1, 1, 1, 2, 3, 6)))]
    if random_.random() < 0.25:
        file = folder / random_.choice(("run.yaml", "run.json", "rün [x].yaml"))
        file.write_bytes(_file(random_))
        settings.insert(random_.randrange(len(settings) + 1), str(file))
    if random_.random() < 0.05:
        settings.insert(0, random_.choice(("--steps", "--model=x", "-lr", "--", "no.yaml", "", "x" * 5000, "/", ".")))
    return settings


def _setting(random_: random.Random) -> str:
    if random_.random() < 0.1:  # a plausible one with a part of it changed
        text = f"{_key(random_)}={_value(random_)}"
        place = random_.randrange(len(text) + 1)
        return text[:place] + _junk(random_) + text[place + random_.randrange(3) :]
    if random_.random() < 0.4:
        return _plausible(random_)
    return f"{_key(random_)}={_value(random_)}"


def _plausible(random_: random.Random) -> str:
    """A key with a value of its type."""
    kinds: list[Callable[[], str]] = [
        lambda: (
            f"{random_.choice(('steps', 'seed', 'group_size', 'max_new_tokens', 'rollout_lag'))}="
            f"{random_.choice((0, 1, 2, 7, 2**31 - 1, 2**31, 2**63, 2**64))}"
        ),
        lambda: f"{random_.choice(('learning_rate', 'temperature', 'mismatch_limit'))}={random_.random() * 10:g}",
        lambda: f"objective={random_.choice([*OBJECTIVES])}",
        lambda: f"objective.{random_.choice(_PARAMETERS['objective'])}={random_.choice((0, 0.1, 0.5, 2, True, 'k3'))}",
        lambda: f"objective.modifiers=[{random_.choice([*MODIFIERS])}, {{name: {random_.choice([*MODIFIERS])}}}]",
        lambda: f"task={random_.choice(_SECTIONS['task'])}",
        lambda: f"task.{random_.choice(_PARAMETERS['task'])}={_value(random_)}",
        lambda: f"lora.{random_.choice(_PARAMETERS['lora'])}={random_.choice((1, 2.5, '[q_proj]', 'all-linear'))}",
        lambda: f"chat_template_kwargs={{enable_thinking: {random_.choice(('true', '{}', '[1, {a: b}]', '.nan'))}}}",
        lambda: f"system_prompt={_value(random_)}",
        lambda: f"model={_value(random_)}",
    ]
    return random_.choice(kinds)()


def _key(random_: random.Random) -> str:
    kinds: list[Callable[[], str]] = [
        lambda: random_.choice([*TrainConfig.model_fields]),
        lambda: random_.choice([*TrainConfig.model_fields]),
        lambda: random_.choice([*_SECTIONS]),
        lambda: f"{(section := random_.choice([*_PARAMETERS]))}.{random_.choice(_PARAMETERS[section])}",
        lambda: f"{(section := random_.choice([*_PARAMETERS]))}.{random_.choice(_PARAMETERS[section])}",
        lambda: f"{random_.choice([*TrainConfig.model_fields])}.{_junk(random_)}",
        lambda: random_.choice([*ALIASES]),
        lambda: ".".join("x" for _ in range(random_.choice((2, 30, 3000)))),
        lambda: _junk(random_),
    ]
    return random_.choice(kinds)()


def _value(random_: random.Random) -> str:
    kinds: list[Callable[[], str]] = [
        lambda: str(random_.randrange(-2, 40)),
        lambda: repr(random_.choice((0.0, 1e-4, -1.5, 1e300, 5e-324, 0.15, 1.0))),
        lambda: random_.choice(
            (
                ".nan",
                ".inf",
                "-.inf",
                "1e400",
                "1e-400",
                "0x1F",
                "010",
                "1:30",
                "1_0",
                "+1",
                "-0",
                "'1e5'",
                "'.5e3'",
                "'1_0e5'",
                "'1:30'",
                "'yes'",
                "'~'",
                "'0b1'",
                "'=='",
                "'<<'",
            )
        ),
        lambda: random_.choice(("null", "~", "", "true", "no", "{}", "[]", "''", '"', "2020-99-99", "2020-01-01")),
        lambda: random_.choice(("18446744073709551616", "1" * 50, "9" * 4301, "-" + "9" * 5000, "1." + "0" * 5000)),
        lambda: _nested(random_, random_.choice((3, 19, 21, 2000))),
        lambda: random_.choice(
            (
                "&a [1]",
                "*a",
                "[&a [1,1], *a, *a]",
                "{<<: {a: 1}}",
                "{a: 1, a: 2}",
                "{? [1] : 2}",
                "!!float x",
                "!!python/name:os.system",
                "!x y",
                "--- 1\n--- 2",
                "a #b",
                "#",
                "\t[",
                "{1: 2}",
                "{null: 1}",
                "[{name: tis}, mis]",
                "{name: copy, length: 2}",
                "=",
                "<<",
            )
        ),
        lambda: random_.choice([name for names in _SECTIONS.values() for name in names]),
        lambda: random_.choice([*MODIFIERS, "proximal", "behavior", "token_mean", "fp32", "fp8", "all-linear"]),
        lambda: random_.choice(("x", "é ", "x y ")) * random_.choice((1, 100, 30_000)),
        lambda: _junk(random_),
    ]
    return random_.choice(kinds)()


def _nested(random_: random.Random, depth: int) -> str:
    kind = random_.choice(("[", "{a: ", "- ", "[{a: "))
    closing = {"[": "]", "{a: ": "}", "- ": "", "[{a: ": "}]"}[kind]
    return kind * depth + "1" + closing * (depth if random_.random() < 0.7 else 0)


def _junk(random_: random.Random) -> str:
    return "".join(random_.choice(_CHARACTERS) for _ in range(random_.choice((1, 2, 5, 20))))


def _file(random_: random.Random) -> bytes:
    """A configuration file, or nearly one."""
    if random_.random() < 0.1:
        return random_.choice(
            (
                b"",
                b"\xff\xfes\x00",
                b"\x1f\x8b\x08\x00junk",
                b"- a\n",
                b"steps",
                b"steps: 3\nsteps: 4\n",
                b"\tsteps: 3\n",
                b"a: &a [x]\nb: *a\n",
                b"\xef\xbb\xbfsteps: 3\n",
                b"steps: 3\r\nseed: 1\r\n",
                b"{" * 3000,
                b"x: " * 3000,
                b"[" * 300_000,
                random_.randbytes(200),
            )
        )
    lines: list[str] = []
    for _ in range(random_.randrange(1, 6)):
        key, value = _key(random_), _value(random_)
        parts = key.split(".")
        if len(parts) == 2:
            lines.append(f"{parts[0]}: {{{parts[1]}: {value}}}")
        else:
            lines.append(f"{key}: {value}")
    text: Any = "\n".join(lines)
    return text.encode("utf-8", "surrogatepass")
