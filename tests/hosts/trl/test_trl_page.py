"""The user's page: its script runs as it stands, and its errors are those that are raised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import trl_runs  # noqa: F401 - sets the environment before transformers is imported

from drpo.integrations.trl import TESTED_VERSIONS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "integrations" / "trl.md").read_text(encoding="utf-8")


def test_the_script_runs_and_learns_from_rewards_that_vary(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    shorter = code.replace("max_steps=64", "max_steps=8")
    assert shorter != code
    result = subprocess.run(
        [sys.executable, "-c", shorter],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "drpo/start_mismatch" in result.stdout and "DrpoWarning" not in result.stderr
    logged = {
        name: [float(value) for value in re.findall(rf"'{name}': '?([-+.\de]+)", result.stdout)]
        for name in ("reward", "reward_std", "grad_norm", "completions/clipped_ratio")
    }
    assert all(len(values) == 2 for values in logged.values()), result.stdout
    assert all(0 < value < 1 for value in logged["reward"])
    assert all(value > 0 for value in logged["reward_std"] + logged["grad_norm"])
    assert all(value < 0.5 for value in logged["completions/clipped_ratio"])


def test_it_names_the_tested_version() -> None:
    assert all(f"TRL {version}" in PAGE for version in TESTED_VERSIONS)


def test_its_errors_exist() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/drpo/integrations").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    for part in (
        "no μ: TRL's own generate returns no log-probabilities",
        "is not used by ",
        "above mismatch_limit",
        "this one is sharded",
        "which it would ignore",
    ):
        assert part in PAGE and part in source, part
