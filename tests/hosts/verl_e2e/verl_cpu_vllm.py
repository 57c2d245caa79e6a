"""What verl's vLLM worker needs on a CPU; named by rollout.engine_kwargs.vllm.worker_extension_cls."""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.model_executor.layers import utils


def _keep_the_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    """vLLM packs a linear layer's weight for the CPU and drops the parameter, so new weights could not be loaded."""
    setattr(layer, "cpu_linear", torch.nn.functional.linear)  # noqa: B010, torch declares modules and tensors only


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension on a vLLM whose weights can be reloaded; made before the model is."""

    def __new__(cls, **kwargs: Any) -> CpuWorkerExtension:
        utils.dispatch_cpu_unquantized_gemm = _keep_the_weight
        return super().__new__(cls, **kwargs)
