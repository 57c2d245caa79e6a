"""The program of the grading process: reads a task, then jobs, from its standard input and answers in turn.

Requests are frames, eight bytes of length and a pickle: first the task, then (example, text) pairs. Replies
are lines of JSON: {"ready": true} or {"error": …} for the task, {"reward": …, "failure": …} for each pair, with
"spent" where this process should grade no more: what used up its memory may still lie in some cache. Before the
reply to a pair stands {"prepared": true}, where the task has read the example in a step of its own.
The parent, whose data the requests are, may use pickle; a reply may come from a process that user code has
spoiled, hence JSON.
"""

from __future__ import annotations

import json
import numbers
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from drpo.child_process import die_with_parent
from drpo.tasks.base import Task

LENGTH = struct.Struct("!Q")
_MESSAGE_LIMIT = 500


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    requests, replies = _take_over_standard_streams()
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests, jobs), daemon=True).start()
    try:
        task: Task = pickle.loads(jobs.get())
        prepare = getattr(task, "prepare_grading", None)
        if prepare is not None:
            prepare()
    except BaseException as error:
        traceback.print_exc()
        _reply(replies, {"error": describe(error)})
        os._exit(1)  # a normal exit would wait for the reading thread
    _reply(replies, {"ready": True})
    while True:
        _reply(replies, grade(task, jobs.get(), lambda: _reply(replies, {"prepared": True})))


def grade(task: Task, job: bytes, on_prepared: Callable[[], None]) -> dict[str, Any]:
    """The reply for one pickled (example, text); whatever goes wrong becomes its ``failure``.

    Calls ``on_prepared`` between the task's ``prepare_example``, if it has that method, and its ``reward``.
    """
    try:
        example, text = pickle.loads(job)
        prepare = getattr(task, "prepare_example", None)
        if prepare is not None:
            prepare(example)
            on_prepared()
        reward = task.reward(example, text)
        failure = reward_problem(reward)
    except BaseException as error:  # SystemExit too: a task that calls exit() must not end the grading
        spent = {"spent": True} if isinstance(error, MemoryError) else {}
        return {"reward": None, "failure": describe(error), **spent}
    return {"reward": None if failure else float(reward), "failure": failure}


def reward_problem(reward: Any) -> str | None:
    """Why this cannot be a reward; None if it can."""
    if not isinstance(reward, numbers.Real):
        return f"the reward must be a number in [0, 1], got {type(reward).__name__} {_short(reward)}"
    value = float(reward)
    # Written so that a NaN, which compares false with everything, is refused as well.
    return None if 0 <= value <= 1 else f"the reward must be a number in [0, 1], got {value}"


def describe(error: BaseException) -> str:
    """The error on one line, "ValueError: …"."""
    message = _short(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _short(value: object) -> str:
    try:
        text = " ".join(str(value).split())
    except Exception as error:
        return f"(its text cannot be shown: {type(error).__name__})"
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + " …"


def _take_over_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to and from the parent; what a task prints goes to standard error, what it reads is empty."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def _read_requests(requests: BinaryIO, jobs: queue.SimpleQueue[bytes]) -> None:
    """In a thread of its own, to notice the parent's end, and to empty its pipe, while a reward runs."""
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        jobs.put(requests.read(length))
    os._exit(0)


def _reply(replies: BinaryIO, message: dict[str, Any]) -> None:
    try:
        replies.write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        os._exit(0)  # the parent is gone
