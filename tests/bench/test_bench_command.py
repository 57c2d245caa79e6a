"""`drpo bench` as a user meets it; sizes are tiny, and no test asks how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from drpo.bench import SUITES
from support import command
from support.bench_records import check_record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a whole quick run, and what it printed."""
    folder = tmp_path_factory.mktemp("bench")
    result = python("-m", "drpo", "bench", "--quick", "--device", "cpu", "--out", folder / "found", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "found", result.stdout


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_leaves_a_record(quick: tuple[Path, str], suite: str) -> None:
    record = json.loads((quick[0] / f"{suite}.json").read_text(encoding="utf-8"))
    check_record(record, suite)
    assert record["command"].startswith("drpo bench --quick")
    for row in record["rows"]:
        assert row["variant"] in quick[1] and row["case"] in quick[1]


def rows_of(quick: tuple[Path, str], suite: str) -> list[dict]:
    return json.loads((quick[0] / f"{suite}.json").read_text(encoding="utf-8"))["rows"]


def test_the_losses_have_floor_naive_and_peaks(quick: tuple[Path, str]) -> None:
    rows = {row["variant"]: row for row in rows_of(quick, "kernels")}
    assert {"floor", "naive", "fused_loss", "fused_loss two-pass", "token_logprobs chunked"} <= set(rows)
    for variant, module in (("TRL fused head", "trl"), ("Liger GRPO", "liger_kernel")):
        assert ("skipped" in rows[variant]) == (find_spec(module) is None)
    measured = [row for row in rows.values() if "skipped" not in row]
    assert all({"floor", "naive"} <= set(row["ratios"]) for row in measured)
    if sys.platform == "linux":
        assert all(row["figures"]["peak_bytes"] > 0 for row in measured)


def test_full_length_is_the_same_work(quick: tuple[Path, str]) -> None:
    full = [row for row in rows_of(quick, "sampler") if "full length" in row["case"]]
    assert len(full) == 4
    for row in full:
        assert set(row["tokens"]) == {row["sizes"]["prompts"] * row["sizes"]["group"] * row["sizes"]["length"]}
    ended = [row for row in rows_of(quick, "sampler") if "as in training" in row["case"]]
    assert all(0 < count <= full[0]["tokens"][0] for row in ended for count in row["tokens"])


def test_every_curve_has_points_and_there_is_a_picture(quick: tuple[Path, str]) -> None:
    rows = rows_of(quick, "curves")
    for curve in ("tokens", "vocabulary", "support", "group", "length", "parameters"):
        assert len({row["sizes"][curve] for row in rows if row["curve"] == curve}) >= 2
    assert (quick[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sampel"], "Did you mean 'sampler'"),
        (["kernels", "--tokens", "5"], "--tokens is for the suite inspect"),
        (["inspect", "--compile"], "--compile is for the suite kernels or sampler"),
        (["--device", "tpux"], "is not a torch device"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: list[str], expected: str) -> None:
    result = command.run(["bench", "--quick", *arguments], tmp_path)
    assert result.returncode == 2 and expected in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_inspect_reads_as_many_tokens_as_asked(tmp_path: Path) -> None:
    result = command.run(["bench", "inspect", "--quick", "--tokens", "700", "--out", tmp_path], tmp_path)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "inspect.json").read_text(encoding="utf-8"))
    assert all(row["sizes"] == {"tokens": 700} and row["tokens"] == [700] for row in record["rows"])


def test_help_is_quick_and_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['drpo', 'bench', '--help']\nfrom drpo.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        result = python("-c", code, cwd=tmp_path)
        seconds.append(time.perf_counter() - started)
        assert result.returncode == 0 and "kernels" in result.stdout, result.stderr
    assert min(seconds) < 0.5
