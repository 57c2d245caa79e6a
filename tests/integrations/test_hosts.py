"""The table of hosts: everything that it names is there, and everything that is there is in it."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from drpo.host_runs.catalog import HOSTS as WITH_RECIPES
from drpo.integrations.hosts import HOSTS, Host
from drpo.recipe_files import ROOT as RECIPES

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "src" / "drpo" / "integrations"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
INDEX = (ROOT / "docs" / "integrations" / "README.md").read_text(encoding="utf-8")

each = pytest.mark.parametrize("host", HOSTS.values(), ids=lambda host: host.name)


def has_target(target: str) -> bool:
    return re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE) is not None


@each
def test_a_host_has_its_package_with_a_probe(host: Host) -> None:
    folder = PACKAGES / host.package.rpartition(".")[2]
    assert (folder / "__init__.py").is_file()
    assert re.search(r"^def probe\(", (folder / "doctor.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert host.tested and host.distribution in host.tested and host.install


@each
def test_a_host_has_its_page_and_its_row(host: Host) -> None:
    assert (ROOT / "docs" / "integrations" / f"{host.name}.md").is_file()
    (row,) = (line for line in INDEX.splitlines() if f"[{host.name}.md]({host.name}.md)" in line and line[0] == "|")
    assert row.startswith(f"| {host.title} |")


@each
def test_a_host_has_its_environment_or_the_reason_why_not(host: Host) -> None:
    if host.extra is None:
        assert host.reason and host.constraints is None and not has_target(f"test-{host.name}")
        return
    assert not host.reason
    requirements = [re.split(r"[=<>~\[]", text)[0] for text in EXTRAS[host.extra]]
    assert set(host.tested) <= set(requirements)
    assert host.constraints is not None and (ROOT / host.constraints).is_file()
    assert has_target(f"test-{host.name}") and f"test-{host.name}" in MAKEFILE.split("\nhelp:")[1].split("\n\n")[0]
    assert list((ROOT / "tests" / "hosts" / host.name).glob("test_*.py"))


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_requirement_of_an_extra_has_an_upper_bound(extra: str) -> None:
    for requirement in map(Requirement, EXTRAS[extra]):
        own = requirement.name == "drpo"
        assert own or any(bound.operator in ("<", "<=", "==") for bound in requirement.specifier), str(requirement)


@each
def test_the_extra_of_a_host_installs_what_was_tested(host: Host) -> None:
    """What pip may install by the extra is inside the range that `drpo doctor` calls tested, at both ends."""
    for requirement in map(Requirement, EXTRAS[host.extra] if host.extra else ()):
        if requirement.name in host.tested:
            allowed = {bound.version for bound in requirement.specifier if bound.operator in (">=", "==", "<=")}
            assert allowed and all(SpecifierSet(host.tested[requirement.name]).contains(end) for end in allowed)


@each
def test_the_parity_of_a_host_is_measured(host: Host) -> None:
    file = PACKAGES / host.package.rpartition(".")[2] / "parity.py"
    assert "def make_path(" in file.read_text(encoding="utf-8")
    assert f"tools.measure.parity {host.key}\n" in MAKEFILE
    assert (ROOT / "results" / "parity" / f"{host.key}.json").is_file()


def test_no_package_and_no_target_is_outside_the_table() -> None:
    packages = {file.parent.name for file in PACKAGES.glob("*/__init__.py")} - {"doctor"}
    assert packages == {host.package.rpartition(".")[2] for host in HOSTS.values()}
    assert set(re.findall(r"tools\.measure\.parity (\w+)", MAKEFILE)) == {host.key for host in HOSTS.values()}


def test_a_release_of_trl_that_is_not_the_pinned_one_has_an_environment_of_its_own() -> None:
    for setting, folder in (("TRL=1.15.0", ".venv-trl-1.15.0"), ("TRL=", ".venv")):
        made = subprocess.run(
            ["make", "--dry-run", "--always-make", "test-trl", setting],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"{folder}/bin/pytest" in made
        assert ("'trl==1.15.0'" in made) == (folder != ".venv")


def test_recipes_are_of_hosts_that_can_run_them() -> None:
    for name in WITH_RECIPES:
        assert list((RECIPES / name).glob("*.yaml"))
        run = HOSTS[name].run
        assert run is not None and run.needed and run.objective_key and run.parameter_prefix
        for module in (run.module, run.dry_run):
            if module.startswith("drpo."):
                file = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
                assert 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")
