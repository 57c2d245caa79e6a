"""The trainer's side of one engine process: start it, ask it, end it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Pipe
from pathlib import Path

from drpo.child_process import START, how_it_ended, import_path, kill_group
from drpo.rollouts.engine.messages import Message, Refused, Reply

#: Of the end of an engine's output, in messages.
TAIL_LINES, TAIL_BYTES = 20, 8192


class EngineFailed(Exception):
    """The engine gave no answer, or raised; the message says which, and how it ended."""


class EngineProcess:
    """A process that runs ``module.main()`` (see :func:`drpo.rollouts.engine.worker.serve`).

    Args:
        module: its program.
        log_file: where its output is appended.
        variables: its environment.
        descriptors: what it inherits beside the connection.
    """

    def __init__(self, module: str, log_file: Path, variables: Mapping[str, str], descriptors: Sequence[int] = ()):
        self._log_file = log_file
        ours, theirs = Pipe()
        self._connection = ours
        with log_file.open("ab") as log, theirs:
            self._log_start = log.tell()
            # A session of its own: Ctrl-C in the terminal reaches the trainer alone, which then ends this one.
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, module, json.dumps(import_path()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(variables),
                pass_fds=[theirs.fileno(), *descriptors],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(self, message: Message, time_limit: float) -> Reply:
        """The reply to ``message``. Whatever goes wrong, the process is ended: it may be in the middle of something.

        Raises:
            EngineFailed: it ended, raised, or took longer than ``time_limit`` seconds.
        """
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()  # which ends the wait for it, wherever it stands

        watch = threading.Timer(time_limit, stop)
        watch.daemon = True
        watch.start()
        try:
            self._connection.send(message)
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            how = f"took longer than {time_limit:g} s" if late.is_set() else how_it_ended(self._process)
            self.kill()
            raise EngineFailed(how) from error
        except BaseException:
            self.kill()
            raise
        finally:
            watch.cancel()
        if isinstance(reply, Refused):
            self.kill()
            raise EngineFailed(f"raised {reply.reason}")
        return reply

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        kill_group(self._process)
        self._connection.close()

    def last_output(self) -> str:
        """The end of what it wrote."""
        with self._log_file.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(self._log_start, size - TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:]) or "(no output)"
