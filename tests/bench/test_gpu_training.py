"""benchmarks/gpu_training.py, tiny and on a CPU: every line runs, and its record adds up."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_training.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(part for part in (str(ROOT / "src"), os.environ.get("PYTHONPATH")) if part)
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize("settings", [[], ["gradient_checkpointing=true", "learning_rate=1e-3"]])
def test_quick(tmp_path: Path, settings: list[str]) -> None:
    file = tmp_path / "record.json"
    done = run("--device", "cpu", "--quick", "--json", str(file), *settings)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    assert record["suite"] == "gpu_training" and record["machine"]["device"] == "cpu"
    assert len(record["steps"]) == 2 and record["parameters"] == record["trained"] > 10_000
    for row in record["steps"]:
        assert 0 < row["tokens"] <= 4 * 8
        assert row["tokens_per_second"] < min(row["sampling_tokens_per_second"], row["training_tokens_per_second"])
    assert record["tokens_per_second"] == statistics.median(row["tokens_per_second"] for row in record["steps"])
    assert record["settings"]["gradient_checkpointing"] == bool(settings)
    assert record["memory_report"]["training"] < record["training_peak_bytes"]  # of the whole process, on a CPU


def test_what_cannot_be_measured_is_refused() -> None:
    done = run("--device", "cpu")
    assert done.returncode == 2 and "--device cpu is for --quick alone" in done.stderr
    import torch

    if not torch.cuda.is_available():
        done = run()
        assert done.returncode == 2 and "torch sees no CUDA device here" in done.stderr
