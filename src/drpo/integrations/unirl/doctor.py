"""Does UniRL still have what our algorithm overrides and calls?"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence

from drpo.doctor.check import Check

#: What UniRL calls our method with.
ARGUMENTS = {"conditions", "segment", "advantages", "training_progress", "loss_scale"}


def probe(_: Sequence[str]) -> Iterator[Check]:
    """The algorithm's class, the arguments that UniRL calls it with, and where μ is from."""
    ours = importlib.import_module("drpo.integrations.unirl").DRPOAlgorithm
    theirs = set(inspect.signature(ours.__base__.compute_loss_and_backward).parameters) - {"self"}
    if theirs != ARGUMENTS:
        yield Check(
            status="problem",
            what="algorithm",
            found=f"UniRL calls compute_loss_and_backward with {', '.join(sorted(theirs))}",
            fix="Use UniRL 0.2 (docs/integrations/unirl.md).",
        )
        return
    yield Check(status="ok", what="algorithm", found=f"algorithm._target_={ours.__module__}.{ours.__qualname__}")
    yield Check(status="note", what="μ", found="the rollout's log-probabilities, in both settings of old_logp_source")
