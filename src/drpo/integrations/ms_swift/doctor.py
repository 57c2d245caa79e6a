"""Does ms-swift look up its trainer where we put ours, and does its method have the name that ours overrides?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from drpo.doctor.check import Check

#: The method that we override, and those that it calls.
METHODS = (
    "_compute_loss_and_metrics",
    "_get_per_token_logps_and_entropies",
    "_undo_gradient_accumulation_scaling",
)


def probe(_: Sequence[str]) -> Iterator[Check]:
    """The trainer that ``--rlhf_type grpo`` loads after ``use``, and its methods."""
    theirs = importlib.import_module("swift.rlhf_trainers.grpo_trainer").GRPOTrainer
    missing = [name for name in METHODS if not hasattr(theirs, name)]
    importlib.import_module("drpo.integrations.ms_swift").use()
    factory = importlib.import_module("swift.trainers.trainer_factory").TrainerFactory
    found = factory.get_trainer_cls(SimpleNamespace(rlhf_type="grpo"))
    if missing or not found.__module__.startswith("drpo."):
        yield Check(
            status="problem",
            what="trainer",
            found=f"ms-swift's GRPOTrainer has no {', '.join(missing)}"
            if missing
            else f"--rlhf_type grpo loads {found.__module__}.{found.__qualname__}",
            fix="pip install 'ms-swift==4.6.*'",
        )
    else:
        yield Check(
            status="ok", what="trainer", found=f"--rlhf_type grpo loads {found.__module__}.{found.__qualname__}"
        )
    yield Check(status="note", what="μ", found="vLLM's log-probabilities; the trainer refuses a batch without them")
