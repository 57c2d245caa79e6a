"""The canary: each host's tests with the newest releases that the index has, not with our pins.

    python -m tools.measure.newest                            # every host that has an extra
    python -m tools.measure.newest trl verl
    python -m tools.measure.newest --python skyrl=python3.12  # another interpreter for one host

Each host gets an environment of its own below build/newest, which is removed again. torch keeps its pin, because a free
choice may be a CUDA build. Where pip finds no set of releases that agree, the pins stay and the host's own packages
alone are the newest. What was found goes to results/newest/HOST.json; `make docs` makes the table of
docs/integrations/README.md from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from drpo.files import replace_text
from drpo.integrations.hosts import HOSTS, Host
from tools import RESULTS, ROOT

FOLDER = ROOT / "build" / "newest"
#: Seconds that an installation, and a host's tests, may take.
INSTALL_LIMIT, TEST_LIMIT = 1800, 3600
#: Failures that are written down by name.
NAMED = 5


def main() -> None:
    """Install and test each host; exit status 1 if one of them fails."""
    known = {name: host for name, host in HOSTS.items() if host.extra}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs="*", choices=[[], *known], help="default: all of them")
    parser.add_argument("--python", action="append", default=[], metavar="HOST=PYTHON", help="a host's interpreter")
    arguments = parser.parse_args()
    pythons = dict(text.split("=", 1) for text in arguments.python)
    failed = []
    for name in arguments.hosts or known:
        print(f"{name}: installing the newest releases", flush=True)
        found = try_host(known[name], pythons.get(name, sys.executable))
        out = RESULTS / "newest" / f"{known[name].key}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {summary(found)}", flush=True)
        failed += [name] if found["failed"] or found["error"] else []
    if failed:
        sys.exit(f"not working with the newest releases: {', '.join(failed)}")


def try_host(host: Host, python: str) -> dict[str, Any]:
    """Versions, counts of tests, and what broke, for one host."""
    environment = FOLDER / host.name
    shutil.rmtree(environment, ignore_errors=True)
    try:
        problem = make_environment(host, python, environment)
        versions = installed(environment, [*host.tested, "torch", "transformers"])
        tests = run_tests(host, environment) if all(versions[name] for name in host.tested) else {}
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    return {
        "host": host.title,
        "date": datetime.now(UTC).date().isoformat(),
        "python": call([python, "-c", "import platform; print(platform.python_version())"], 60).stdout.strip(),
        "tested": dict(host.tested),
        "versions": versions,
        "pip": problem,
        **{"passed": 0, "skipped": 0, "failed": 0, "failures": [], "error": "" if tests else "not installed", **tests},
    }


def summary(found: dict[str, Any]) -> str:
    """One line of what was found."""
    counts = f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
    return f"{found['versions']}: {found['error'] or counts}"


def make_environment(host: Host, python: str, environment: Path) -> str:
    """Make the environment; what pip said where no set of newest releases agrees, else nothing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    call([python, "-m", "venv", str(environment)], 600)
    pins = FOLDER / f"{host.name}.txt"
    everything = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins.write_text(next(line for line in everything if line.startswith("torch==")) + "\n", encoding="utf-8")
    pip(environment, "-c", str(pins), "torch")
    files = pin_files(host)
    problem = resolve(environment, pins, host) if len(files) == 1 else "not asked: it runs beside verl's packages"
    for file in files if problem else ():
        pins.write_text("\n".join(relaxed(host, file)) + "\n", encoding="utf-8")
        pip(environment, "--no-deps", "-r", str(pins))
    # A wheel that is tested alone, on a Python that it does not declare, is outside what pip resolves.
    missing = [name for name, version in installed(environment, host.tested).items() if not version]
    if missing:
        pip(environment, "--no-deps", "--ignore-requires-python", *missing)
    pip(environment, "--no-deps", "-e", str(ROOT))
    return problem


