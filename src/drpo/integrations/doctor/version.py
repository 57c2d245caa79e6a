"""Whether an installed version is one that the plug-ins are tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from packaging.version import parse

from drpo.doctor.check import Check


def check_version(distribution: str, tested: str, host: str) -> Check:
    """Is the installed ``distribution``, a package of ``host``, in the range ``tested``?"""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return Check(
            status="problem", what=distribution, found="not installed", fix=f"pip install '{distribution}{tested}'"
        )
    if SpecifierSet(tested).contains(found, prereleases=True):
        return Check(status="ok", what=distribution, found=f"{found} (tested: {tested})")
    newer = all(parse(found) >= parse(bound.version.removesuffix(".*")) for bound in SpecifierSet(tested))
    return Check(
        status="warning",
        what=distribution,
        found=f"{found} is {'newer' if newer else 'older'} than tested ({tested})",
        fix=f"Run `drpo doctor {host} --parity`, which compares the gradients with this version; or "
        f"pip install '{distribution}{tested}'.",
    )
