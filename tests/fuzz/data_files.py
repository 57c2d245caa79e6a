"""Data files in every format and layout, whole and damaged, through the constructors of the tasks that read them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from drpo.tasks import Example, make_task
from fuzz.outcomes import outcome

UNITS = 10

_KEYS = [
    "prompt",
    "answer",
    "question",
    "problem",
    "messages",
    "ground_truth",
    "reward_model",
    "Problem",
    "Answer",
    "label",
    "final_answer",
    "expected_answer",
    "a.b",
    "",
    "\u202e",
    "prompt ",
    "x" * 3000,
]
_TEXTS = [
    "2 + 2 = ?",
    "4",
    "#### 4",
    "é漢𝔸",
    "",
    " ",
    "nan",
    "1e+16",
    "\ud83d",
    "\x00",
    "{problem}",
    "%s {0} {",
    "<answer>4",
    r"\boxed{4}",
    "Solve the following math problem. Answer: $Answer\n\nx",
    "x" * 20_000,
    "a\r\nb",
    '"',
    "1,2;3\t4",
    "\u2028",
]
_NUMBERS: list[Any] = [0, 4, -1, 5.0, 0.1, 1e16, 1e-5, 1e300, 5e-324, float("nan"), float("inf"), 2**70, True, None]
_RAW = [
    "1e999999999",
    "9" * 5000,
    "-0",
    "0." + "1" * 3000,
    "NaN",
    "-Infinity",
    "1E400",
    "[" * 3000,
    '{"a":' * 3000,
    "tru",
]


def run_case(seed: int, folder: Path) -> str | None:
    """``UNITS`` files."""
    random_ = random.Random(f"data {seed}")
    for unit in range(UNITS):
        file = make_file(random_, folder, unit)
        for task in ("jsonl", "math"):
            parameters: dict[str, Any] = {"path": str(file)}
            if random_.random() < 0.3:
                parameters |= {"prompt_column": _key(random_), "answer_column": random_.choice([_key(random_), "a.b"])}
            if task == "math":
                parameters |= {"prompt_style": random_.choice(("instruct", "base", "bare"))}
            problem = _read(task, parameters)
            if problem is not None:
                return f"unit {unit}, {task} {parameters}: {problem}"
    return None


def _read(name: str, parameters: dict[str, Any]) -> str | None:
    task, error, problem = outcome(lambda: make_task(name, **parameters))
    if error is not None:
        return (
            None
            if Path(parameters["path"]).name in str(error) or "must be the name" in str(error)
            else (f"a message that does not name the file: {error}")
        )
    if problem is not None:
        return problem
    examples: list[Example] = [*task.training_examples(), *task.heldout_examples(100)]
    sides = [{e.prompt for e in task.training_examples()}, {e.prompt for e in task.heldout_examples(10**6)}]
    if sides[0] & sides[1]:
        return "a prompt on both sides"
    for example in examples:
        bad = [text for text in (example.prompt, *example.answers) if not isinstance(text, str) or not text.strip()]
        if bad or any(not isinstance(turn["content"], str) for turn in example.turns):
            return f"an example without a prompt or an answer: {example!r:.300}"
        (example.prompt + "".join(example.answers)).encode()
        if any(answer.lower() in ("nan", "inf", "-inf") for answer in example.answers) and name == "math":
            return f"an answer that no response can give: {example.answers}"
    return None


def make_file(random_: random.Random, folder: Path, unit: int) -> Path:
    """A file of records, whole or damaged."""
    records = _records(random_)
    kinds: dict[str, Callable[[], bytes]] = {
        "jsonl": lambda: _jsonl(records, random_),
        "json": lambda: _json(records, random_),
        "csv": lambda: _csv(records, random_.choice(",;\t")),
        "tsv": lambda: _csv(records, "\t"),
        "parquet": lambda: _parquet(records, random_),
        "arrow": lambda: _arrow(records, random_),
    }
    kind = random_.choice([*kinds])
    data = kinds[kind]()
    if random_.random() < 0.1:
        encoding = random_.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1"))
        data = data.decode("utf-8", "replace").encode(encoding, "replace")
    damage = random_.random()
    if damage < 0.3:
        data = _damaged(data, random_)
    packed, suffix = _packed(data, random_)
    if 0.3 < damage < 0.45:
        packed = _damaged(packed, random_)
    ending = random_.choice((kind, kind, kind, "bin", "json"))
    file = folder / f"{unit} {random_.choice(('a', '[x]', 'é'))}.{ending}{suffix}"
    if random_.random() < 0.05:
        file.mkdir()
        (file / "state.json").write_bytes(
            random_.choice(
                (
                    b'{"_data_files": [{"filename": "d.arrow"}]}',
                    b"{}",
                    b"[",
                    b'{"_data_files": [{"filename": "../x"}]}',
                    b'{"_data_files": 3}',
                    b'{"_data_files": [{"filename": 3}]}',
                    b'{"_data_files": []}',
                )
            )
        )
        (file / "d.arrow").write_bytes(data)
        return file
    file.write_bytes(packed)
    return file


def _packed(data: bytes, random_: random.Random) -> tuple[bytes, str]:
    pack: Callable[[bytes], bytes]
    pack, suffix = random_.choice(
        [
            *[(bytes, "")] * 5,
            (gzip.compress, ".gz"),
            (bz2.compress, ".bz2"),
            (lzma.compress, ".xz"),
            (lambda given: pa.compress(given, codec="zstd", asbytes=True), ".zst"),
        ]
    )
    return pack(data), suffix


def _damaged(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 3, 20))):
        if not changed:
            break
        place = random_.randrange(len(changed))
        how = random_.randrange(4)
        if how == 0:
            changed[place] = random_.randrange(256)
        elif how == 1:
            del changed[place : place + random_.choice((1, 10, len(changed)))]
        elif how == 2:
            changed[place:place] = random_.randbytes(random_.choice((1, 4, 100)))
        else:
            changed[place:place] = changed[: random_.randrange(200)]
    return bytes(changed)


def _key(random_: random.Random) -> str:
    return random_.choice(_KEYS[:8] if random_.random() < 0.8 else _KEYS)


def _records(random_: random.Random) -> list[dict[str, Any]]:
    if random_.random() < 0.5:  # a layout that fits, with a value now and then that does not
        prompt, answer = random_.choice(
            (
                ("prompt", "answer"),
                ("question", "answer"),
                ("problem", "answer"),
                ("messages", "ground_truth"),
                ("prompt", "reward_model"),
            )
        )
        kind = random_.randrange(4)
        return [
            {
                prompt: _prompt(random_, i, kind) if random_.random() < 0.97 else _value(random_),
                answer: _answer(random_, answer) if random_.random() < 0.97 else _value(random_),
                **({"extra": _value(random_)} if random_.random() < 0.1 else {}),
            }
            for i in range(random_.choice((0, 1, 2, 8, 30)))
        ]
    keys = [_key(random_) for _ in range(random_.randrange(1, 5))]
    return [{key: _value(random_) for key in keys if random_.random() < 0.95} for _ in range(random_.randrange(8))]


def _prompt(random_: random.Random, number: int, kind: int) -> Any:
    text = f"{number} + {number} = ?"
    turn = {"role": "user", "content": text}
    return (
        text,
        [turn],
        [{"role": "user", "content": [{"type": "text", "text": text}]}],
        [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, turn],
    )[kind]


def _answer(random_: random.Random, column: str) -> Any:
    answer = random_.choice(["4", 4, 5.0, 0.5, "#### 4", ["4", "four"], r"\frac{1}{2}"])
    return {"ground_truth": answer} if column == "reward_model" else answer


def _value(random_: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: random_.choice(_TEXTS),
        lambda: random_.choice(_TEXTS[:5]),
        lambda: random_.choice(_NUMBERS),
        lambda: [_value(random_, depth + 1) for _ in range(random_.randrange(3))],
        lambda: {
            random_.choice(["role", "content", "type", "text", "ground_truth", "from", "value"]): _value(
                random_, depth + 1
            )
            for _ in range(random_.randrange(4))
        },
        lambda: [
            {
                "role": random_.choice(["user", "system", "assistant", "tool", 3]),
                "content": random_.choice([*_TEXTS, None, ["a"], [{"type": "image"}]]),
            }
            for _ in range(random_.randrange(4))
        ],
    ]
    return random_.choice(kinds if depth < 3 else kinds[:3])()


def _jsonl(records: list[dict[str, Any]], random_: random.Random) -> bytes:
    rows = [json.dumps(record, ensure_ascii=random_.random() < 0.5) for record in records]
    if rows and random_.random() < 0.1:
        rows[random_.randrange(len(rows))] = f'{{"prompt": "p", "answer": {random_.choice(_RAW)}}}'
    return random_.choice(("\n", "\r\n", "\n\n")).join(rows).encode("utf-8", "surrogatepass")


def _json(records: list[dict[str, Any]], random_: random.Random) -> bytes:
    whole: Any = random_.choice((records, records, {"data": records}, {"train": {}}, 3, "x", None))
    return json.dumps(whole, indent=random_.choice((None, 1))).encode("utf-8", "surrogatepass")


def _csv(records: list[dict[str, Any]], separator: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, escapechar="\\")
    header = list(dict.fromkeys(key for record in records for key in record))
    writer.writerow(header)
    writer.writerows([[record.get(key, "") for key in header] for record in records])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _table(records: list[dict[str, Any]], random_: random.Random) -> Any:
    """The records as a table; columns that Arrow does not take become text."""
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(key for record in records for key in record):
        values = [record.get(key) for record in records]
        try:
            columns[key] = pa.array(values)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
            columns[key] = pa.array([None if value is None else ascii(value) for value in values])
        column = columns[key]
        kind = random_.choice(
            (
                None,
                None,
                pa.large_string(),
                pa.binary(),
                pa.string_view(),
                pa.dictionary(pa.int32(), pa.string()),
                pa.float32(),
                pa.decimal128(38, 5),
                pa.timestamp("us"),
                pa.large_list(pa.string()),
            )
        )
        if kind is not None:
            try:
                columns[key] = column.cast(kind)
            except (pa.ArrowException, NotImplementedError):
                continue
    names = [*columns]
    if names and random_.random() < 0.05:
        return pa.Table.from_arrays([*columns.values(), columns[names[0]]], names=[*names, names[0]])
    return pa.table(columns)


def _parquet(records: list[dict[str, Any]], random_: random.Random) -> bytes:
    table, stream = _table(records, random_), io.BytesIO()
    try:
        parquet.write_table(table, stream, compression=random_.choice(("snappy", "zstd", "none")), row_group_size=5)
    except (pa.ArrowException, NotImplementedError):
        return _arrow(records, random_)
    return stream.getvalue()


def _arrow(records: list[dict[str, Any]], random_: random.Random) -> bytes:
    table, stream = _table(records, random_), io.BytesIO()
    make = random_.choice((pa.ipc.new_file, pa.ipc.new_stream))
    with make(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return stream.getvalue()
