"""Files as they are found: compressed, cut off, still being written, of another kind."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.errors import DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers import json_records
from drpo.inspection.result import Inspection
from drpo.report.inspection.page import build_inspection_page
from support.synthetic_log import Log, make_log, write_jsonl, write_parquet

LINE = json.dumps({"logprob": -0.5, "behavior_logprob": -0.4, "advantage": 1.0, "sequence_id": 0})


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(tokens=1000, drift=0.3)


def look(file: Path) -> Inspection:
    return inspect([file], objectives=["drpo"])


@pytest.mark.parametrize("ending", ["jsonl.gz", "ndjson.gz", "JSONL.GZ"])
def test_a_compressed_log_is_read(tmp_path: Path, log: Log, ending: str) -> None:
    plain = write_jsonl(tmp_path / "log.jsonl", log)
    packed = tmp_path / f"packed.{ending}"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    seen: list[float] = []
    found = inspect([packed], objectives=["drpo"], on_progress=seen.append)
    assert found.figures == look(plain).figures and seen[-1] == 1


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_the_last_line_of_a_log_that_is_being_written_is_passed_over(tmp_path: Path, log: Log, cut: int) -> None:
    file = write_jsonl(tmp_path / "log.jsonl", log)
    file.write_bytes(file.read_bytes()[:-1][:-cut])
    found = look(file)
    assert found.tokens == 999
    (note,) = [finding for finding in found.findings if finding.name == "unfinished_line"]
    assert note.severity == "note" and "line 1000" in note.evidence


def test_a_last_line_that_lacks_its_newline_alone_counts(tmp_path: Path, log: Log) -> None:
    file = write_jsonl(tmp_path / "log.jsonl", log)
    file.write_bytes(file.read_bytes()[:-1])
    found = look(file)
    assert found.tokens == 1000 and "unfinished_line" not in [finding.name for finding in found.findings]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + LINE.encode() + b"\n")
    assert look(file).tokens == 1


def cut_gzip(file: Path) -> None:
    content = gzip.compress((LINE + "\n").encode() * 1000)
    file.write_bytes(content[: len(content) // 2])


HOSTILE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("log.jsonl.gz", cut_gzip, "damaged or cut off"),
    ("log.jsonl.gz", lambda f: f.write_text(LINE + "\n"), "damaged or cut off"),
    ("log.jsonl.gz", lambda f: f.write_bytes(gzip.compress(b"")), "has no records"),
    ("log.jsonl", lambda f: f.write_text(LINE + "\n" + "[" * 100_000 + "\n"), "line 2: brackets are nested too deeply"),
    ("log.jsonl", lambda f: f.write_text('{"a":' * 100_000 + "\n"), "line 1: brackets are nested too deeply"),
    ("log.jsonl", lambda f: f.write_text(LINE[:-1] + ', "logprob": -0.1}\n'), "line 1: the key 'logprob' comes twice"),
    ("log.jsonl", lambda f: f.write_text(LINE, encoding="utf-16"), "line 1: not UTF-8"),
    ("log.jsonl", lambda f: f.write_text(LINE + "\n", encoding="utf-16-le"), "line 1: not JSON"),
    ("log.jsonl", lambda f: f.write_bytes(LINE.encode() + b"\n" + b"\0" * 300 + b"\n"), "line 2: not JSON"),
    ("log.jsonl", lambda f: f.write_bytes(os.urandom(20) + b"\xff\n" * 9), "line 1: not UTF-8|line 1: not JSON"),
    ("log.jsonl", lambda f: f.write_text(LINE[:30]), "has no records"),
    ("log.jsonl", lambda f: f.write_text(LINE.replace(" 0}", " []}") + "\n"), "line 1: sequence_id must be"),
    ("log.parquet", lambda f: f.write_bytes(b"PAR1" + b"\0" * 60 + b"\xff\xff\xff\x7fPAR1"), "cannot be read as"),
    ("log.parquet", lambda f: f.write_bytes(b"PAR1" * 3), "cannot be read as Parquet"),
    ("log.parquet", lambda f: f.write_text("{}"), "cannot be read as Parquet"),
    ("log.jsonl", lambda f: os.mkfifo(f), "is not a regular file"),
    ("folder", lambda f: f.mkdir(), "holds neither a run nor token logs"),
    ("x" * 300 + ".jsonl", lambda f: None, "cannot be read|does not exist"),
]


@pytest.mark.parametrize(("name", "make", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_one_message(tmp_path: Path, name: str, make: Callable[[Path], Any], message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as error:
        look(tmp_path / name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "LONGEST_LINE", 1 << 20)
    (tmp_path / "log.jsonl").write_text(LINE + "\n" + "x" * (1 << 22))
    with pytest.raises(DataError, match="line 2 is longer than 1 MiB"):
        look(tmp_path / "log.jsonl")


def test_a_parquet_page_of_bytes_that_are_no_text_is_read(tmp_path: Path, log: Log) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")
    buffers = arrow.array([b"\xff\xfe"] * 1000).buffers()
    text = arrow.StringArray.from_buffers(1000, buffers[1], buffers[2])
    found = look(write_parquet(tmp_path / "log.parquet", {**log, "text": text}))
    assert found.affected[0].text == "\ufffd\ufffd"


def test_a_text_that_is_missing_is_not_shown_as_a_number(tmp_path: Path, log: Log) -> None:
    text = [float("nan"), None] * 500
    columns = {name: values.tolist() for name, values in log.items()} | {"text": text}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = look(tmp_path / "log.jsonl")
    assert {token.text for token in found.affected} == {None} and found.affected[0].before == ""


@pytest.mark.parametrize("value", [1e38, 3e38, 1e-45])
def test_extreme_advantages_leave_every_figure_finite(tmp_path: Path, log: Log, value: float) -> None:
    pushed = {**log, "logprob": np.minimum(log["behavior_logprob"] + 30, 0).astype(np.float32)}
    pushed["behavior_logprob"] = np.where(np.arange(1000) % 7 == 0, -45.5, log["behavior_logprob"]).astype(np.float32)
    pushed["advantage"] = np.where(np.arange(1000) % 3 == 0, value, -value).astype(np.float32)
    file = write_jsonl(tmp_path / "log.jsonl", pushed)
    found = inspect([file])
    numbers = [n for v in found.verdicts for n in (*v.tokens, *v.mass, v.changed, *v.tokens_positive)]
    numbers += [n for token in found.affected for n in (token.change, token.weight)]
    assert numbers and all(map(math.isfinite, numbers))
    assert not re.search(r"\b(nan|inf)\b", build_inspection_page(found))


def test_a_step_of_each_token_leaves_the_page_small(tmp_path: Path, log: Log) -> None:
    each = np.arange(1000)
    file = write_jsonl(tmp_path / "log.jsonl", {**log, "step": each * 10**15, "sequence_id": each})
    found = look(file)
    assert len(found.steps) == 1000 and found.steps[-1].step == 999 * 10**15
    assert len(build_inspection_page(found)) < 1_000_000
