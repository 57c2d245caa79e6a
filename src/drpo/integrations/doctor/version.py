"""The versions that the plug-ins are tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from drpo.doctor.check import Check

#: Distribution → the range in which our tests ran, and whose internals were read.
TESTED = {
    "trl": "==1.16.*",
    "verl": "==0.9.*",
    "tinker": "==0.38.*",
    "tinker-cookbook": "==0.5.*",
    "prime-rl": "==0.8.*",
    "skyrl": "==0.3.*",
}


def check_version(distribution: str) -> Check:
    """Is the installed ``distribution`` in the tested range?"""
    tested = TESTED[distribution]
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return Check(
            status="problem", what=distribution, found="not installed", fix=f"pip install '{distribution}{tested}'"
        )
    if SpecifierSet(tested).contains(found, prereleases=True):
        return Check(status="ok", what=distribution, found=f"{found} (tested: {tested})")
    return Check(
        status="warning",
        what=distribution,
        found=f"{found}; tested: {tested}",
        fix=f"pip install '{distribution}{tested}', or run that host's tests against this one (docs/integrations).",
    )
