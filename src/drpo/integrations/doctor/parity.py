"""Whether the installed host computes the gradient that we do, on one fixed batch."""

from __future__ import annotations

from drpo.doctor.check import Check
from drpo.integrations.parity import HostPath, compare, tolerance


def check_parity(path: HostPath) -> Check:
    """Every objective of ``path`` under its first aggregation: whole, in micro-batches, and with other padding."""
    mode, allowed = path.modes[0], tolerance(path)
    worst = {name: compare(path, {"name": name}, mode).worst for name in path.objectives}
    beyond = [name for name, difference in worst.items() if not difference <= allowed]
    figures = f"largest relative difference {max(worst.values()):.0e}, allowed {allowed:.0e}"
    if beyond:
        return Check(
            status="problem",
            what="parity",
            found=f"{path.host} {path.version} gives another gradient than drpo for {', '.join(beyond)} ({figures})",
            fix="Use a tested version (docs/integrations), and report this.",
        )
    return Check(
        status="ok",
        what="parity",
        found=f"{path.host} {path.version}: the gradients of {len(worst)} objectives agree with drpo's ({figures})",
    )
