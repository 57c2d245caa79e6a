"""Averages that stay exact although TRL averages whatever it is given.

TRL's ``log`` takes the plain mean of the list under each name and clears the lists. So each name is kept at a list of
one: the exact value over all micro-batches and processes since it was last cleared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drpo.integrations.padded import sums_and_counts
from drpo.metrics import Metric


class RunningMetrics:
    """Sums and counts since TRL's last log."""

    def __init__(self) -> None:
        self.total: dict[str, Metric] = {}

    def add(self, measured: Mapping[str, Metric], accelerator: Any, shown: dict[str, list[float]]) -> dict[str, Metric]:
        """Add what every process ``measured`` on its micro-batch, and write the values since the last log to ``shown``.

        Every process must call this together, with the same names.

        Returns:
            ``measured``, merged over the processes.
        """
        here = over_processes(measured, accelerator)
        if not shown.keys() & self.total.keys():  # logged and cleared, or never written
            self.total = {}
        for name, metric in here.items():
            if metric.count:
                self.total[name] = self.total[name] + metric if name in self.total else metric
                shown[name] = [self.total[name].item()]
        return here


def over_processes(measured: Mapping[str, Metric], accelerator: Any) -> dict[str, Metric]:
    """The same metrics over the tokens of all processes, as floats (one device synchronization)."""
    parts = sums_and_counts(measured, accelerator.device).unsqueeze(0)
    merged = dict(measured)
    for rank, table in enumerate(accelerator.gather(parts).tolist()):
        for (name, metric), (total, count) in zip(measured.items(), table, strict=True):
            part = type(metric)(total, count)
            merged[name] = merged[name] + part if rank else part
    return merged
