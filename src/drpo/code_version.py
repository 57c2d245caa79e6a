"""Which code a run's numbers come from: a digest of the modules that decide them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
#: What decides the numbers of a run; other modules show, plan or check.
DECIDING = (
    "advantages.py",
    "aggregation.py",
    "batch.py",
    "divergence.py",
    "kernels",
    "model",
    "objectives",
    "rollouts",
    "support.py",
    "tasks",
    "train",
)


@cache
def training_code() -> str:
    """The digest of all that decides the numbers of a run."""
    return digest(PACKAGE / name for name in DECIDING)


def digest(places: Iterable[Path]) -> str:
    """The first 16 digits of the SHA-256 of these Python files, and of those in these folders, with their names."""
    found = hashlib.sha256()
    for place in places:
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(f"{file.relative_to(place.parent).as_posix()}\0".encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:16]
