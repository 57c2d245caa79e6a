"""The run directory: what is written is what is read, and a crash at any moment loses one record at most."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import CheckpointError, DataError
from drpo.files import read_jsonl
from drpo.run_directory import SHIFT_EDGES, WEIGHT_EDGES, RunDirectory

CONFIG = {"steps": 3, "objective": {"name": "drpo", "delta": 0.15}, "note": "δ and μ"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "runs" / "a")
    run.create(CONFIG, {"seed": 1})
    return run


def record(step: int, kind: str = "update", **values: Any) -> dict[str, Any]:
    return {"kind": kind, "step": step, **values}


def test_create_and_read_back(run: RunDirectory):
    assert run.exists()
    assert run.read_config() == CONFIG
    assert list(run.read_config()) == list(CONFIG)
    assert "δ and μ" in run.config_file.read_text(encoding="utf-8")
    assert run.read_manifest() == {"seed": 1}
    assert run.rollouts.is_dir() and run.checkpoints.is_dir()
    assert run.read_metrics() == [] and run.read_rollouts("step") == {}
    run.write_report("<p>μ</p>")
    assert run.report_file.read_text(encoding="utf-8") == "<p>μ</p>"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "manifest.json",
        "report.html",
        "rollouts",
    ]


def test_layout_is_the_documented_one(tmp_path: Path):
    run = RunDirectory(str(tmp_path))
    paths = (
        run.config_file,
        run.manifest_file,
        run.metrics_file,
        run.rollouts,
        run.checkpoints,
        run.report_file,
    )
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "rollouts",
        "checkpoints",
        "report.html",
    ]


def test_there_is_no_run_before_its_configuration_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = RunDirectory(tmp_path / "a")
    replace = Path.replace

    def fail_on_config(self: Path, target: Path) -> Path:
        if Path(target).name == "config.yaml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_config)
    with pytest.raises(CheckpointError):
        run.create(CONFIG, {"seed": 1})
    assert run.read_manifest() == {"seed": 1}
    assert not run.exists()
    with pytest.raises(CheckpointError, match=r"a holds no run \(no config\.yaml\)\. Give the directory that"):
        run.read_config()


def test_a_write_that_fails_leaves_the_old_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as caught:
        run.write_manifest({"seed": 2})
    text = str(caught.value)
    assert text.startswith(f"cannot write to {run.path}: No space left on device. Free space")
    assert f"drpo train --resume {run.path}" in text
    assert isinstance(caught.value.__cause__, OSError)
    assert run.read_manifest() == {"seed": 1}


def test_the_new_file_is_whole_before_it_takes_the_name(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, str]] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        # At the moment of the sync a reader still finds the old text under the name.
        seen.append((run.report_file.read_text(), Path(f"/proc/self/fd/{descriptor}").resolve().read_text()))
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to look at an open file")
    run.write_report("old")
    monkeypatch.setattr(os, "fsync", look)
    run.write_report("new")
    assert seen == [("old", "new")]
    assert run.report_file.read_text() == "new"


def test_every_writer_says_when_the_disk_refuses(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    run = RunDirectory(tmp_path / "file" / "run")
    for write in (
        lambda: run.create(CONFIG, {}),
        lambda: run.write_manifest({}),
        lambda: run.append_metrics(record(1)),
        lambda: run.write_rollouts("step", 1, []),
        lambda: run.write_report(""),
    ):
        with pytest.raises(CheckpointError, match=r"cannot write to .*, or choose another directory with --out"):
            write()


def test_manifest_of_nothing_is_empty(tmp_path: Path):
    assert RunDirectory(tmp_path).read_manifest() == {}


# ---- metrics


def test_metrics_in_order_and_by_kind(run: RunDirectory):
    records = [record(1, loss=0.5, text="π"), record(1, "evaluation", accuracy=0.25), record(2, loss=0.25)]
    for item in records:
        run.append_metrics(item)
    assert run.read_metrics() == records
    assert run.read_metrics("update") == [records[0], records[2]]
    assert run.read_metrics("evaluation") == [records[1]]
    assert run.read_metrics("other") == []


def test_figures_that_do_not_exist_are_null(run: RunDirectory):
    run.append_metrics(record(1, a=math.nan, b=[math.inf, 1.5], c={"d": (-math.inf, 2)}, e=True, f="NaN", g=None))
    run.write_manifest({"best": math.nan})
    run.write_rollouts("step", 1, [{"reward": math.nan}])
    for file in (run.metrics_file, run.manifest_file, run.rollouts / "step-000001.jsonl"):

        def refuse(constant: str, file: Path = file) -> None:
            raise AssertionError(f"{constant} in {file.name} is not JSON")

        json.loads(file.read_text(), parse_constant=refuse)
    expected = record(1, a=None, b=[None, 1.5], c={"d": [None, 2]}, e=True, f="NaN", g=None)
    assert run.read_metrics() == [expected]
    assert run.read_manifest() == {"best": None}
    assert run.read_rollouts("step") == {1: [{"reward": None}]}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_last_line_cut_off_by_a_crash_is_left_out(run: RunDirectory, cut: int):
    run.append_metrics(record(1, text="whole"))
    run.append_metrics(record(2, text="cut"))
    run.metrics_file.write_bytes(run.metrics_file.read_bytes()[:-cut])
    assert run.read_metrics() == [record(1, text="whole")]


def test_a_line_may_be_cut_in_the_middle_of_a_character(run: RunDirectory):
    run.append_metrics(record(1))
    with run.metrics_file.open("ab") as stream:
        stream.write('{"kind": "update", "step": 2, "text": "δ'.encode()[:-1])
    assert run.read_metrics() == [record(1)]


def test_a_line_cut_anywhere_else_is_an_error(run: RunDirectory):
    run.append_metrics(record(1))
    with run.metrics_file.open("a") as stream:
        stream.write('{"kind": "upd\n')
    run.append_metrics(record(3))
    with pytest.raises(
        DataError, match=r"metrics\.jsonl, line 2: not JSON \(.+ at column \d+\)\. Each line must be one"
    ):
        run.read_metrics()


def test_rewind_forgets_what_came_after_the_step(run: RunDirectory):
    for step in (1, 2, 3):
        run.append_metrics(record(step))
        run.append_metrics(record(step, "evaluation"))
        run.write_rollouts("step", step, [{"text": str(step)}])
    run.write_rollouts("evaluation", 0, [])
    run.write_rollouts("evaluation", 3, [])
    with run.metrics_file.open("a") as stream:
        stream.write('{"kind": "update", "st')
    run.rewind(2)
    assert [(item["step"], item["kind"]) for item in run.read_metrics()] == [
        (1, "update"),
        (1, "evaluation"),
        (2, "update"),
        (2, "evaluation"),
    ]
    assert list(run.read_rollouts("step")) == [1, 2]
    assert list(run.read_rollouts("evaluation")) == [0]
    # The half line is gone from the file, so that the next record starts on a line of its own.
    run.append_metrics(record(3))
    assert [item["step"] for item in run.read_metrics("update")] == [1, 2, 3]


def test_rewind_before_anything_was_recorded(run: RunDirectory):
    run.rewind(0)
    assert run.read_metrics() == []


# ---- rollouts


def test_rollouts_by_name_and_step(run: RunDirectory):
    run.write_rollouts("step", 12, [{"text": "b\n\u2028", "reward": 1.0}, {"text": "c", "reward": 0.0}])
    run.write_rollouts("step", 2, ({"text": text} for text in "a"))
    run.write_rollouts("evaluation", 2, [])
    assert list(run.read_rollouts("step").items()) == [
        (2, [{"text": "a"}]),
        (12, [{"text": "b\n\u2028", "reward": 1.0}, {"text": "c", "reward": 0.0}]),
    ]
    assert run.read_rollouts("evaluation") == {2: []}
    assert sorted(path.name for path in run.rollouts.iterdir()) == [
        "evaluation-000002.jsonl",
        "step-000002.jsonl",
        "step-000012.jsonl",
    ]


# ---- read_jsonl


def test_read_jsonl_passes_over_empty_lines(tmp_path: Path):
    file = tmp_path / "data.jsonl"
    file.write_text('{"a": 1}\n\n  \n{"a": "é"}', encoding="utf-8")
    assert list(read_jsonl(file)) == [{"a": 1}, {"a": "é"}]
    assert list(read_jsonl(str(file), ignore_cut_line=True)) == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b'{"a": 1}\n\n{"a": 1,}\n',
            r"data\.jsonl, line 3: not JSON \(.* at column \d+\)\. Each line must be one JSON obj",
        ),
        (b'{"a": 1}\n{"a": ', r"data\.jsonl, line 2: not JSON"),
        (b"[1, 2]\n", r"data\.jsonl, line 1: a JSON object is needed, got list"),
        (b'{"a": 1}\n3\n', r"data\.jsonl, line 2: a JSON object is needed, got int"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', r"data\.jsonl, line 2: not UTF-8 text \(byte 8 of the line\)"),
    ],
)
def test_read_jsonl_names_file_and_line(tmp_path: Path, text: bytes, message: str):
    file = tmp_path / "data.jsonl"
    file.write_bytes(text)
    with pytest.raises(DataError, match=message):
        list(read_jsonl(file))


# ---- the bins


def test_histogram_bins():
    assert (SHIFT_EDGES[0], SHIFT_EDGES[1], SHIFT_EDGES[-1]) == (0.0, 1e-6, 1.0)
    assert list(SHIFT_EDGES) == sorted(set(SHIFT_EDGES))
    assert list(WEIGHT_EDGES) == sorted(set(WEIGHT_EDGES))
    # Exactly, and not to rounding: w = 0 (dropped) and w = 1 (untouched) are where most tokens are.
    assert 0.0 in WEIGHT_EDGES and 1.0 in WEIGHT_EDGES
    assert WEIGHT_EDGES[0] == -3.0 and WEIGHT_EDGES[-1] == pytest.approx(5.0)
