"""The bases that ship with the package, by name."""

from __future__ import annotations

from drpo.train.warm_start.arithmetic import Arithmetic
from drpo.train.warm_start.spec import WarmStart
from drpo.train.warm_start.words import Words

BASES: dict[str, WarmStart] = {
    "arithmetic": Arithmetic(),
    "dense": Words(shape={"intermediate_size": 384}, steps=1300),
}
