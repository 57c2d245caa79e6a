"""Tokens that a trainer masks are left out of every figure, under every name that a mask has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.errors import ConfigError, DataError
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.column_map import ColumnMap, parse_column_map
from drpo.inspection.readers.columns import resolve
from drpo.inspection.readers.masks import KEEPS
from support.synthetic_log import Log, as_responses, make_log, write_jsonl, write_parquet

pytest.importorskip("pyarrow", reason="Parquet logs need pyarrow")

pytestmark = pytest.mark.slow
OBJECTIVES = ["drpo", "dppo_tv"]


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(tokens=3000, drift=0.3)


def with_tool_output(log: Log, every: int = 3) -> tuple[Log, np.ndarray]:
    """The log with tool output of μ = 1 put between its tokens; and which tokens are the log's own."""
    kept = np.arange(len(log["logprob"]) * every // (every - 1)) % every != 0
    kept = kept[: np.flatnonzero(kept)[len(log["logprob"]) - 1] + 1]
    index = np.maximum(np.cumsum(kept) - 1, 0)
    longer = {name: values[index] for name, values in log.items()}
    longer["logprob"] = np.where(kept, longer["logprob"], -3).astype(np.float32)
    longer["behavior_logprob"] = np.where(kept, longer["behavior_logprob"], 0).astype(np.float32)
    return longer, kept


def write(file: Path, columns: dict[str, Any], lists: bool) -> Path:
    if file.suffix == ".parquet":
        return write_parquet(file, columns)
    if not lists:
        return write_jsonl(file, columns)
    rows = zip(*columns.values(), strict=True)
    file.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", [name for name in KEEPS if not name.startswith("sample")])
def test_every_mask_leaves_its_tokens_out_of_every_figure(tmp_path: Path, log: Log, name: str, ending: str) -> None:
    longer, kept = with_tool_output(log)
    lists = name.endswith("s")
    if lists:
        columns = as_responses({**longer, "mask": kept}) | {
            name: [kept[longer["sequence_id"] == i].tolist() for i in np.unique(longer["sequence_id"])]
        }
    else:
        columns = {**longer, name: kept}
    expected = inspect([write_parquet(tmp_path / "log.parquet", log)], objectives=OBJECTIVES)
    found = inspect([write(tmp_path / f"masked.{ending}", columns, lists)], objectives=OBJECTIVES)
    assert found.masks == [name] and found.masked_tokens == (~kept).sum()
    assert found.tokens == expected.tokens and [f.name for f in found.findings] == [f.name for f in expected.findings]
    assert found.figures == pytest.approx(expected.figures)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_several_masks_keep_what_all_of_them_keep_and_it_is_said(tmp_path: Path, log: Log, ending: str) -> None:
    longer, kept = with_tool_output(log)
    half = np.arange(len(kept)) % 2 == 0
    masks = {"completion_mask": (kept | half).astype(np.int64), "tool_mask": (kept | ~half).astype(np.int64)}
    found = inspect([write(tmp_path / f"log.{ending}", {**longer, **masks}, False)], objectives=OBJECTIVES)
    assert found.tokens == len(log["logprob"]) and found.masks == ["completion_mask", "tool_mask"]
    (note,) = [finding for finding in found.findings if finding.name == "masks"]
    assert note.severity == "note" and "completion_mask, tool_mask" in note.title


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_mask_of_whole_responses(tmp_path: Path, log: Log, ending: str) -> None:
    columns = as_responses(log)
    keep = [i % 3 != 0 for i in range(len(columns["logprobs"]))]
    found = inspect(
        [write(tmp_path / f"log.{ending}", {**columns, "sample_mask": [float(k) for k in keep]}, True)],
        objectives=OBJECTIVES,
    )
    assert found.sequences == sum(keep) and found.masked_tokens == 50 * (len(keep) - sum(keep))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "name",
    [
        "kl_mask",
        "Loss_Mask",
        "lossMask",
        "MASK",
        "truncated_masks",
        "is_pad_masked",
        "mask_2",
        "attention_mask",
        "prompt_mask",
        "is_pad",
        "isPromptToken",
    ],
)
def test_a_column_that_may_be_a_mask_is_asked_about(tmp_path: Path, log: Log, name: str, ending: str) -> None:
    longer, kept = with_tool_output(log)
    file = write(tmp_path / f"log.{ending}", {**longer, name: kept.astype(np.int64)}, False)
    with pytest.raises(DataError, match=rf"{name}.*--map mask={name}.*--map mask=none"):
        inspect([file])
    kept_only = inspect([file], objectives=OBJECTIVES, columns=parse_column_map([f"mask={name}"]))
    assert kept_only.tokens == len(log["logprob"])
    everything = inspect([file], objectives=OBJECTIVES, columns=parse_column_map(["mask=none"]))
    assert everything.tokens == len(kept) and everything.masks == []


