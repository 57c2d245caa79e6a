"""tools/same_runs.py: what differs is named, and times may differ."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drpo.run_directory import RunDirectory
from support.stand_in import evaluation, update
from tools import same_runs


def run(path: Path, shift: float = 0.01, seconds: float = 1.0) -> None:
    directory = RunDirectory(path)
    directory.create({"seed": 0}, {"status": "finished"})
    directory.append_metrics(update(1) | {"shift": shift, "timing": {"sampling": seconds}})
    directory.append_metrics(evaluation(1, 0.5))


@pytest.mark.parametrize(
    ("shift", "status", "said"), [(0.01, 0, "the same to the bit"), (0.02, 1, "step 1, shift: 0.01")]
)
def test_figures_are_compared_and_times_are_not(
    shift: float,
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(tmp_path / "a/runs/one")
    run(tmp_path / "b/runs/one", shift, seconds=2.0)
    monkeypatch.setattr(sys, "argv", ["same_runs", str(tmp_path / "a"), str(tmp_path / "b")])
    assert same_runs.main() == status and said in capsys.readouterr().out
    run(tmp_path / "b/runs/two")
    assert same_runs.main() == 2
