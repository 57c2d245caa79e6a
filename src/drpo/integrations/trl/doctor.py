"""Is TRL the one that the trainer was written against, and what will give it μ?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from drpo.doctor.check import Check


def probe(_: Sequence[str]) -> Iterator[Check]:
    """Whether the trainer can be imported, and the engines that report log-probabilities."""
    trainer = importlib.import_module("drpo.integrations.trl").DRPOTrainer
    yield Check(status="ok", what="trainer", found=f"{trainer.__module__}.{trainer.__qualname__} can be imported")
    try:
        found = f"vLLM {version('vllm')} is installed: use_vllm=True"
    except PackageNotFoundError:
        found = "vLLM is not installed: pass rollout_func=InProcessRollouts(), our sampler"
    yield Check(status="note", what="μ", found=found)
