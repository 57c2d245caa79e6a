"""The program of an engine's process: takes messages from the inherited connection and answers them in turn."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from drpo.child_process import die_with_parent
from drpo.rollouts.engine.messages import Batch, Ready, Refused, Reply, Sampled, Start
from drpo.rollouts.sampler import Response


class Engine(Protocol):
    """Something that samples."""

    def sample(self, batch: Batch) -> list[list[Response]]:
        """Responses by request."""
        ...


def serve(make_engine: Callable[[Start], Engine]) -> None:
    """Answer until the trainer closes the connection or dies; the connection's descriptor is the last argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    connection = Connection(int(sys.argv[-1]))
    engine: Engine | None = None
    try:
        while True:
            message = connection.recv()
            try:
                if isinstance(message, Start):
                    engine = make_engine(message)
                    reply: Reply = Ready()
                else:
                    assert engine is not None
                    reply = Sampled(engine.sample(message))
            except Exception as error:
                traceback.print_exc()
                reply = Refused(" ".join(f"{type(error).__name__}: {error}".split()))
            connection.send(reply)
    except (EOFError, OSError):  # the trainer is gone
        os._exit(0)
