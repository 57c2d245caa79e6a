"""Metrics that merge exactly over micro-batches, ranks and padding."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


class Metric(float):
    """A weighted mean, as a float that remembers its ``sum`` and ``count``.

    ``a + b`` of two metrics is the metric of both parts together, not the sum of two numbers. Everywhere else a metric
    is its value: it compares, formats, and serializes as JSON as any float does. The value is NaN where nothing was
    counted.
    """

    __slots__ = ("count", "sum")
    sum: float
    count: float

    def __new__(cls, sum: torch.Tensor | float, count: torch.Tensor | float) -> Metric:
        sum, count = float(sum), float(count)
        made = super().__new__(cls, cls._value(sum, count) if count else math.nan)
        made.sum, made.count = sum, count
        return made

    @classmethod
    def of(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Metric:
        """The mean of ``values`` ``[N]``, restricted to the boolean ``where`` ``[N]`` if given.

        Waits for the device once, as do all constructors; :func:`settle` does so once for many metrics.
        """
        return settle({"": cls.parts(values, where)})[""]

    @classmethod
    def share(cls, amounts: torch.Tensor, where: torch.Tensor) -> Metric:
        """How much of the total of ``amounts`` ``[N]`` (≥ 0) is at the tokens ``where`` ``[N]`` says."""
        return settle({"": cls.share_parts(amounts, where)})[""]

    @classmethod
    def parts(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Parts:
        """What :meth:`of` is made of, still on the device."""
        values = values.detach().to(torch.float64)
        if where is None:
            return Parts(cls, values.sum(), values.new_full((), values.numel()))
        return Parts(cls, torch.where(where, values, 0.0).sum(), where.sum())

    @classmethod
    def share_parts(cls, amounts: torch.Tensor, where: torch.Tensor) -> Parts:
        """What :meth:`share` is made of, still on the device."""
        amounts = amounts.detach().to(torch.float64)
        return Parts(cls, torch.where(where, amounts, 0.0).sum(), amounts.sum())

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Metric):
            return float(self) + other
        if type(other) is not type(self):
            raise TypeError(f"a {type(self).__name__} and a {type(other).__name__} do not merge")
        return type(self)(self._merged(self.sum, other.sum), self.count + other.count)

    def __radd__(self, other: Any) -> Any:
        # 0 + metric: where sum() starts.
        return self if isinstance(other, int) and other == 0 else other + float(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sum, self.count)

    def item(self) -> float:
        """The value as a plain float."""
        return float(self)

    @staticmethod
    def _value(total: float, count: float) -> float:
        return total / count

    @staticmethod
    def _merged(one: float, other: float) -> float:
        return one + other


class Maximum(Metric):
    """A maximum, with the same interface as :class:`Metric`: ``sum`` holds the largest value seen."""

    __slots__ = ()

    @classmethod
    def parts(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Parts:
        values = values.detach().to(torch.float64)
        if where is None:
            where = torch.ones_like(values, dtype=torch.bool)
        # The first entry keeps the maximum of nothing defined.
        seen = torch.cat([values.new_full((1,), -math.inf), values.masked_fill(~where, -math.inf).flatten()])
        return Parts(cls, seen.max(), where.sum())

    @staticmethod
    def _value(total: float, count: float) -> float:
        return total

    @staticmethod
    def _merged(one: float, other: float) -> float:
        # Keeps a NaN of either side, which Python's max does not.
        return one if one >= other or math.isnan(one) else other


class Minimum(Metric):
    """A minimum, with the same interface as :class:`Metric`: ``sum`` holds the smallest value seen."""

    __slots__ = ()

    @classmethod
    def parts(cls, values: torch.Tensor, where: torch.Tensor | None = None) -> Parts:
        top = Maximum.parts(-values, where)
        return Parts(cls, -top.sum, top.count)

    @staticmethod
    def _value(total: float, count: float) -> float:
        return total

    @staticmethod
    def _merged(one: float, other: float) -> float:
        return one if one <= other or math.isnan(one) else other


@dataclass(frozen=True, slots=True)
class Parts:
    """A metric before its two numbers, 0-d tensors, leave their device."""

    kind: type[Metric]
    sum: torch.Tensor
    count: torch.Tensor


def settle(parts: Mapping[Key, Parts]) -> dict[Key, Metric]:
    """The metrics of ``parts``, in one device synchronization."""
    if not parts:
        return {}
    values = torch.stack([number.double() for part in parts.values() for number in (part.sum, part.count)]).tolist()
    return {
        key: part.kind(total, count)
        for (key, part), total, count in zip(parts.items(), values[::2], values[1::2], strict=True)
    }
