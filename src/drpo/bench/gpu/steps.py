"""Part ``steps``: training steps of models of real shapes with random weights, ours against TRL's GRPOTrainer.

SmolLM2-135M's shape and Qwen3-0.6B's; bfloat16, decoding in CUDA graphs; the memory report's figures stand beside the
peaks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from drpo.bench.frame import Row, Settings, Watch, measure
from drpo.bench.gpu import Cases
from drpo.bench.model_step import step_case
from drpo.bench.models import make_model

SHAPES, TINY = ("SmolLM2-135M", "Qwen3-0.6B"), ("tiny Llama", "tiny Qwen3")
#: Prompts of a step, responses to each, tokens at most.
SIZES, QUICK = (32, 8, 512), (2, 2, 4)


def cases(settings: Settings) -> Cases:
    """A case a shape."""
    sizes = QUICK if settings.quick else SIZES
    for name in TINY if settings.quick else SHAPES:
        yield title(name, sizes), case(settings, name, sizes)


def title(name: str, sizes: tuple[int, int, int]) -> str:
    """The title that :func:`drpo.bench.model_step.step_case` gives."""
    prompts, group, length = sizes
    return f"{name}'s shape, a step of {prompts} × {group} responses of at most {length} tokens"


def case(settings: Settings, name: str, sizes: tuple[int, int, int]) -> Callable[[Watch], list[Row]]:
    """What measures the shape ``name``."""

    def work(watch: Watch) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            watch(f"{name}: making random weights")
            model = make_model(Path(folder) / "model", name)
            return measure(step_case(settings, model, f"{name}'s shape", sizes, 2), watch, survive=(Exception,))

    return work
