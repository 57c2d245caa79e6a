"""Does Trinity find our loss by its path, does it hand over what the loss reads, and which trainers are there?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from drpo.doctor.check import Check


def probe(_: Sequence[str]) -> Iterator[Check]:
    """Trinity's registry, its two trainers, and where μ is from."""
    name = "drpo.integrations.trinity.DRPOPolicyLoss"
    registry = importlib.import_module("trinity.algorithm.policy_loss_fn").POLICY_LOSS_FN
    try:
        found = registry.get(name)
        found(backend="verl", **found.default_args())
    except (ImportError, TypeError, ValueError) as error:
        yield Check(
            status="problem",
            what="policy loss",
            found=f"Trinity cannot make {name}: {error}",
            fix="Install the tested versions (docs/integrations/trinity.md).",
        )
    else:
        yield Check(status="ok", what="policy loss", found=f"algorithm.policy_loss_fn: {name}")
    installed = [backend for backend in ("verl", "tinker") if find_spec(backend) is not None]
    if installed:
        yield Check(status="ok", what="trainer", found=" and ".join(installed))
    else:
        yield Check(
            status="problem",
            what="trainer",
            found="neither verl nor Tinker is installed, so that trainer.trainer_type cannot be either",
            fix="pip install 'verl==0.9.*', or 'trinity-rft[tinker]'",
        )
    yield Check(status="note", what="μ", found="the explorer's log-probabilities, whatever bypass_old_logprobs says")
