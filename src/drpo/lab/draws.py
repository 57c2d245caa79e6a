"""Values that a study draws instead of repeating a grid: evenly over their range, the same in all arms.

The points are those of Sobol's sequence, not scrambled, with a fixed shift, so that a study can be drawn again to the
bit. Directions: Joe and Kuo, SIAM Journal on Scientific Computing 30 (2008).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from drpo.setting_types import STRICT

Keys = dict[str, Any]
#: Of the sequence, which begins at the corner 0: half of the distance of its first 64 points.
SHIFT = 1 / 128


class LogRange(BaseModel):
    """Values drawn evenly in their logarithm: ``{log: [1e-5, 4e-4]}``."""

    model_config = STRICT

    log: Annotated[list[float], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _rising(self) -> LogRange:
        if not 0 < self.log[0] < self.log[1]:
            raise ValueError(f"log needs two rising values above 0, for example {{log: [1e-5, 4e-4]}}, got {self.log}")
        return self

    def at(self, share: float) -> float:
        """The value at a share of the range, to three digits."""
        low, high = map(math.log, self.log)
        return float(f"{math.exp(low + share * (high - low)):.3g}")

    def share(self, value: float) -> float:
        """Where a value lies in the range, from 0 to 1: what :meth:`at` makes it of."""
        low, high = map(math.log, self.log)
        return (math.log(value) - low) / (high - low)


#: One axis: a range, or values; a value that is a mapping sets several keys at once.
Axis = LogRange | Annotated[list[Any], Field(min_length=1)]


def draw(axes: Mapping[str, Axis], index: int) -> Keys:
    """The keys of a run's configuration that the point ``index`` sets."""
    found: Keys = {}
    for (name, axis), share in zip(axes.items(), point(index, len(axes)), strict=True):
        if isinstance(axis, LogRange):
            found[name] = axis.at(share)
        else:
            value = axis[int(share * len(axis))]
            found |= value if isinstance(value, dict) else {name: value}
    return found


def point(index: int, dimensions: int) -> list[float]:
    """The coordinates of a point of the sequence, each in [0, 1)."""
    from scipy.stats import qmc  # loaded late: where scipy is missing, the statistics say so

    sequence = qmc.Sobol(dimensions, scramble=False)
    if index:  # none is no distance to go
        sequence.fast_forward(index)
    return [float(share + SHIFT) % 1 for share in sequence.random(1)[0]]


def names(axis_name: str, axis: Axis) -> list[str]:
    """The keys that an axis sets."""
    if isinstance(axis, LogRange):
        return [axis_name]
    return sorted({key for value in axis for key in (value if isinstance(value, dict) else [axis_name])})


def text(keys: Mapping[str, Any]) -> str:
    """Drawn keys as a folder or a table names them: learning_rate=0.0001,delta=0.15."""
    return ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in keys.items())


def drawn_number(said: str, key: str) -> float:
    """The number of a key in what :func:`text` makes of drawn keys."""
    return float(dict(part.split("=", 1) for part in said.split(","))[key])
