"""Tasks that do to a grading process what a user's reward function may do by mistake."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from drpo.tasks import Example


class HostileTask:
    """The response's first word says what its reward does; any other response earns a tenth for each word."""

    def training_example(self, seed: int, index: int) -> Example:
        return Example(prompt=f"{seed} {index}", answer="")

    def heldout_examples(self, count: int) -> list[Example]:
        return [Example(prompt=f"held out {index}", answer="") for index in range(count)]

    def reward(self, example: Example, text: str) -> Any:
        words = text.split() or [""]
        behavior = getattr(self, f"_{words[0]}", None)
        return behavior(*words[1:]) if behavior else len(words) / 10

    def _raise(self) -> None:
        raise ValueError("this response\nis odd")

    def _unprintable(self) -> None:
        class Unprintable(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        raise Unprintable

    def _leave(self) -> None:
        sys.exit(3)

    def _sleep(self) -> None:
        time.sleep(600)

    def _pause(self, seconds: str) -> float:
        time.sleep(float(seconds))
        return 1.0

    def _loop_ignoring_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass

    def _backtrack(self) -> None:
        """For years, in C code that never lets another Python thread run."""
        re.match(r"(a+)+$", "a" * 64 + "b")

    def _exit(self) -> None:
        os._exit(7)

    def _crash(self) -> None:
        ctypes.string_at(0)

    def _give(self, value: str) -> Any:
        return {
            "nan": float("nan"),
            "infinity": float("inf"),
            "above": 1.5,
            "below": -0.1,
            "none": None,
            "text": "1.0",
            "true": True,
            "whole": 1,
        }[value]

    def _print(self) -> float:
        print("to standard output")  # noqa: T201
        os.write(1, b'{"reward": 1.0, "failure": null}\n')
        subprocess.run(["echo", "from a program"], check=True)
        return 0.5

    def _read(self) -> float:
        return 0.5 if sys.stdin.read() == "" else 0.0

    def _write_pid(self, file: str) -> float:
        Path(file).write_text(str(os.getpid()))
        return 1.0

    def _spawn(self, file: str) -> None:
        child = subprocess.Popen(["sleep", "600"])
        Path(file).write_text(str(child.pid))
        time.sleep(600)

    def _loaded(self, module: str) -> float:
        return float(module in sys.modules)


class PreparedTask(HostileTask):
    """Rewards 1.0 once it was prepared, in this process, exactly once."""

    prepared = 0

    def prepare_grading(self) -> None:
        self.prepared += 1

    def reward(self, example: Example, text: str) -> Any:
        return float(self.prepared == 1)


class CannotBePrepared(HostileTask):
    def prepare_grading(self) -> None:
        raise RuntimeError("no library")


class CannotBePickled(HostileTask):
    def __reduce__(self) -> Any:
        raise TypeError("holds an open file")


class CannotBeLoaded(HostileTask):
    def __reduce__(self) -> Any:
        return _fail, ()


class EndsWhileLoading(HostileTask):
    def __reduce__(self) -> Any:
        return os._exit, (5,)


def _fail() -> None:
    raise RuntimeError("the reward model is not there")


class SlowAnswers(HostileTask):
    """Tells slow responses from a task that hangs: an example whose answer is "sleep" hangs before any response."""

    def prepare_example(self, example: Example) -> None:
        if example.answer == "sleep":
            time.sleep(600)

    def answer_kind(self, text: str) -> str | None:
        return text.split()[0] if text.startswith(("sleep", "backtrack")) else None
