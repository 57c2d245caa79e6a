"""Each malformed log ends in one message that names the file, the place and the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.errors import ConfigError, DataError
from drpo.inspection.gate import Gate
from drpo.inspection.inspect import inspect
from drpo.inspection.steps import parse_steps
from support.synthetic_log import as_responses, make_log, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

LOG = make_log(tokens=200, length=20)
RESPONSES = as_responses(LOG)


def without(columns: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values for name, values in columns.items() if name not in names}


def changed(column: str, at: int, value: Any) -> dict[str, Any]:
    """Python lists, so that any value fits."""
    values = LOG[column].tolist()
    values[at] = value
    return {**{name: rows.tolist() for name, rows in LOG.items()}, column: values}


def cut(column: str, at: int = 3) -> dict[str, Any]:
    lists = [list(row) for row in RESPONSES[column]]
    lists[at] = lists[at][:-1]
    return {**RESPONSES, column: lists}


IN_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "no μ": (
        without(LOG, "behavior_logprob"),
        "lacks the column behavior_logprob .*rollout_log_probs.*docs/inspect.md",
    ),
    "two missing": (without(LOG, "logprob", "advantage"), "lacks the columns logprob, advantage"),
    "a near miss": ({**without(LOG, "advantage"), "advantge": LOG["advantage"]}, "Did you mean 'advantge'"),
    "no sequence": (without(LOG, "sequence_id"), "lacks the column sequence_id"),
    "strings": ({**LOG, "logprob": ["-0.1"] * 200}, "'logprob' must hold numbers, got string. Write it as float32"),
    "a step of text": ({**LOG, "step": ["one"] * 200}, "'step' must hold numbers, got string. Write it as int64"),
    "list beside scalars": ({**LOG, "behavior_logprob": [[-0.1]] * 200}, "must be one value a row, as 'logprob' is"),
    "scalar beside lists": ({**RESPONSES, "behavior_logprobs": [-0.1] * 10}, "must be a list, as 'logprobs' is"),
    "lengths": (cut("behavior_logprobs"), "row 4: behavior_logprob has 19 values where logprob has 20"),
    "lengths of tokens": (cut("tokens"), "row 4: token has 19 values where logprob has 20"),
    "null list": (
        {**RESPONSES, "behavior_logprobs": [*RESPONSES["behavior_logprobs"][:9], None]},
        "row 10: behavior_logprob is null where logprob has 20",
    ),
    "NaN advantage": (changed("advantage", 7, float("nan")), "row 8: advantage is nan.*needs a finite advantage"),
    "null advantage": (changed("advantage", 7, None), "row 8: advantage is nan"),
    "null sequence": (changed("sequence_id", 7, None), "row 8: sequence_id is null"),
    "null step": (changed("step", 7, None), "row 8: step is null"),
    "scattered": (changed("sequence_id", 150, 0), "row 151: .*sequence_id 0 comes a second time.*Sort the records"),
    "no rows": ({name: values[:0] for name, values in LOG.items()}, "has no rows"),
    "nothing usable": ({**LOG, "logprob": np.full(200, np.nan, dtype=np.float32)}, "no token has two usable"),
    "verl": (
        {"input": ["a"], "output": ["b"], "score": [1.0], "step": [1]},
        "verl rollout dump .*no log-probabilities.*rollout_log_probs",
    ),
    "TRL": (
        {"step": [1], "prompt": ["a"], "completion": ["b"], "advantage": [0.5]},
        "TRL's table of completions .*no log-probabilities.*sampling_per_token_logps",
    ),
}


@pytest.mark.parametrize("case", IN_PARQUET)
def test_parquet(tmp_path: Path, case: str) -> None:
    columns, message = IN_PARQUET[case]
    file = write_parquet(tmp_path / "log.parquet", columns)
    with pytest.raises(DataError, match=r"(?s)log\.parquet.*" + message):
        inspect([file])


def token(**changes: Any) -> dict[str, Any]:
    return {"logprob": -0.5, "behavior_logprob": -0.4, "advantage": 1.0, "sequence_id": 0, **changes}


def response(**changes: Any) -> dict[str, Any]:
    return {"logprobs": [-0.5, -1.0], "behavior_logprobs": [-0.4, -1.1], "advantage": 1.0, **changes}


IN_JSONL: dict[str, tuple[list[Any], str]] = {
    "no μ": ([without(token(), "behavior_logprob")], "line 1 lacks the column behavior_logprob"),
    "later line without": ([token(), without(token(), "logprob")], "line 2: no 'logprob', which the lines before have"),
    "a string": ([token(), token(logprob="-0.1")], "line 2: logprob must be a number, got '-0.1'"),
    "a boolean": ([token(), token(advantage=True)], "line 2: advantage must be a number, got True"),
    "a list among tokens": ([token(), token(logprob=[1])], r"line 2: logprob must be a number, got \[1\]"),
    "a number among lists": ([response(), response(logprobs=-0.5)], "line 2: logprobs must be a list"),
    "lengths": ([response(), response(behavior_logprobs=[-0.4])], "line 2: behavior_logprobs has 1 values where .* 2"),
    "null list": ([response(), response(behavior_logprobs=None)], "line 2: behavior_logprobs is null where"),
    "null advantage": ([response(), response(advantage=None)], "line 2: advantage must be a number"),
    "NaN advantage": ([response(), response(advantage=float("nan"))], "line 2: advantage is nan"),
    "null sequence": ([token(), token(sequence_id=None)], "line 2: sequence_id is null"),
    "scattered": ([token(), token(sequence_id=1), token()], "line 3: sequence_id 0 comes a second time"),
    "not an object": ([token(), [1]], "line 2: a JSON object is needed, got list"),
    "verl": ([{"input": "a", "output": "b", "gts": None, "score": 1.0, "step": 1}], "verl rollout dump"),
}


@pytest.mark.parametrize("case", IN_JSONL)
def test_jsonl(tmp_path: Path, case: str) -> None:
    records, message = IN_JSONL[case]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(DataError, match=r"(?s)log\.jsonl.*" + message):
        inspect([file])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def truncated(file: Path) -> None:
    write_parquet(file, LOG)
    file.write_bytes(file.read_bytes()[:-50])


def damaged_within(file: Path) -> None:
    write_parquet(file, LOG, write_page_checksum=True)
    content = bytearray(file.read_bytes())
    content[60:400] = b"\xff" * 340
    file.write_bytes(content)


FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("log.parquet", empty, r"empty \(0 bytes\)"),
    ("log.jsonl", empty, r"empty \(0 bytes\)"),
    ("log.jsonl", lambda file: file.write_text("\n\n"), "has no records"),
    (
        "log.jsonl",
        lambda file: file.write_text(json.dumps(token()) + '\n{"logprob": -0.\n'),
        r"line 2: not JSON .* at column 15\)",
    ),
    ("log.parquet", truncated, "cannot be read as Parquet .*cut off"),
    ("log.parquet", damaged_within, "is damaged|cannot be read as Parquet"),
    ("log.parquet", lambda file: file.write_text("logprob,advantage\n"), "cannot be read as Parquet"),
    (
        "log.csv",
        lambda file: file.write_text("logprob\n"),
        r"unknown ending '\.csv'\. Known: \.parquet, .* Convert it: ",
    ),
    ("log.parquet", lambda file: None, "does not exist"),
    ("log", lambda file: file.mkdir(), "holds neither a run nor token logs"),
]


@pytest.mark.parametrize(("name", "make", "message"), FILES, ids=[f"{name}: {what[:20]}" for name, _, what in FILES])
def test_files(tmp_path: Path, name: str, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as error:
        inspect([tmp_path / name])
    assert name in str(error.value)


def test_files_with_different_columns_are_not_mixed(tmp_path: Path) -> None:
    a = write_parquet(tmp_path / "a.parquet", LOG)
    b = write_parquet(tmp_path / "b.parquet", {**LOG, "entropy": np.ones(200, dtype=np.float32)})
    with pytest.raises(DataError, match=r"b\.parquet has the optional columns .*entropy"):
        inspect([a, b])


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "log.parquet", LOG)
    with pytest.raises(ConfigError, match="--delta must be a finite probability > 0, got -1"):
        inspect([file], delta=-1)
    with pytest.raises(ConfigError, match=r"unknown objective 'drop'\. Did you mean 'drpo'"):
        inspect([file], objectives=["drop"])


def test_options_that_name_nothing_list_what_there_is_once() -> None:
    with pytest.raises(ConfigError, match=r"no figure 'kl'\. Known: mismatch, shift\.$"):
        Gate.of(None, ["kl=0.1"], ["shift", "mismatch"])
    with pytest.raises(ConfigError, match=r"not FIRST:LAST.*7:7"):
        parse_steps("7")
