"""A CPU for verl, which knows only accelerators: imported through VERL_USE_EXTERNAL_MODULES, chosen by VERL_PLATFORM.

Ray is told to hand out *logical* GPUs, FSDP shards over gloo, and rollout weights travel through shared memory (verl's
own way where a device has no IPC). Two habits of the hosts that only suit accelerators are corrected in torch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.distributed
from torch.distributed.fsdp import CPUOffloadPolicy
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class CpuDevice(ModuleType):
    """`torch.cpu` with the accelerator calls that it lacks: no memory of its own, nothing to wait for."""

    def __init__(self) -> None:
        super().__init__("cpu_device")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def get_device_name(self, *_: Any) -> str:
        return "CPU"

    def get_rng_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)

    def mem_get_info(self) -> tuple[int, int]:
        return 0, 0

    def memory_allocated(self, *_: Any) -> int:
        return 0

    memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated

    def empty_cache(self, *_: Any) -> None:
        return None

    ipc_collect = set_device = synchronize = reset_peak_memory_stats = empty_cache


@PlatformRegistry.register("cpu")
class CpuPlatform(PlatformBase):
    """One device, named so that Ray's and torch's bookkeeping work; never chosen unless VERL_PLATFORM=cpu."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CpuDevice()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False

    def current_device(self) -> Any:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _name_each_backend_once() -> None:
    """verl asks for "cpu:gloo,<device>:<backend>", which names the CPU twice here and which torch refuses."""
    original = torch.distributed.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        if isinstance(backend, str):
            backend = ",".join(dict.fromkeys(backend.split(",")))
        original(backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def _never_pin_memory() -> None:
    """FSDP's offload policy, which verl uses for a reference model, pins memory: that needs an accelerator."""
    original = CPUOffloadPolicy.__init__

    @functools.wraps(original)
    def without_pinning(self: CPUOffloadPolicy, pin_memory: bool = False) -> None:
        original(self, pin_memory=False)

    CPUOffloadPolicy.__init__ = without_pinning


_name_each_backend_once()
_never_pin_memory()
