"""Part ``tests``: `pytest -m gpu`, of the files of a clone that have such tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from drpo.bench.frame import FAILED, Row, Settings, Watch
from drpo.bench.gpu import Cases

#: Of a clone; an installed package has none beside it.
ROOT = Path(__file__).resolve().parents[4]
TITLE = "pytest -m gpu"


def marked_files() -> list[Path]:
    """The files of tests that need a card; empty outside of a clone."""
    folder = ROOT / "tests"
    if not (folder / "conftest.py").is_file():
        return []
    return [file for file in sorted(folder.rglob("test_*.py")) if "mark.gpu" in file.read_text(encoding="utf-8")]


def cases(settings: Settings) -> Cases:
    """The one case; its rows are the run and each test that failed."""
    yield TITLE, lambda watch: run_tests(marked_files(), watch)


def run_tests(files: list[Path], watch: Watch) -> list[Row]:
    """Run the tests of ``files`` that need a card."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--junitxml", str(report)]
        watch(f"{TITLE}: {len(files)} files")
        done = subprocess.run([*command, *map(str, files)], cwd=ROOT)
        if not report.exists():
            reason = f"{FAILED}pytest exited with status {done.returncode} and wrote no report"
            return [Row(case=TITLE, variant="tests", sizes={}, skipped=reason)]
        return rows_of(ElementTree.parse(report).getroot())


def rows_of(report: ElementTree.Element) -> list[Row]:
    """What a report in JUnit's format says: the time and the counts, and a row for every failure."""
    tests = list(report.iter("testcase"))
    failures = [
        Row(
            case=TITLE,
            variant=f"{test.get('classname', '')}::{test.get('name', '')}",
            sizes={},
            skipped=FAILED + (problem.get("message") or problem.tag).partition("\n")[0][:200],
        )
        for test in tests
        for problem in test
        if problem.tag in ("failure", "error")
    ]
    reasons = [skip.get("message", "") for test in tests for skip in test.iter("skipped")]
    passed = len(tests) - len(reasons) - len({row.variant for row in failures})
    if not passed:
        why = f"none of {len(tests)} tests ran" + (f": {reasons[0]}" if reasons else "")
        return [Row(case=TITLE, variant="tests", sizes={}, skipped=why), *failures]
    seconds = sum(float(test.get("time", 0)) for test in tests)
    figures = {"passed": passed, "failed": len(failures), "skipped": len(reasons)}
    return [Row(case=TITLE, variant="tests", sizes={}, seconds=[max(seconds, 1e-3)], figures=figures), *failures]
