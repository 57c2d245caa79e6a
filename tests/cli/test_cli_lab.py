"""`drpo lab …` on the command line; tests/lab runs a study."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drpo.cli.lab_display import duration
from support import command

pytestmark = pytest.mark.slow


def drpo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return command.run(["lab", *arguments], cwd, timeout=300)


def own_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`drpo lab …` in a Python that finds the modules of ``cwd`` first."""
    line = [sys.executable, "-m", "drpo", "lab", *arguments]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def test_a_plan_says_what_would_run_and_starts_nothing(tmp_path: Path) -> None:
    done = drpo("plan", "divergence", "--no-measure", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kl_k3" in done.stdout and "objective.coefficient: 0.1, 0.3, 1.0" in done.stdout
    assert "seeds     [0, 1, 2, 3, 4]" in done.stdout
    assert "runs      60 to tune, 25 at the shared learning rate, and up to 25 with each arm at its best" in done.stdout
    assert "(drpo against kl_k1: mean of final_accuracy, best, in dense)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_plan_measures(tmp_path: Path) -> None:
    done = drpo("plan", "smoke", "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "arithmetic: " in done.stdout and " s a step, " in done.stdout and "with 1 run at a time" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "smok"), "no study 'smok': neither a file nor a shipped one. Did you mean 'smoke'?"),
        (("plan", "smoke", "--scale", "gpu"), "unknown scale 'gpu'. Known: (none)."),
        (("report", "smoke", "--out", "absent"), "absent holds no study (no study.yaml)"),
    ],
)
def test_mistakes_end_in_a_message(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = drpo(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 42.4, 725, 11050)] == ["0:00", "0:42", "12:05", "3:04:10"]


def test_without_scipy_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "scipy.py").write_text("raise ImportError('not here')\n")
    done = own_python("run", "smoke", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the lab's statistics need scipy")
    assert "pip install -e '.[train,lab]'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_ray_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('not here')\n")
    done = own_python("run", "smoke", "--on", "ray", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --on ray needs Ray") and "pip install -e '.[ray]'" in done.stderr
    assert not (tmp_path / "runs").exists()
