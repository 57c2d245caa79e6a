"""Can this SDK hand μ to a custom loss, and is there a key for the service?"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator, Sequence

from drpo.doctor.check import Check


def probe(_: Sequence[str]) -> Iterator[Check]:
    """The custom-loss entry point, our module, the key."""
    entry = getattr(importlib.import_module("tinker").TrainingClient, "forward_backward_custom", None)
    if entry is None or list(inspect.signature(entry).parameters)[:3] != ["self", "data", "loss_fn"]:
        yield Check(
            status="problem",
            what="custom loss",
            found="TrainingClient.forward_backward_custom(data, loss_fn) is not there",
            fix="pip install 'tinker==0.38.*'",
        )
    else:
        module = importlib.import_module("drpo.integrations.tinker")
        yield Check(
            status="ok",
            what="custom loss",
            found=f"{module.__name__} feeds forward_backward_custom; μ is the "
            "sampler's, from loss_fn_inputs['logprobs']",
        )
    if os.environ.get("TINKER_API_KEY"):
        yield Check(status="ok", what="service", found="TINKER_API_KEY is set")
    else:
        yield Check(
            status="warning",
            what="service",
            found="TINKER_API_KEY is not set",
            fix="export TINKER_API_KEY=… (the service's console gives you one)",
        )