def test_a_question_names_the_known_masks_as_well() -> None:
    with pytest.raises(DataError, match=r"--map mask=loss_mask\+ratio_mask; .*--map mask=loss_mask\."):
        resolve(["logprob", "behavior_logprob", "advantage", "loss_mask", "ratio_mask"], "log")


def test_padding_and_verdicts_need_no_question_beside_a_mask() -> None:
    names = ["logprobs", "behavior_logprobs", "advantages", "response_mask", "attention_mask", "is_masked_high"]
    assert resolve(names, "log") == {
        "logprob": "logprobs",
        "behavior_logprob": "behavior_logprobs",
        "advantage": "advantages",
        "mask.0": "response_mask",
    }


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_mask_with_holes_is_refused(tmp_path: Path, log: Log, ending: str) -> None:
    mask = [1] * 3000
    mask[7] = None  # type: ignore[call-overload]
    columns = {name: values.tolist() for name, values in log.items()} | {"loss_mask": mask}
    if ending == "jsonl":
        rows = zip(*columns.values(), strict=True)
        file = tmp_path / "log.jsonl"
        file.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        file = write_parquet(tmp_path / "log.parquet", columns)
    with pytest.raises(DataError, match="8: loss_mask must be 0 or 1"):
        inspect([file])


def test_a_file_whose_tokens_are_all_masked_may_lack_every_value(tmp_path: Path) -> None:
    """As one rank's file of several: Arrow gives its lists of nulls the type null."""
    trained = {
        "logprobs": [[-0.5, -1.0]],
        "behavior_logprobs": [[-0.4, -1.1]],
        "advantages": [[1.0, 1.0]],
        "loss_mask": [[1, 1]],
    }
    files = [write_parquet(tmp_path / "0.parquet", trained)]
    others = {**trained, "advantages": [[None, None]], "loss_mask": [[0, 0]]}
    files.append(write_parquet(tmp_path / "1.parquet", others))
    found = inspect(files, objectives=["drpo"])
    assert (found.tokens, found.sequences, found.masked_tokens) == (2, 1, 2)
    for name, message in (("loss_mask", "row 1: loss_mask must be 0 or 1"), ("step", "row 1: step is null")):
        with pytest.raises(DataError, match=message):
            inspect([write_parquet(tmp_path / "2.parquet", {**trained, name: [[None, None]]})])


def test_a_mask_that_comes_later_is_refused(tmp_path: Path) -> None:
    token = {"logprob": -0.5, "behavior_logprob": -0.4, "advantage": 1.0, "sequence_id": 0}
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps(token) + "\n" + json.dumps({**token, "loss_mask": 0}) + "\n")
    with pytest.raises(DataError, match="line 2: the column 'loss_mask' is not in the lines before"):
        inspect([file])


def test_a_mask_that_leaves_nothing_out_of_it(tmp_path: Path, log: Log) -> None:
    file = write_parquet(tmp_path / "log.parquet", {**log, "loss_mask": np.zeros(3000, dtype=np.int64)})
    with pytest.raises(DataError, match=r"3,000 tokens.*loss_mask.*--map mask="):
        inspect([file])


def test_what_a_map_may_say() -> None:
    assert parse_column_map(["logprob=a,behavior_logprob=b", "mask=c+d, step=none"]) == ColumnMap(
        {"logprob": ("a",), "behavior_logprob": ("b",), "mask": ("c", "d"), "step": ()}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logprob", "is not COLUMN=NAME"),
        ("=x", "unknown column ''"),
        ("logprobs=x", "unknown column 'logprobs'"),
        ("lp=logprob", "the wrong way round. Write --map logprob=lp"),
        ("mask=a,mask=b", "names mask twice"),
        ("logprob=a,advantage=a", "one name for two columns"),
        ("logprob=none", "logprob cannot be none"),
        ("mask=", "is not COLUMN=NAME"),
        ("", "is not COLUMN=NAME"),
    ],
)
def test_a_map_that_makes_no_sense(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_column_map([text])


@pytest.mark.parametrize("column", ["logprob", "mask"])
def test_a_mapped_column_must_be_there(column: str) -> None:
    with pytest.raises(DataError, match=f"no column 'absent', which --map gives for {column}"):
        resolve(["logprob", "behavior_logprob", "advantage"], "log", parse_column_map([f"{column}=absent"]))
