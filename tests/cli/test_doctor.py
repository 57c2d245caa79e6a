"""`drpo doctor`: facts with their fixes, and an exit code that a script can use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from drpo.aggregation import Mode
from drpo.doctor import hosts
from drpo.doctor.check import Check
from drpo.doctor.hosts import check_host
from drpo.doctor.machine import check_machine, check_torch, check_vllm
from drpo.integrations.doctor.__main__ import run
from drpo.integrations.doctor.parity import check_parity
from drpo.integrations.doctor.version import check_version
from drpo.integrations.hosts import HOSTS
from drpo.integrations.parity import Padded
from drpo.integrations.prime_rl.parity import PrimeRLPath
from support import command

pytestmark = pytest.mark.slow


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command.run(["doctor", *arguments], timeout=300)


def test_the_machine_is_described() -> None:
    found = {check.what: check for check in check_machine()}
    assert found["drpo"].status == "ok" and "Python 3." in found["drpo"].found
    assert found["torch"].status in ("ok", "note")
    assert any(what.startswith("GPU") for what in found)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("2.13.0+cpu", "ok"),
        ("2.13.1", "ok"),
        ("2.14.0", "note"),
        ("2.6.0", "note"),
        ("2.5.1", "problem"),
        ("1.13.1", "problem"),
    ],
)
def test_releases_of_torch(version: str, status: str) -> None:
    check = check_torch(version)
    assert check.status == status and version.split("+")[0] in check.found
    assert bool(check.fix) == (status == "problem")


@pytest.mark.parametrize(("release", "status"), [(None, "note"), ("0.32.0+cpu", "ok"), ("0.31.2", "warning")])
def test_releases_of_vllm(release: str | None, status: str) -> None:
    check = check_vllm(release)
    assert check.status == status and (release or "pip install -e '.[vllm]'") in check.found
    assert any(found.what == "vLLM" for found in check_machine())


def test_a_host_that_is_not_installed_is_a_problem_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "installed", lambda host: None)
    for host in HOSTS:
        (check,) = check_host(host)
        assert check.status == "problem" and check.fix == HOSTS[host].install


def test_what_a_probe_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = replace(HOSTS["trl"], name="pip", distribution="pip", tested={"pip": ">=1"}, package="drpo.integrations.pip")
    monkeypatch.setitem(HOSTS, "pip", pip)
    release, check = run("pip", [])
    assert (release.status, release.what) == ("ok", "pip"), "the version is told even where the plug-in does not load"
    assert check.status == "problem" and "ModuleNotFoundError" in check.found and "pip" in check.found
    (died,) = check_host("pip")  # in its own process, which does not know this host
    assert died.status == "problem" and "KeyError" in died.found


def test_a_probe_that_dies_or_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "installed", lambda host: "0")
    real = subprocess.run

    def dies(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        code = "import sys; print('half a line'); sys.exit('no CUDA driver')"
        return real([sys.executable, "-c", code], **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(subprocess, "run", dies)
    (check,) = check_host("trl")
    assert check.status == "problem" and "exit code 1" in check.found and "no CUDA driver" in check.found

    def hangs(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        code = "import time; time.sleep(60)"
        return real([sys.executable, "-c", code], **(options | {"timeout": 0.5}))  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(subprocess, "run", hangs)
    (check,) = check_host("trl")
    assert check.status == "problem" and "took longer" in check.found


@pytest.mark.parametrize(
    ("tested", "word"), [("==1.0.*", "newer"), (">=1,<2", "newer"), ("==99.*", "older"), (">=99.1,<99.4", "older")]
)
def test_versions_outside_the_tested_range_are_named(tested: str, word: str) -> None:
    check = check_version("pytest", tested, "trl")
    assert check.status == "warning" and f"{pytest.__version__} is {word} than tested ({tested})" in check.found
    assert "`drpo doctor trl --parity`" in check.fix and f"pip install 'pytest{tested}'" in check.fix


def test_versions_inside_it() -> None:
    assert check_version("pytest", ">=1", "trl") == Check(
        status="ok", what="pytest", found=f"{pytest.__version__} (tested: >=1)"
    )
    assert check_version("no-such-distribution", "==1.*", "trl").status == "problem"


class Scaled(PrimeRLPath):
    """A host that gives ``factor`` times the gradient for one objective."""

    objectives: tuple[str, ...] = ("drpo", "grpo")

    def __init__(self, factor: float):
        self.factor = factor

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        found = super().gradient(settings, padded, mode, micro_batches)
        return found * self.factor if settings["name"] == "drpo" else found


def test_parity_compares_the_installed_host() -> None:
    check = check_parity(Scaled(1.0))
    assert check.status == "ok" and "2 objectives agree" in check.found
    check = check_parity(Scaled(1.001))
    assert check.status == "problem" and "for drpo (largest relative difference 1e-03" in check.found


def test_the_command() -> None:
    everything = doctor("--json")
    sections = json.loads(everything.stdout)
    assert {check["what"] for check in sections["machine"]} >= {"drpo", "torch"}
    shown = doctor()
    assert "machine" in shown.stdout and "torch" in shown.stdout and not shown.stderr


def test_mistakes_on_the_command_line() -> None:
    unknown = doctor("verk")
    assert unknown.returncode == 2 and "Did you mean 'verl'?" in unknown.stderr
    settings = doctor("trl", "a=b")
    assert settings.returncode == 2 and "only verl takes settings" in settings.stderr
