"""A generated log in a file, or several: JSONL, compressed or not, JSON, torch.save and Parquet; whole or damaged."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.log_records import Sketch

#: Python writes no integer with more than 4,300 digits.
_LONGEST = 10**4000
_NAMES = ("log", "a b", "\u202elog", "lo\x1b[31mg", "[bold]", "1²2", "07", "-x", "p%s", "{}")


def write_log(folder: Path, log: Sketch, random_: random.Random) -> None:
    """Write ``log`` into ``folder``, as one file or two."""
    count = len(next(iter(log.columns.values()), []))
    parts = [(0, count)]
    if log.lists and count > 1 and random_.random() < 0.2:
        parts = [(0, count // 2), (count // 2, count)]
    parquet = random_.random() < 0.35
    for number, (first, end) in enumerate(parts):
        name = random_.choice(_NAMES) + str(number)
        part = {column: values[first:end] for column, values in log.columns.items()}
        document = not parquet and random_.random() < 0.25
        if parquet:
            content, ending = _parquet(part, log.kind, random_), ".parquet"
        elif document and random_.random() < 0.5:
            content, ending = _torch(part, log.lists, random_), ".pt"
        elif document:
            content, ending = _json(part, random_), ".json"
        else:
            content, ending = _jsonl(part, log.kind, random_), random_.choice((".jsonl", ".ndjson"))
        if log.kind == "bad bytes":
            content = _damaged(content, random_)
        if not parquet and not document and random_.random() < 0.3:
            content, ending = _compressed(content, ending, random_)
            content = _damaged(content, random_) if log.kind == "bad bytes" and random_.random() < 0.5 else content
        (folder / (name + ending)).write_bytes(content)


def _jsonl(columns: dict[str, list[Any]], kind: str, random_: random.Random) -> bytes:
    lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if kind == "bad columns" and lines and random_.random() < 0.3:
        line = random_.choice(lines)
        line.pop(random_.choice(list(line)), None)
    texts = [_line(line) for line in lines]
    if kind == "bad columns" and texts and random_.random() < 0.2:
        at = random_.randrange(len(texts))
        texts[at] = texts[at][:-1] + "," + texts[at][1:]
    end = random_.choice(("\n", "\n", "\n", "\r\n", "\n\n"))
    content = end.join(texts) + random_.choice((end, end, ""))
    encoding = (
        random_.choice(("utf-16", "latin-1", "utf-8-sig"))
        if kind == "bad columns" and random_.random() < 0.1
        else random_.choice(("utf-8", "utf-8", "utf-8-sig"))
    )
    return content.encode(encoding, "replace")


def _compressed(content: bytes, ending: str, random_: random.Random) -> tuple[bytes, str]:
    import pyarrow

    if random_.random() < 0.5:
        return gzip.compress(content, 1), ending + ".gz"
    return pyarrow.compress(content, codec="zstd", asbytes=True), ending + ".zst"


def _records(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(columns: dict[str, list[Any]], random_: random.Random) -> bytes:
    """An array of records, or an object of columns."""
    if random_.random() < 0.4:
        return _line(columns).encode("utf-8", "replace")
    return f"[{', '.join(map(_line, _records(columns)))}]".encode("utf-8", "replace")


def _torch(columns: dict[str, list[Any]], lists: bool, random_: random.Random) -> bytes:
    """What torch.save writes of records or columns, tensors among them, or of a dump of slime."""
    import torch

    def tensors(value: Any) -> Any:
        numbers = isinstance(value, list) and value and all(type(item) is float for item in value)
        return torch.tensor(value) if numbers and random_.random() < 0.5 else value

    if lists:
        columns = {name: [tensors(value) for value in values] for name, values in columns.items()}
    form = random_.choice(("records", "columns", "samples", "rollout_data") if lists else ("records", "columns"))
    rows = columns if form in ("columns", "rollout_data") else _records(columns)
    sink = io.BytesIO()
    torch.save(rows if form in ("records", "columns") else {"rollout_id": 3, form: rows}, sink)
    return sink.getvalue()


def _line(line: dict[str, Any]) -> str:
    text = json.dumps({name: _short(value) for name, value in line.items()}, ensure_ascii=True)
    return text.replace('"BIG"', "-" + "7" * 5000).replace('"DEEP"', "[" * 50_000 + "]" * 50_000)


def _short(value: Any) -> Any:
    """Integers that json does not write, and some values as others write them."""
    return "BIG" if type(value) is int and abs(value) > _LONGEST else value


def _parquet(columns: dict[str, list[Any]], kind: str, random_: random.Random) -> bytes:
    import pyarrow
    import pyarrow.parquet

    arrays = {name: _array(values, kind, random_) for name, values in columns.items()}
    names, made = list(arrays), list(arrays.values())
    if kind == "bad columns" and random_.random() < 0.2:
        at = random_.randrange(len(names))
        names, made = [*names, names[at]], [*made, made[at]]
    compression = random_.choice(("snappy", "none", "gzip", "zstd"))
    table = pyarrow.Table.from_arrays(made, names=[name.encode("utf-8", "replace").decode() for name in names])
    sink = pyarrow.BufferOutputStream()
    try:
        pyarrow.parquet.write_table(
            table,
            sink,
            row_group_size=random_.choice((1, 7, 100, 10_000)),
            compression=compression,
            use_dictionary=random_.random() < 0.5,
            write_page_checksum=random_.random() < 0.5,
        )
    except pyarrow.ArrowException:  # a type that Parquet does not have
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), sink)
    return sink.getvalue().to_pybytes()


def _array(values: list[Any], kind: str, random_: random.Random) -> Any:
    """``values`` in the type that they have, or in another one that holds them."""
    import pyarrow

    for typed in _types(kind, random_):
        try:
            return pyarrow.array(values, type=typed)
        except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
            continue
    return pyarrow.array([_written(value) for value in values], type=pyarrow.string())


def _types(kind: str, random_: random.Random) -> Iterator[Any]:
    import pyarrow as arrow

    if kind in ("bad values", "bad columns") and random_.random() < 0.3:
        plain = random_.choice(
            (
                arrow.float16(),
                arrow.float64(),
                arrow.int8(),
                arrow.uint64(),
                arrow.string(),
                arrow.large_string(),
                arrow.binary(),
                arrow.bool_(),
                arrow.decimal128(38, 4),
                arrow.timestamp("ns"),
                arrow.date32(),
                arrow.null(),
                arrow.string_view(),
                arrow.dictionary(arrow.int8(), arrow.string()),
            )
        )
        yield random_.choice(
            (plain, arrow.list_(plain), arrow.large_list(plain), arrow.list_(plain, 1), arrow.struct([("a", plain)]))
        )
    if random_.random() < 0.3:
        yield random_.choice(
            (
                arrow.float32(),
                arrow.list_(arrow.float32()),
                arrow.list_view(arrow.float64()),
                arrow.large_list(arrow.float32()),
                arrow.large_string(),
            )
        )
    yield None


def _written(value: Any) -> str:
    return "long" if type(value) is int and abs(value) > _LONGEST else str(value).encode("utf-8", "replace").decode()


def _damaged(content: bytes, random_: random.Random) -> bytes:
    """Cut, overwritten, doubled, or with bytes in it that do not belong there."""
    if not content:
        return content
    changed = bytearray(content)
    at = random_.randrange(len(changed))
    change = random_.randrange(7)
    if change == 0:
        return bytes(changed[:at])
    if change == 1:
        for _ in range(random_.choice((1, 3, 30))):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
    elif change == 2:
        changed[at:at] = random_.choice((b"\0" * 50, b"\xff\xfe", b"[" * 100_000, b"{" * 3000, b"\n", b"\r", b'"'))
    elif change == 3:
        del changed[at : at + random_.choice((1, 10, 500))]
    elif change == 4:
        # The end of a Parquet file says where everything is.
        place = max(0, len(changed) - random_.randrange(1, 400))
        changed[place : place + 4] = random_.randbytes(4)
    elif change == 5:
        return content + content[at:]
    else:
        return random_.randbytes(len(content) % 4000)
    return bytes(changed)
