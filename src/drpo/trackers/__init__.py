"""Where a run's figures go besides metrics.jsonl: one interface, an adapter for each tracker.

A tracker's own package is imported when it starts, never before.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

from drpo.errors import ConfigError
from drpo.installation import install
from drpo.trackers.base import Response, TrackedRun, Tracker
from drpo.trackers.scalars import flat_scalars, updates_done
from drpo.trackers.tensorboard import TensorBoard
from drpo.trackers.trackio import Trackio
from drpo.trackers.wandb import WandB

__all__ = ["TRACKERS", "Response", "TrackedRun", "Tracker", "flat_scalars", "make_trackers", "updates_done"]

#: Name, which is also that of the package on PyPI → adapter.
TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WandB}


def make_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """Name → tracker, none of them started.

    Raises:
        ConfigError: the package of one is not installed.
    """
    missing = [name for name in names if not _installed(name)]
    if missing:
        raise ConfigError(
            f"trackers: {', '.join(missing)} not installed here. Install with "
            f"{install('track')}, or leave {'it' if len(missing) == 1 else 'them'} out of trackers."
        )
    return {name: TRACKERS[name]() for name in names}


def _installed(package: str) -> bool:
    # Asked of the installed packages, not of the import system: a folder ./wandb can be imported too.
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