def resolve(environment: Path, pins: Path, host: Host) -> str:
    """Install the newest releases that agree; what pip said where none do, else nothing."""
    try:
        pip(environment, "-c", str(pins), *wanted(host))
    except subprocess.CalledProcessError as error:
        return last_error(error.stderr)
    return ""


def wanted(host: Host) -> list[str]:
    """The names, without versions, of what drpo, the host's extra and the tests ask for."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    extras = project["optional-dependencies"]
    listed = [
        *project["dependencies"],
        *(text for name in ("train", "math", "ray", "test", host.extra) for text in extras[name]),
    ]
    asked = [Requirement(text) for text in listed]
    return sorted({str(one.name) for one in asked if one.marker is None or one.marker.evaluate()})


def pin_files(host: Host) -> list[Path]:
    """The files that pin the host's environment: constraints/verl/HOST.txt goes on top of constraints/verl.txt."""
    assert host.constraints is not None, host.name
    file = ROOT / host.constraints
    base = file.parent.with_suffix(".txt")
    return [base, file] if base.is_file() and base.name != "constraints.txt" else [file]


def relaxed(host: Host, file: Path) -> list[str]:
    """The pins of ``file``, with the host's own packages free."""
    free = {canonicalize_name(name) for name in host.tested}
    lines = file.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and line[0] != "#"]
    return [name if canonicalize_name(name := line.split("==")[0]) in free else line for line in pins]


def run_tests(host: Host, environment: Path) -> dict[str, Any]:
    """Counts of the host's tests, the names of the first failures, and an error if pytest did not end."""
    report = FOLDER / f"{host.name}.xml"
    report.unlink(missing_ok=True)
    tests = ["-m", "pytest", "-q", f"--junitxml={report}", f"tests/hosts/{host.name}"]
    try:
        done = call([str(environment / "bin" / "python"), *tests], TEST_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"the tests took longer than {TEST_LIMIT} s"}
    if not report.is_file():
        return {"error": last_error(done.stdout + done.stderr)}
    return counts(ET.parse(report).getroot())


def counts(report: ET.Element) -> dict[str, Any]:
    """What pytest's JUnit ``report`` says."""
    cases = list(report.iter("testcase"))
    broken = {
        f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}".removeprefix("::"): reason(trouble)
        for case in cases
        for trouble in (*case.iter("failure"), *case.iter("error"))
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    failures = [f"{name}: {message}" for name, message in list(broken.items())[:NAMED]]
    return {
        "passed": len(cases) - skipped - len(broken),
        "skipped": skipped,
        "failed": len(broken),
        "failures": failures,
    }


def reason(trouble: ET.Element) -> str:
    """The exception of a failure; a module that cannot be collected has it in its text alone."""
    lines = [line[1:].strip() for line in (trouble.text or "").splitlines() if line.startswith("E ")]
    return first_line(lines[-1] if lines else trouble.get("message", ""))


def installed(environment: Path, names: Iterable[str]) -> dict[str, str]:
    """Distribution → its installed version, or nothing."""
    listed = call([str(environment / "bin" / "python"), "-m", "pip", "list", "--format=json"], 120).stdout
    found = {canonicalize_name(one["name"]): one["version"] for one in json.loads(listed)}
    return {name: found.get(canonicalize_name(name), "") for name in names}


def pip(environment: Path, *arguments: str) -> None:
    """Install; raises CalledProcessError with what pip said."""
    call([str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *arguments], INSTALL_LIMIT)


def call(command: Sequence[str], limit: float, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run in the repository's root, one thread, without a network for models."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=check
    )


def last_error(output: str) -> str:
    """The last line of ``output`` that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return first_line((errors or lines or ["(no output)"])[-1])


def first_line(text: str) -> str:
    """The first line, of 200 characters at most, without paths of this machine."""
    line = text.strip().partition("\n")[0].replace(str(ROOT), ".")
    return line[:197] + "…" if len(line) > 198 else line


if __name__ == "__main__":
    main()
