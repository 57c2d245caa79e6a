"""Data as people have it: every file format and layout gives the same problems; what cannot be read says why."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import ConfigError, DataError
from drpo.tasks import Example, make_task
from drpo.tasks.kinds.jsonl import JsonlTask
from drpo.tasks.records.fields import number_text
from drpo.train.solve_rates import filtered_record

pa = pytest.importorskip("pyarrow", reason="pip install -e '.[math]'")
from pyarrow import parquet  # noqa: E402

RECORDS = [{"prompt": f"{i} plus {i}, é?", "answer": str(2 * i)} for i in range(12)]
WANTED = {(record["prompt"], record["answer"]) for record in RECORDS}


def jsonl(records: Any = RECORDS) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def csv_bytes(separator: str = ",", line: str = "\r\n") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["prompt", "answer"], delimiter=separator, lineterminator=line)
    writer.writeheader()
    writer.writerows(RECORDS)
    return stream.getvalue().encode()


def table(*kinds: Any, records: Any = RECORDS) -> Any:
    """The records as a table whose columns have these Arrow types."""
    columns = {}
    for name, kind in zip(("prompt", "answer"), kinds or (pa.string(), pa.string()), strict=True):
        values = [record[name] for record in records]
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
        columns[name] = pa.array([value.encode() for value in values] if binary else values, kind)
    return pa.table(columns)


def parquet_bytes(written: Any) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(written, stream)
    return stream.getvalue()


def arrow_bytes(written: Any, file: bool) -> bytes:
    stream = io.BytesIO()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(stream, written.schema) as writer:
        writer.write_table(written, max_chunksize=5)
    return stream.getvalue()


def zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


FILES: dict[str, Callable[[], bytes]] = {
    "a.jsonl": jsonl,
    "a": jsonl,
    "no end.jsonl": lambda: jsonl().rstrip(b"\n"),
    "windows.jsonl": lambda: jsonl().replace(b"\n", b"\r\n\r\n"),
    "mark.jsonl": lambda: b"\xef\xbb\xbf" + jsonl(),
    "utf-16.jsonl": lambda: jsonl().decode().encode("utf-16"),
    "utf-32.csv": lambda: csv_bytes().decode().encode("utf-32"),
    "array.json": lambda: json.dumps(RECORDS).encode(),
    "lines.json": jsonl,
    "pretty.json": lambda: b"\n\n" + json.dumps(RECORDS, indent=2).encode(),
    "marked.json": lambda: b"\xef\xbb\xbf" + json.dumps(RECORDS).encode(),
    "array.jsonl": lambda: json.dumps(RECORDS, indent=1).encode(),
    "a.jsonl.gz": lambda: gzip.compress(jsonl()),
    "two parts.jsonl.gz": lambda: gzip.compress(jsonl(RECORDS[:5])) + gzip.compress(jsonl(RECORDS[5:])),
    "not compressed any more.jsonl.gz": jsonl,
    "array.json.gz": lambda: gzip.compress(json.dumps(RECORDS).encode()),
    "a.jsonl.zst": lambda: zst(jsonl()),
    "two parts.jsonl.zst": lambda: zst(jsonl(RECORDS[:5])) + zst(jsonl(RECORDS[5:])),
    "wrong name.jsonl": lambda: zst(jsonl()),
    "a.jsonl.bz2": lambda: bz2.compress(jsonl()),
    "a.jsonl.xz": lambda: lzma.compress(jsonl()),
    "a.csv": csv_bytes,
    "marked.csv": lambda: b"\xef\xbb\xbf" + csv_bytes(),
    "A.CSV.GZ": lambda: gzip.compress(csv_bytes()),
    "a.csv.zst": lambda: zst(csv_bytes()),
    "semicolons.csv": lambda: csv_bytes(";").replace(b"plus", b"plus"),
    "a.tsv": lambda: csv_bytes("\t", "\n"),
    "a.parquet": lambda: parquet_bytes(table()),
    "a.bin": lambda: parquet_bytes(table()),
    "a.parquet.gz": lambda: gzip.compress(parquet_bytes(table())),
    "a.arrow": lambda: arrow_bytes(table(), file=True),
    "stream.arrow": lambda: arrow_bytes(table(), file=False),
    "a.feather.zst": lambda: zst(arrow_bytes(table(), file=True)),
}
TYPES = {
    "large strings": (pa.large_string(), pa.large_string()),
    "views": (pa.string_view(), pa.string_view()),
    "binary": (pa.binary(), pa.large_binary()),
    "dictionaries": (pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string())),
}


def examples(task: Any) -> list[Example]:
    return [*task.training_examples(), *task.heldout_examples(10_000)]


def everything(task: Any) -> set[tuple[str, str]]:
    return {(e.prompt, e.answer) for e in examples(task)}


@pytest.mark.parametrize("name", FILES)
def test_file_formats(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name]())
    assert everything(JsonlTask(path=file)) == WANTED
    assert everything(make_task("math", path=str(file), prompt_style="bare")) == WANTED


@pytest.mark.parametrize("kinds", TYPES)
def test_column_types(kinds: str, tmp_path: Path) -> None:
    for name, data in (
        ("a.parquet", parquet_bytes(table(*TYPES[kinds]))),
        ("a.arrow", arrow_bytes(table(*TYPES[kinds]), file=False)),
    ):
        (tmp_path / name).write_bytes(data)
        assert everything(JsonlTask(path=tmp_path / name)) == WANTED


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.list_(pa.string(), 1),
        pa.large_list(pa.string_view()),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.binary()),
    ],
)
def test_lists_of_every_arrow_type(kind: Any, tmp_path: Path) -> None:
    answers: Any = [[record["answer"]] for record in RECORDS]
    column = pa.array(
        [[a.encode() for a in items] for items in answers] if kind.value_type == pa.binary() else answers, kind
    )
    written = pa.table({"prompt": [record["prompt"] for record in RECORDS], "answer": column})
    (tmp_path / "a.arrow").write_bytes(arrow_bytes(written, file=True))
    assert everything(JsonlTask(path=tmp_path / "a.arrow")) == WANTED
    try:
        data = parquet_bytes(written)
    except pa.ArrowException:
        return  # a type that this pyarrow cannot put into Parquet
    (tmp_path / "a.parquet").write_bytes(data)
    assert everything(JsonlTask(path=tmp_path / "a.parquet")) == WANTED


def test_a_saved_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install datasets")
    made = datasets.Dataset.from_list(RECORDS)
    made.save_to_disk(tmp_path / "one", num_shards=3)
    assert everything(JsonlTask(path=tmp_path / "one")) == WANTED
    assert everything(make_task("math", path=str(tmp_path / "one"), prompt_style="bare")) == WANTED
    datasets.DatasetDict(train=made, test=made).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"several data sets .*test, train\. Name one"):
        JsonlTask(path=tmp_path / "both")
    assert everything(JsonlTask(path=tmp_path / "both" / "train")) == WANTED
    with pytest.raises(DataError, match="Give path="):
        make_task("math", dataset=str(tmp_path / "one"))
    (tmp_path / "one" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(DataError, match="data-00001"):
        JsonlTask(path=tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text('{"_data_files": [{"filename": "../../etc/passwd"}]}')
    with pytest.raises(DataError, match="outside its folder"):
        JsonlTask(path=tmp_path / "one")


USER = {"role": "user", "content": "p"}
SHOT = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
PROMPTS: dict[str, tuple[Any, str, int]] = {
    "a string": ("p", "p", 0),
    "a user's turn": ([USER], "p", 0),
    "a single message": (USER, "p", 0),
    "a system's turn": ([{"role": "system", "content": "s"}, USER], "s\n\np", 0),
    "few-shot turns": ([*SHOT, USER], "1+1\n\n2\n\np", 3),
    "a system's turn and few-shot turns": (
        [{"role": "developer", "content": "s"}, *SHOT, USER],
        "s\n\n1+1\n\n2\n\np",
        4,
    ),
    "content parts": (
        [{"role": "user", "content": [{"type": "text", "text": "p"}, {"type": "text", "text": "q"}]}],
        "pq",
        0,
    ),
    "messages as JSON in a text": (json.dumps([*SHOT, USER]), "1+1\n\n2\n\np", 3),
    "a text that only begins like it": ('[{"role" p', '[{"role" p', 0),
    "parts of strings": ([{"role": "user", "content": ["p", "q"]}], "pq", 0),
    "from and value": (
        [{"from": "human", "value": "1+1"}, {"from": "gpt", "value": "2"}, {"from": "human", "value": "p"}],
        "1+1\n\n2\n\np",
        3,
    ),
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(name: str, kind: str, tmp_path: Path) -> None:
    value, text, turns = PROMPTS[name]
    mixed = kind == "parquet" and isinstance(value, list) and isinstance(value[0].get("content"), list)
    if mixed and isinstance(value[0]["content"][0], str):
        value = [{"role": "user", "content": [str(part) for part in value[0]["content"]]}]
    file = tmp_path / f"a.{kind}"
    other = value.replace("p", "x") if isinstance(value, str) else json.loads(json.dumps(value).replace('"p"', '"x"'))
    records = [{"prompt": value, "answer": "1"}, {"prompt": other, "answer": "2"}]
    file.write_bytes(jsonl(records) if kind == "jsonl" else parquet_bytes(pa.Table.from_pylist(records)))
    for task in (JsonlTask(path=file), make_task("math", path=str(file), prompt_style="bare")):
        found = {e.answer: e for e in examples(task)}
        assert found["1"].prompt == text and len(found["1"].turns) == turns
        if turns:
            assert found["1"].turns[-1] == USER and found["1"].turns[-2]["role"] == "assistant"


def test_the_instruction_of_a_conversation_stands_in_its_last_turn(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(jsonl([{"prompt": [*SHOT, {"role": "user", "content": f"{i}+1"}], "answer": i} for i in range(5)]))
    (example,) = make_task("math", path=str(file)).heldout_examples(1)
    assert [turn["role"] for turn in example.turns] == ["user", "assistant", "user"]
    assert example.turns[0]["content"] == "1+1" and r"\boxed{}" in example.turns[-1]["content"]
    (plain,) = make_task("math", path=str(file), prompt_style="base").heldout_examples(1)
    assert plain.turns == () and plain.prompt.startswith("Problem:\n1+1\n\n2\n\n")


LAYOUTS = {
    "question without a mark": ({"question": "p", "answer": "5 apples"}, "5 apples"),
    "question with a mark": ({"question": "p", "answer": "2 + 3 = 5\n#### 1,005"}, "1005"),
    "final answer": ({"question": "p", "final_answer": "5"}, "5"),
    "expected answer": ({"problem": "p", "expected_answer": 5, "generated_solution": "…"}, "5"),
    "ground truth": ({"prompt": [USER], "ground_truth": "5"}, "5"),
    "messages": ({"messages": [USER], "ground_truth": "5", "dataset": "MATH"}, "5"),
    "reward model": ({"prompt": [USER], "reward_model": {"ground_truth": ["5"], "style": "rule"}}, "5"),
    "label": ({"prompt": "p", "label": "5"}, "5"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, tmp_path: Path) -> None:
    record, answer = LAYOUTS[name]
    other = json.loads(json.dumps(record).replace('"p"', '"x"'))
    (tmp_path / "a.jsonl").write_bytes(jsonl([record, other]))
    assert everything(JsonlTask(path=tmp_path / "a.jsonl")) == {("p", answer), ("x", answer)}
    task = make_task("math", path=str(tmp_path / "a.jsonl"), prompt_style="bare")
    assert everything(task) == {("p", answer), ("x", answer)}


def test_several_files_of_different_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(RECORDS[:5]))
    questions = [{"question": record["prompt"], "answer": record["answer"]} for record in RECORDS[5:]]
    (tmp_path / "b.parquet").write_bytes(parquet_bytes(pa.Table.from_pylist(questions)))
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.parquet")]
    assert everything(JsonlTask(path=paths)) == WANTED
    assert everything(make_task("math", path=paths, prompt_style="bare")) == WANTED


def test_what_filter_writes_reads_as_the_same_problem(tmp_path: Path) -> None:
    turns = [*SHOT, USER]
    records = [{"prompt": turns, "answer": ["5", "five"]}, {"prompt": "q", "answer": 7}]
    (tmp_path / "a.jsonl").write_bytes(jsonl(records))
    for name in ("jsonl", "math"):
        before = examples(make_task(name, path=str(tmp_path / "a.jsonl")))
        (tmp_path / "b.jsonl").write_bytes(jsonl([filtered_record(example, 4, 2) for example in before]))
        after = examples(make_task(name, path=str(tmp_path / "b.jsonl")))
        assert [repr(e) for e in after] == [repr(e) for e in before] and any(e.turns for e in after)


def test_named_columns(tmp_path: Path) -> None:
    records = [
        {"text": f"p{i}", "extra": {"solution": {"value": i}}, "a.b": str(i), "prompt": "-", "answer": "-"}
        for i in range(4)
    ]
    (tmp_path / "a.jsonl").write_bytes(jsonl(records))
    path = str(tmp_path / "a.jsonl")
    for answer in ("extra.solution.value", "a.b"):
        columns: Any = {"prompt_column": "text", "answer_column": answer}
        wanted = {(f"p{i}", str(i)) for i in range(4)}
        assert everything(JsonlTask(path=path, **columns)) == wanted
        assert everything(make_task("math", path=path, prompt_style="bare", **columns)) == wanted
    assert everything(JsonlTask(path=path, prompt_column="text")) == {(f"p{i}", "-") for i in range(4)}
    with pytest.raises(DataError, match=r"line 1: no column 'extra.x'; its columns are 'text', 'extra'"):
        JsonlTask(path=path, prompt_column="text", answer_column="extra.x")
    (tmp_path / "b.jsonl").write_bytes(jsonl([{"text": "x"}]))
    with pytest.raises(DataError, match=r"none of the columns 'text' .* an answer. Name it with task.answer_column"):
        JsonlTask(path=tmp_path / "b.jsonl", prompt_column="text")
    with pytest.raises(ConfigError, match="layout would be ignored"):
        make_task("math", path=path, layout="aime", prompt_column="text")


def test_any_of_several_answers_is_right(tmp_path: Path) -> None:
    records = [{"prompt": f"p{i}", "answer": ["five", "5", "five"]} for i in range(3)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(records))
    task = JsonlTask(path=tmp_path / "a.jsonl")
    example = task.training_example(0, 0)
    assert example.answer == "five" and list(example.answers) == ["five", "5"]
    assert [task.reward(example, text) for text in ("Five", "5.0", "6")] == [1.0, 1.0, 0.0]
    (tmp_path / "b.jsonl").write_bytes(jsonl([{"problem": f"p{i}", "answer": [1, r"\frac{1}{2}"]} for i in range(3)]))
    task = make_task("math", path=str(tmp_path / "b.jsonl"))
    example = task.training_example(0, 0)
    assert [task.reward(example, rf"\boxed{{{x}}}") for x in ("1", "0.5", "2")] == [1.0, 1.0, 0.0]
    assert Example("p", "a").answers == ("a",)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e16, "1" + "0" * 16),
        (5.0, "5"),
        (1e-05, "0.00001"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (2, "2"),
        (1e300, "1" + "0" * 300),
        (1234567.5, "1234567.5"),
        (1e22, "1" + "0" * 22),
        (123456789012345680.0, "123456789012345680"),
    ],
)
def test_numbers_are_written_out(value: float, text: str, tmp_path: Path) -> None:
    assert number_text(value) == text
    records = [{"prompt": f"p{i}", "answer": value} for i in range(2)]
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(pa.Table.from_pylist(records)))
    (tmp_path / "a.jsonl").write_bytes(jsonl(records))
    for name in ("a.parquet", "a.jsonl"):
        for task in (JsonlTask(path=tmp_path / name), make_task("math", path=str(tmp_path / name))):
            assert {e.answer for e in examples(task)} == {text}


def test_a_float_column_of_half_the_width_gives_what_was_meant(tmp_path: Path) -> None:
    for kind in (pa.float32(), pa.float16()):
        written = pa.table({"prompt": ["a", "b"], "answer": pa.array([0.1, 0.1], pa.float32()).cast(kind)})
        (tmp_path / "a.parquet").write_bytes(parquet_bytes(written))
        assert {answer for _, answer in everything(JsonlTask(path=tmp_path / "a.parquet"))} == {"0.1"}
    nested = pa.table(
        {
            "prompt": ["a", "b"],
            "reward_model": pa.array([{"ground_truth": 0.1}] * 2, pa.struct([("ground_truth", pa.float32())])),
        }
    )
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(nested))
    assert {answer for _, answer in everything(JsonlTask(path=tmp_path / "a.parquet"))} == {"0.1"}


def test_scientific_notation_is_graded_as_the_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("problem,answer\nx,1e+16\ny,1e+16\n")
    task = make_task("math", path=str(tmp_path / "a.csv"))
    example = task.training_example(0, 0)
    assert [task.reward(example, rf"\boxed{{{x}}}") for x in ("10^{16}", "e+16", "nan")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True, {"a": 1}])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("task", ["jsonl", "math"])
def test_answers_that_no_response_can_give_name_file_and_row(value: Any, kind: str, task: str, tmp_path: Path) -> None:
    records = [
        {"prompt": "a", "answer": 1.0 if isinstance(value, float | None) else value},
        {"prompt": "b", "answer": value},
    ]
    (tmp_path / f"a.{kind}").write_bytes(
        jsonl(records) if kind == "jsonl" else parquet_bytes(pa.Table.from_pylist(records))
    )
    row = r"line [12]" if kind == "jsonl" else "row [12]"
    with pytest.raises(DataError, match=rf"a\.{kind}, {row}: 'answer' (is (nan|inf)|must be a string or a number)"):
        make_task(task, path=str(tmp_path / f"a.{kind}"))


def test_what_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    text = "".join(
        f'{{"prompt": "p{i}", "answer": {i}, "score": NaN, "big": {"9" * 6000}, "x": -Infinity}}\n' for i in range(3)
    )
    (tmp_path / "a.jsonl").write_text(text)
    assert len(everything(JsonlTask(path=tmp_path / "a.jsonl"))) == 3
    odd = pa.table(
        {
            "prompt": ["a", "b"],
            "answer": ["1", "2"],
            "when": pa.array([2**61, 1], pa.timestamp("us")),
            "blob": pa.array([b"\xff", b"\x00"], pa.binary()),
            "score": [float("nan"), None],
            "none": pa.nulls(2),
            "map": pa.array([[("a", 1), ("a", 2)]] * 2, pa.map_(pa.string(), pa.int8())),
        }
    )
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(odd))
    assert everything(JsonlTask(path=tmp_path / "a.parquet")) == {("a", "1"), ("b", "2")}
    with pytest.raises(DataError, match=r"row 1: column 'when' .* cannot be read"):
        JsonlTask(path=tmp_path / "a.parquet", answer_column="when")


REFUSED: dict[str, tuple[bytes, str]] = {
    "cut.jsonl.gz": (gzip.compress(jsonl())[:-30], "damaged or cut off"),
    "cut.jsonl.zst": (zst(jsonl())[:-10], "damaged or cut off"),
    "cut.jsonl.xz": (lzma.compress(jsonl())[:-10], "damaged or cut off"),
    "broken.jsonl.gz": (b"\x1f\x8b\x08\x00junkjunkjunk", "damaged or cut off"),
    "a.zip": (b"PK\x03\x04rest", "ZIP archive"),
    "lfs.parquet": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "page.jsonl": (b"<!DOCTYPE html><html></html>", "web page"),
    "cut.parquet": (parquet_bytes(table())[:-60], "cannot be read as Parquet"),
    "empty.parquet": (b"", "cannot be read as Parquet"),
    "names.arrow": (arrow_bytes(table(), file=True).replace(b"answer", b"\xffnswer"), "cannot be read as Arrow"),
    "cut.arrow": (arrow_bytes(table(), file=True)[:-60], "cannot be read as Arrow"),
    "columns.json": (b'{"prompt": {"0": "a"}, "answer": {"0": "b"}}', "one JSON object .*orient='records'"),
    "wrapped.json": (json.dumps({"data": RECORDS}).encode(), r"one JSON object \(of 'data'\)"),
    "object.json": (json.dumps({"train": RECORDS}, indent=1).encode(), r"one JSON object \(of 'train'\)"),
    "numbers.json": (b"[1, 2]", "record 1: a JSON object is needed, got a number"),
    "open.json": (b'[{"prompt": "a"', "not JSON"),
    "latin.csv": (b"prompt,answer\ncaf\xe9,1\nb,2\n", r"line 2: not UTF-8 \(byte 0xe9\)"),
    "ragged.csv": (b"prompt,answer\na,1\nb,2,3\n", r"row 2 \(line 3\): 3 fields, and the header has 2"),
    "twice.csv": (b"prompt,answer,answer\na,1,2\n", "two columns of the header"),
    "header.csv": (b"prompt,answer\n", "holds no problem"),
    "empty field.csv": (b"prompt,answer\na,1\nb,\n", "row 2 .*'answer' is empty"),
    "names twice.parquet": (
        parquet_bytes(pa.table([["a", "b"], ["1", "2"], ["3", "4"]], names=["prompt", "answer", "answer"])),
        "2 columns are named 'answer'",
    ),
    "image.jsonl": (
        jsonl([{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "answer": "1"}]),
        "a part of type 'image'; only text",
    ),
    "answered.jsonl": (jsonl([{"prompt": SHOT, "answer": "1"}]), "end with a user's turn"),
    "tool.jsonl": (jsonl([{"prompt": [{"role": "tool", "content": "x"}, USER], "answer": "1"}]), "role 'tool'; known"),
    "late.jsonl": (
        jsonl([{"prompt": [USER, {"role": "system", "content": "x"}, USER], "answer": "1"}]),
        "system's turn that is not the first",
    ),
    "null.jsonl": (jsonl([{"prompt": [{"role": "user", "content": None}], "answer": "1"}]), "content is null"),
    "bytes.parquet": (
        parquet_bytes(pa.table({"prompt": pa.array([b"\xff"], pa.binary()), "answer": ["1"]})),
        "got bytes that are not UTF-8",
    ),
    "date.parquet": (parquet_bytes(pa.table({"prompt": ["a"], "answer": pa.array([1], pa.date32())})), "got a date"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_says_why(name: str, tmp_path: Path) -> None:
    data, message = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        JsonlTask(path=tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(jsonl())
    with pytest.raises(DataError, match=r"no saved data set .*In it: train\.jsonl"):
        JsonlTask(path=tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        JsonlTask(path="a\x00b")
