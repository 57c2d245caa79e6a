"""Peak memory of one variant, in a process of its own: what a process once held, its allocator may keep."""

from __future__ import annotations

import ctypes
import functools
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from drpo.bench.losses import STEPS, Problem, Size, Step

_CLEAR = Path("/proc/self/clear_refs")


def peak_bytes(size: Size, name: str) -> int | None:
    """Bytes above inputs and gradients of one step of the variant ``name``; None if it was out of memory."""
    # A server that has loaded torch and done no work yet, forked for each variant: torch's threads do not survive one.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, size, name).result()
        except (torch.OutOfMemoryError, BrokenProcessPool):
            return None


def measurable(device: str) -> bool:
    """Whether peaks can be told here: of a GPU's memory, or of a process where the kernel is Linux."""
    return device.startswith("cuda") or _CLEAR.exists()


def measure(size: Size, name: str) -> int:
    """The same in this process, which must be fresh."""
    problem = Problem(size)
    step = STEPS[name](problem)
    held = _on_gpu(problem, step) if size.device.startswith("cuda") else _on_cpu(step)
    gradients = sum(tensor.numel() * tensor.element_size() for tensor in (problem.hidden, problem.weight))
    return max(held - gradients, 0)


def _on_cpu(step: Step) -> int:
    # The first step, with whatever it loads or compiles: what a step before it held would be there to use again.
    gc.collect()
    _trim()()
    before = _resident("VmRSS")
    _CLEAR.write_text("5")  # forget the highest so far
    step()
    return _resident("VmHWM") - before


def _on_gpu(problem: Problem, step: Step) -> int:
    step()  # compiling and tuning take memory that later steps do not
    problem.forget_gradients()
    gc.collect()
    device = problem.size.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def highest_resident() -> int | None:
    """Bytes that this process held at most; None where the system does not say."""
    return _resident("VmHWM") if _CLEAR.exists() else None


def _trim() -> Callable[[], object]:
    """What gives back what making the inputs has left behind; nothing to call where libc is not glibc."""
    return functools.partial(getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None), 0)


def _resident(line: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for text in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if text.startswith(line):
            return 1024 * int(text.split()[1])
    raise RuntimeError(f"/proc/self/status has no {line}")
