"""The small version of `make fuzz`: a few cases of every generator, and the frame itself."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fuzz.runner import modules, run_cases

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("module", modules())
def test_a_few_cases_end_well(module: str, tmp_path: Path) -> None:
    generator = importlib.import_module(f"fuzz.{module}")
    assert generator.UNITS >= 1
    for seed in range(getattr(generator, "SMALL", 20)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        problem = generator.run_case(seed, folder)
        assert problem is None, f"{module}, seed {seed}: {problem}"


def test_the_runner_reports_failures_hangs_and_deaths_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fuzz"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "child.py").write_text((Path(__file__).parent / "child.py").read_text())
    (package / "kinds.py").write_text(
        "import os, time\n"
        "def run_case(seed, folder):\n"
        "    print('noise')\n"
        "    assert folder.is_dir() and not list(folder.iterdir())\n"
        "    while seed == 1: time.process_time()\n"
        "    if seed == 6: time.sleep(600)\n"
        "    if seed == 2: os.kill(os.getpid(), 9)\n"
        "    if seed == 3: raise KeyError('oops')\n"
        "    return 'wrong' if seed == 4 else None\n"
    )
    monkeypatch.setattr("fuzz.runner.FOLDER", package)
    monkeypatch.setattr("fuzz.runner.START", 10.0)
    found = {outcome.seed: outcome.problem for outcome in run_cases("kinds", 0, 6, 1.0)}
    monkeypatch.setattr("fuzz.runner.PATIENCE", 0.1)
    found |= {outcome.seed: outcome.problem for outcome in run_cases("kinds", 6, 7, 1.0)}
    assert list(found) == [0, 1, 2, 3, 4, 5, 6] and found[0] is None and found[5] is None
    assert "hangs" in str(found[6])
    assert "hangs" in str(found[1]) and "SIGKILL" in str(found[2]) and "KeyError" in str(found[3])
    assert found[4] == "wrong"
