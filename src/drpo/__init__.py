"""Divergence-regularized policy optimization for LLM reinforcement learning.

The public API is flat and loaded on first use, so that ``import drpo`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drpo.advantages import group_advantages
    from drpo.aggregation import aggregate
    from drpo.batch import TokenBatch
    from drpo.diagnostics import diagnose
    from drpo.kernels import FusedLoss, fused_loss, token_logprobs
    from drpo.metrics import Metric
    from drpo.mismatch.start_check import StartCheck, start_check
    from drpo.objectives import MODIFIERS, OBJECTIVES, Objective, ObjectiveOutput, gradient_weight, make_objective
    from drpo.support import Support
    from drpo.token_log import TokenLog

__version__ = "0.2.0"

_HOME = {
    "FusedLoss": "drpo.kernels",
    "MODIFIERS": "drpo.objectives",
    "OBJECTIVES": "drpo.objectives",
    "Metric": "drpo.metrics",
    "Objective": "drpo.objectives",
    "ObjectiveOutput": "drpo.objectives",
    "StartCheck": "drpo.mismatch.start_check",
    "Support": "drpo.support",
    "TokenBatch": "drpo.batch",
    "TokenLog": "drpo.token_log",
    "aggregate": "drpo.aggregation",
    "diagnose": "drpo.diagnostics",
    "fused_loss": "drpo.kernels",
    "gradient_weight": "drpo.objectives",
    "group_advantages": "drpo.advantages",
    "make_objective": "drpo.objectives",
    "start_check": "drpo.mismatch.start_check",
    "token_logprobs": "drpo.kernels",
}

__all__ = [
    "MODIFIERS",
    "OBJECTIVES",
    "FusedLoss",
    "Metric",
    "Objective",
    "ObjectiveOutput",
    "StartCheck",
    "Support",
    "TokenBatch",
    "TokenLog",
    "aggregate",
    "diagnose",
    "fused_loss",
    "gradient_weight",
    "group_advantages",
    "make_objective",
    "start_check",
    "token_logprobs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'drpo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
