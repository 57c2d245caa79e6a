"""Does prime-rl still hand a custom loss what ours reads?"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence

from drpo.doctor.check import Check

#: What our loss reads of prime-rl's LossInputs.
READ = ("trainer_logprobs", "inference_logprobs", "advantages", "loss_mask", "loss_weights")


def probe(_: Sequence[str]) -> Iterator[Check]:
    """The fields of its loss contract."""
    inputs = importlib.import_module("prime_rl.trainer.rl.loss").LossInputs
    fields = [field.name for field in dataclasses.fields(inputs)]
    missing = [name for name in READ if name not in fields]
    if missing:
        yield Check(
            status="problem",
            what="custom loss",
            found=f"LossInputs has no {', '.join(missing)} (it has {', '.join(fields)})",
            fix="Use a version of prime-rl that docs/integrations/prime-rl.md names.",
        )
        return
    importlib.import_module("drpo.integrations.prime_rl")
    yield Check(
        status="ok", what="custom loss", found='type = "custom", import_path = "drpo.integrations.prime_rl.drpo_loss"'
    )
    yield Check(status="note", what="μ", found="inference_logprobs, always the inference server's")
