"""Everything that is measured on one NVIDIA card, in one command: `python -m drpo.bench.gpu`.

A part is a module whose ``cases(settings)`` yields the title of a case and what measures it; ``part`` runs one part in
a process of its own, ``runner`` all of them, one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from drpo.bench.frame import FAILED, Row, Watch, missing
from drpo.installation import install

#: Yielded by a part: the title that all rows of a case have, and what measures it.
Cases = Iterator[tuple[str, Callable[[Watch], list[Row]]]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part.

    Args:
        what: what it measures, for people.
        seconds: how long it may take, its imports included.
        needs: module → the command that installs it.
        environment: variables of its process.
        checkout: it needs the tests of a clone.
    """

    what: str
    seconds: int
    needs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    checkout: bool = False

    def obstacle(self) -> str | None:
        """Why it cannot run here; None if it can."""
        for module, command in self.needs.items():
            if reason := missing(module, command):
                return reason
        if self.checkout:
            from drpo.bench.gpu.tests import marked_files

            return None if marked_files() else "the tests are not here: run it in a clone of drpo"
        return None


_TRITON = {"triton": "pip install triton"}
_TRAINER = {name: install("train") for name in ("transformers", "safetensors", "tokenizers", "pydantic", "yaml")}

#: Name of the part (and of its module) → the part, in the order in which they run.
PARTS: dict[str, Part] = {
    "compilation": Part(
        what="the Triton kernels compiled for sm_80 and sm_90, on any machine",
        seconds=600,
        needs=_TRITON,
        environment={"TRITON_INTERPRET": "0"},
    ),
    "interpreter": Part(
        what="the Triton kernels in Triton's interpreter against float64, on any machine",
        seconds=600,
        needs=_TRITON,
        environment={"TRITON_INTERPRET": "1"},
    ),
    "tests": Part(
        what="pytest -m gpu",
        seconds=900,
        needs={"pytest": install("dev")},
        checkout=True,
    ),
    "kernels": Part(what="the loss at the sizes of Qwen3-4B's head, beside the card's matrix products", seconds=1800),
    "support": Part(what="token_logprobs and fused_loss over the tokens that truncated sampling kept", seconds=900),
    "steps": Part(
        what="training steps of SmolLM2-135M's and Qwen3-0.6B's shapes against TRL", seconds=2400, needs=_TRAINER
    ),
    "sampling": Part(what="the sampler of the same shapes against generate", seconds=1800, needs=_TRAINER),
    "vllm": Part(
        what="the vLLM sampler of the same shapes against ours",
        seconds=1800,
        needs={**_TRAINER, "vllm": install("vllm")},
    ),
}


def is_failure(row: Row) -> bool:
    """Whether what the row was to measure ended with an error."""
    return row.skipped is not None and row.skipped.startswith(FAILED)
