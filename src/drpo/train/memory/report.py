"""What a run will need beside what the device has, and which settings reduce it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from drpo.model.lora_settings import Lora
from drpo.rollouts import InProcessOptions
from drpo.rollouts.vllm.engine import GIB
from drpo.train.config import TrainConfig
from drpo.train.memory.estimate import ASSUMED_PROMPT, Need, estimate, sketch
from drpo.train.settings import forward_settings

#: Where a container's limit may stand.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """``need`` of a run whose prompts have at most ``prompt_tokens``; ``room`` bytes are there for it, None if that
    cannot be told. ``remedies`` are changed settings with the peak they leave, where it does not fit."""

    need: Need
    room: int | None
    prompt_tokens: int
    remedies: tuple[tuple[str, int], ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the peak is below what is there."""
        return self.room is None or self.need.peak <= self.room

    def as_dict(self) -> dict[str, Any]:
        """For manifest.json, in bytes."""
        return {
            "parts": {part.name: part.bytes for part in self.need.parts},
            "training": self.need.during("training"),
            "sampling": self.need.during("sampling"),
            "room": self.room,
            "prompt_tokens": self.prompt_tokens,
        }

    def summary(self) -> str:
        """One line."""
        largest = sorted(self.need.parts, key=lambda part: -part.bytes)[:4]
        parts = ", ".join(f"{part.name} {size(part.bytes)}" for part in largest if part.bytes)
        room = "" if self.room is None else f" of {size(self.room)}"
        return (
            f"memory: about {size(self.need.peak)}{room} at most, training {size(self.need.during('training'))}, "
            f"sampling {size(self.need.during('sampling'))} ({parts})"
        )

    def warning(self) -> str | None:
        """What to change, if it does not fit."""
        if self.fits:
            return None
        assert self.room is not None
        options = "; ".join(f"{setting} → {size(peak)}" for setting, peak in self.remedies)
        return (
            f"this run needs about {size(self.need.peak)} and there are {size(self.room)}: it will likely run out "
            f"of memory. Each of these lowers the peak: {options or 'a smaller model'}"
        )


def report_memory(config: TrainConfig, device: torch.device, prompt_tokens: int | None = None) -> MemoryReport:
    """The report of a run of ``config``; without ``prompt_tokens``, prompts of 256 tokens are assumed.

    Raises:
        ConfigError: there is no such model.
    """
    prompt_tokens = ASSUMED_PROMPT if prompt_tokens is None else prompt_tokens

    def need(changed: TrainConfig) -> Need:
        return estimate(sketch(changed.model, changed.lora, changed.trust_remote_code), changed, device, prompt_tokens)

    report = MemoryReport(need(config), room_on(device), prompt_tokens)
    if report.fits:
        return report
    found = [(text, need(config.model_copy(update=change)).peak) for text, change in _changes(config, device)]
    better = sorted((peak, text) for text, peak in found if peak < 0.97 * report.need.peak)
    return MemoryReport(report.need, report.room, prompt_tokens, tuple((text, peak) for peak, text in better))


def _changes(config: TrainConfig, device: torch.device) -> list[tuple[str, dict[str, Any]]]:
    """Settings that may lower the peak."""
    tokens = forward_settings(config, device).micro_batch_tokens // 4
    changes: list[tuple[str, dict[str, Any]]] = []
    if shorter := config.max_new_tokens // 2:
        changes.append((f"max_new_tokens={shorter}", {"max_new_tokens": shorter}))
    options = config.make_sampler_options()
    if isinstance(options, InProcessOptions) and (rows := options.max_rows // 4):
        section = config.sampler.model_copy(update={"max_rows": rows})
        changes.append((f"sampler.max_rows={rows}", {"sampler": section}))
    if config.precision == "fp32":
        changes.append(("precision=bf16", {"precision": "bf16"}))
    if tokens:
        changes.append((f"micro_batch_tokens={tokens}", {"micro_batch_tokens": tokens}))
    if not config.gradient_checkpointing:
        changes.append(("gradient_checkpointing=true", {"gradient_checkpointing": True}))
    if config.lora is None:
        changes.append(("lora.rank=16", {"lora": Lora()}))
    return changes


def room_on(device: torch.device) -> int | None:
    """Bytes that this process can have on ``device``, with those that it has."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        there = 1024 * int(fields["MemAvailable"].split()[0])
        held = os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, KeyError, ValueError):
        return None  # not Linux
    limits = [int(text) for file in _LIMITS if file.is_file() and (text := file.read_text().strip()).isdigit()]
    return min([there + held, *limits])


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.0f} MiB"
