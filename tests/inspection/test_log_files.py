"""Files as they are found: compressed, cut off, still being written, of another kind."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drpo.errors import ConfigError, DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers import json_file, json_records
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


def cut_zstd(file: Path) -> None:
    content = zstd_bytes((LINE + "\n").encode() * 10_000)
    file.write_bytes(content[: len(content) // 2])


def zstd_bytes(content: bytes) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="zstd needs pyarrow")
    return arrow.compress(content, codec="zstd", asbytes=True)


def as_torch(value: Any) -> Callable[[Path], Any]:
    return lambda file: torch.save(value, file)


class Opens:
    """What pickle would run."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


HOSTILE: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "log.jsonl",
        lambda f: f.write_text('{"logprobs": [], "prev_logprobs": [[]], "behavior_logprobs": [[]]}'),
        "lacks",
    ),
    (
        "log.jsonl",
        lambda f: f.write_text('{"logprobs": [[-1]], "behavior_logprobs": [-1, 2], "advantage": 1}'),
        "has 2",
    ),
    ("log.jsonl.gz", cut_gzip, "damaged or cut off"),
    ("log.jsonl.gz", lambda f: f.write_text(LINE + "\n"), "damaged or cut off"),
    ("log.jsonl.gz", lambda f: f.write_bytes(gzip.compress(b"")), "has no records"),
    ("log.jsonl.zst", cut_zstd, "damaged or cut off"),
    ("log.jsonl.zst", lambda f: f.write_text(LINE + "\n"), "damaged or cut off"),
    ("log.ndjson.zst", lambda f: f.write_bytes(zstd_bytes(b"")), "has no records"),
    ("log.json", lambda f: f.write_text(f"[{LINE}, 3]"), "record 2: an object is needed, got int"),
    ("log.json", lambda f: f.write_text("[]"), "has no records"),
    ("log.json", lambda f: f.write_text("3"), "holds int where a log is a list of records"),
    ("log.json", lambda f: f.write_text(f"[{LINE}"), "not JSON"),
    ("log.json", lambda f: f.write_text("[" * 100_000), "brackets are nested too deeply"),
    ("log.json", lambda f: f.write_text(f'[{LINE[:-1]}, "logprob": -3}}]'), "the key 'logprob' comes twice"),
    ("log.json", lambda f: f.write_text('{"logprobs": [[-1]], "step": [1, 2]}'), "'step' has 2 values where others"),
    ("log.json", lambda f: f.write_text('{"logprobs": [[-1]], "step": 1}'), "'step' is one value where others have 1"),
    ("log.json", lambda f: f.write_text(f"[{LINE.replace('-0.5', 'true')}]"), "record 1: logprob must be a number"),
    ("log.pt", lambda f: f.write_text(LINE), "was not loaded"),
    ("log.pt", lambda f: f.write_bytes(b"PK\x03\x04" + b"\0" * 90), "torch.load|was not loaded"),
    ("log.pt", lambda f: torch.save([Opens(f"{f}.run")], f), "was not loaded: it holds an object of io.open"),
    ("log.pt", lambda f: torch.save({"tokens": np.arange(3)}, f), "was not loaded: it holds an object of numpy"),
    ("log.pt", lambda f: pickle.dump([Opens(f"{f}.run")], f.open("wb")), "was not loaded"),
    ("log.pt", as_torch({"rollout_id": 0, "rollout_data": torch.zeros(3)}), "rollout_data must be a dict of columns"),
    ("log.pt", as_torch([{"logprobs": torch.zeros(2).to_sparse()}]), "sample 1: 'logprobs' must be a dense tensor"),
    ("log.pt", as_torch(torch.zeros(3)), "holds Tensor where a log is"),
    (
        "log.pt",
        as_torch({"rollout_id": 0, "samples": [{"tokens": [1, 2], "response_length": 1, "rollout_log_probs": [-1.0]}]}),
        "a rollout dump of slime, vime or miles.*--save-debug-train-data",
    ),
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
    if name.endswith(("parquet", "zst")):
        pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as error:
        look(tmp_path / name)
    assert not list(tmp_path.glob("*.run"))
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input has no records"),
        (b'{"x": 1}\n', "standard input, line 1 lacks the columns"),
        ((LINE + "\n").encode() + b"[]\n", "standard input, line 2: a JSON object is needed"),
        (
            b'{"logprobs": [-0.5], "behavior_logprobs": [-0.4], "reward": 1.0, "group_id": 0}\n',
            "standard input has no advantages.*Save it as a file",
        ),
    ],
)
def test_a_bad_standard_input_is_one_message(content: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(DataError, match=message):
        look(Path("-"))


def test_the_standard_input_is_read_once_and_not_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="given 2 times"):
        inspect([Path("-"), Path("-")])
    ours, theirs = os.openpty()
    with os.fdopen(ours), os.fdopen(theirs) as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", terminal)
        with pytest.raises(DataError, match="is a terminal"):
            look(Path("-"))


def test_zstd_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.jsonl.zst").write_bytes(zstd_bytes((LINE + "\n").encode()))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"\.zst needs pyarrow"):
        look(tmp_path / "log.jsonl.zst")


def test_a_json_file_of_one_object_a_line_is_read(tmp_path: Path, log: Log) -> None:
    assert look(write_jsonl(tmp_path / "log.json", log)).tokens == 1000


def test_a_json_document_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "LARGEST", 100)
    (tmp_path / "log.json").write_text("[" + ",\n".join([LINE] * 9) + "]")
    with pytest.raises(DataError, match=r"must be in memory at once.*\.jsonl"):
        look(tmp_path / "log.json")


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
