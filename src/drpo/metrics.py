"""Metrics that merge exactly over micro-batches, ranks and padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Metric:
    """A weighted mean kept as ``(sum, count)``: ``a + b`` is the metric of both parts together.

    ``sum`` and ``count`` are floats or 0-d tensors (tensors stay on their device; nothing here
    synchronises until :meth:`item`).
    """

    sum: torch.Tensor | float
    count: torch.Tensor | float

    @classmethod
    def of(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Metric:
        """The mean of ``values`` ``[N]``, restricted to the boolean ``where`` ``[N]`` if given."""
        values = values.detach().to(torch.float64)
        if where is None:
            return cls(values.sum(), float(values.numel()))
        return cls(torch.where(where, values, 0.0).sum(), where.sum())

    @classmethod
    def share(cls, amounts: torch.Tensor, where: torch.Tensor) -> Metric:
        """How much of the total of ``amounts`` ``[N]`` (≥ 0) is at the tokens ``where`` ``[N]`` says."""
        amounts = amounts.detach().to(torch.float64)
        return cls(torch.where(where, amounts, 0.0).sum(), amounts.sum())

    def __add__(self, other: Metric) -> Metric:
        return type(self)(self.sum + other.sum, self.count + other.count)

    def item(self) -> float:
        """The mean as a float; NaN where nothing was counted."""
        count = float(self.count)
        return float(self.sum) / count if count else float("nan")


@dataclass(frozen=True, slots=True)
class Maximum(Metric):
    """A maximum, with the same interface as :class:`Metric`: ``sum`` holds the largest value seen."""

    @classmethod
    def of(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Maximum:
        values = values.detach().to(torch.float64)
        if where is not None:
            values = values[where]
        top = values.max() if values.numel() else torch.tensor(-torch.inf, dtype=torch.float64)
        return cls(top, float(values.numel()))

    def __add__(self, other: Metric) -> Maximum:
        return type(self)(torch.maximum(_as_tensor(self.sum), _as_tensor(other.sum)), self.count + other.count)

    def item(self) -> float:
        return float(self.sum) if float(self.count) else float("nan")


@dataclass(frozen=True, slots=True)
class Minimum(Metric):
    """A minimum, with the same interface as :class:`Metric`: ``sum`` holds the smallest value seen."""

    @classmethod
    def of(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Minimum:
        top = Maximum.of(-values, where)
        return cls(-top.sum, top.count)

    def __add__(self, other: Metric) -> Minimum:
        return type(self)(torch.minimum(_as_tensor(self.sum), _as_tensor(other.sum)), self.count + other.count)

    def item(self) -> float:
        return float(self.sum) if float(self.count) else float("nan")


def _as_tensor(value: torch.Tensor | float) -> torch.Tensor:
    """For torch.maximum, which keeps a NaN of either side and does not synchronise; Python's max does neither."""
    return torch.as_tensor(value, dtype=torch.float64)
