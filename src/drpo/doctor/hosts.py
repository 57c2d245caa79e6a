"""Asks a fresh Python whether a host and our plug-in work together there.

A host is looked at in a process of its own, as its workers see it: plug-ins register while it is imported, some hosts
swallow what goes wrong then, and a broken one must not take this process along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from drpo.doctor.check import Check
from drpo.errors import ConfigError, suggest
from drpo.integrations.hosts import HOSTS

#: Where the last line of a probe's output starts.
MARK = "drpo-doctor:"
TIME_LIMIT = 300.0


def require_host(name: str) -> None:
    """Raises ConfigError if there is no plug-in for ``name``."""
    if name not in HOSTS:
        raise ConfigError(f"no plug-in for {name!r}.{suggest(name, HOSTS)}")


def installed(host: str) -> str | None:
    """The installed version of ``host``, or None."""
    try:
        return version(HOSTS[host].distribution)
    except PackageNotFoundError:
        return None


def check_host(host: str, settings: Sequence[str] = (), *, parity: bool = False) -> list[Check]:
    """What the probe of ``host`` found.

    Args:
        host: a name of :data:`HOSTS`.
        settings: the host's own (for verl: the overrides of a run).
        parity: whether to compare its gradients with ours.
    """
    if installed(host) is None:
        return [Check(status="problem", what=host, found="not installed in this environment", fix=HOSTS[host].install)]
    command = [sys.executable, "-m", "drpo.integrations.doctor", host, *settings, *["--parity"][:parity]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return [
            Check(
                status="problem",
                what=host,
                found=f"importing it took longer than {TIME_LIMIT:.0f} s",
                fix=f"Run `{' '.join(command)}` to see where it hangs.",
            )
        ]
    answer = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not answer:
        last = (done.stderr.strip() or done.stdout.strip() or "(no output)").splitlines()[-1]
        return [
            Check(
                status="problem",
                what=host,
                found=f"the check died with exit code {done.returncode}: {last}",
                fix=f"Run `{' '.join(command)}` to see all of it.",
            )
        ]
    return [Check(**check) for check in json.loads(answer[-1].removeprefix(MARK))]
