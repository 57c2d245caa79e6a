"""A rollout engine that can be told to fail, for the process that it is run in.

FAKE_ENGINE_TROUBLE names a file with a line for each event to come (a start or a batch, in order): ``die``, ``hang``,
``raise`` or ``well``; after the last all is well. The tokens of a response depend on its seed and on the first
weight.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from drpo.rollouts.engine.messages import Batch, Start
from drpo.rollouts.engine.shared_weights import read_weights
from drpo.rollouts.engine.worker import serve
from drpo.rollouts.sampler import Response, response_seeds


class FakeEngine:
    """Without weights until a batch brings some."""

    def __init__(self, start: Start):
        sys.stdout.write(f"fake engine for {start.dtype} on {start.device}\n")
        sys.stdout.flush()
        self.start = start
        self.weight: float | None = None
        misbehave()

    def sample(self, batch: Batch) -> list[list[Response]]:
        """Tokens that only seed and weight decide."""
        if batch.new_weights:
            self.weight = next(iter(read_weights(self.start.weights, batch.entries)))[1].double().sum().item()
        assert self.weight is not None
        misbehave()
        return [[self.response(seed, batch) for seed in response_seeds(request)] for request in batch.requests]

    def response(self, seed: int, batch: Batch) -> Response:
        draw = random.Random(f"{seed}/{self.weight}")
        token_ids = [draw.randrange(100) for _ in range(batch.parameters.max_new_tokens)]
        return Response(token_ids, [-1.0] * len(token_ids), "length")


def misbehave() -> None:
    """As the next line says."""
    file = Path(os.environ["FAKE_ENGINE_TROUBLE"])
    trouble, _, rest = file.read_text().partition("\n")
    file.write_text(rest)
    if trouble == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "hang":
        time.sleep(600)
    if trouble == "raise":
        raise RuntimeError("out of\nmemory")


def main() -> None:
    """The program."""
    serve(FakeEngine)
