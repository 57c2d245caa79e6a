"""Whether an installed version is one that the plug-ins are tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from drpo.doctor.check import Check


def check_version(distribution: str, tested: str) -> Check:
    """Is the installed ``distribution`` in the range ``tested``?"""
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
