"""Checks of numbers, and which tensors may be looked at without waiting for a device."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch

from drpo.errors import DataError


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite real number (not a bool)."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and _is_finite(value)


def is_nonnegative(value: object) -> bool:
    """Whether ``value`` is a finite number ≥ 0."""
    return is_number(value) and value >= 0  # pyright: ignore[reportOperatorIssue]


def is_count(value: object) -> bool:
    """Whether ``value`` is an integer above zero (not a bool)."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) > 0


def is_positive(value: object) -> bool:
    """Whether ``value`` is a finite number above zero."""
    return is_number(value) and value > 0  # pyright: ignore[reportOperatorIssue]


def _is_finite(value: numbers.Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def is_readable(values: torch.Tensor) -> bool:
    """Whether Python may look at ``values`` without waiting for a device or cutting a compiled graph."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def as_tensor(name: str, value: Any, device: torch.device | None = None) -> torch.Tensor:
    """``value`` itself if it is a tensor; a NumPy array or a list of numbers as a tensor on ``device``.

    Raises:
        DataError: it is neither, or a list that is ragged or holds something else than numbers.
    """
    if isinstance(value, torch.Tensor):
        return value
    try:
        if isinstance(value, str | bytes):
            raise TypeError("text is no list of numbers")
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name} must be a tensor, a NumPy array or a list of numbers, got {type(value).__name__} "
            f"({shorten(error)})"
        ) from error


def as_floats(name: str, value: Any, device: torch.device | None = None) -> torch.Tensor:
    """:func:`as_tensor`, with a list or array of integers converted to floats; a tensor keeps its dtype."""
    tensor = as_tensor(name, value, device)
    whole = tensor is not value and not tensor.dtype.is_floating_point and tensor.dtype != torch.bool
    return tensor.to(torch.get_default_dtype()) if whole else tensor


def shorten(value: object, limit: int = 80) -> str:
    """``value`` as text of at most ``limit`` characters on one line, for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
