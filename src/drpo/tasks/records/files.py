"""Files as records: each with the place that a message about it names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from drpo.errors import DataError
from drpo.tasks.records.arrow import (
    ARROW_FILE,
    ARROW_STREAM,
    Record,
    arrow_records,
    dataset_records,
    parquet_records,
    saved_dataset_records,
)
from drpo.tasks.records.streams import decompressed, lines, unreadable, whole

__all__ = ["DATA_SUFFIXES", "Record", "dataset_records", "file_records", "json_type"]

PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
#: Names that end so are data, not a configuration.
DATA_SUFFIXES = (*PARQUET, ".jsonl", ".ndjson", ".csv", ".tsv", ".arrow", ".feather", *_COMPRESSED)
_PARQUET_MARK = b"PAR1"
#: Digits that Python converts to an int without being asked; longer numbers stay decimal.
_INT_DIGITS = 4000

_DECODER = json.JSONDecoder(
    parse_float=Decimal, parse_int=lambda text: int(text) if len(text) <= _INT_DIGITS else Decimal(text)
)


def file_records(path: Path, form: str) -> Iterator[Record]:
    """The records of a file: Parquet, Arrow, JSONL, one JSON array or CSV, compressed or not; or of a folder that
    ``Dataset.save_to_disk`` wrote.

    Numbers of JSON with a fraction are Decimal, digits kept; a field of CSV is text.

    Args:
        path: the name decides about CSV and tab-separated values alone; the rest is told by the first bytes.
        form: what a line of JSONL looks like, one sentence for the messages.

    Raises:
        DataError: the file cannot be read, or is not what it seems to be; the message names the line or row.
        ConfigError: pyarrow, which Parquet and Arrow need, is not installed.
    """
    if "\0" in str(path):
        raise DataError(f"{str(path)!r} cannot be read: a name holds no NUL.")
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise unreadable(path, error) from error
    if is_folder:
        try:
            yield from saved_dataset_records(path)
        except OSError as error:
            raise unreadable(path, error) from error
        return
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in _COMPRESSED), "")
    with decompressed(path) as (stream, head), closing(_records(stream, head, kind, path, form)) as records:
        yield from records


def _records(stream: io.BufferedReader, head: bytes, kind: str, path: Path, form: str) -> Generator[Record, None, None]:
    if head.startswith(_PARQUET_MARK) or kind in PARQUET:
        yield from parquet_records(_seekable(stream, path), path)
    elif head.startswith((ARROW_FILE, ARROW_STREAM)):
        yield from arrow_records(_seekable(stream, path), path, head)
    elif kind in (".csv", ".tsv"):
        yield from _csv_records(lines(stream, head, path), path, "\t" if kind == ".tsv" else None)
    else:
        yield from _json_records(lines(stream, head, path), path, kind, form)


def _seekable(stream: io.BufferedReader, path: Path) -> io.BufferedIOBase:
    """The stream itself, or what is in it where that was compressed."""
    return stream if isinstance(stream.raw, io.FileIO) else io.BytesIO(whole(stream, path))


def _json_records(text: Iterator[bytes], path: Path, kind: str, form: str) -> Iterator[Record]:
    """One object a line, without empty lines; or one array of objects over any number of lines."""
    held: Record | None = None  # of a .json file: whether it is the only one is known after the next
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        if line.lstrip().startswith(b"[") and (number == 1 or kind == ".json"):
            yield from _array_records(line + b"".join(text), number, path, form)
            return
        if kind == ".json" and line.lstrip().startswith(b"{") and not line.rstrip().endswith(b"}"):
            raise _one_object(_decoded(line + b"".join(text), str(path), form), path, form)
        where = f"{path}, line {number}"
        record = _decoded(line, where, form)
        if not isinstance(record, dict):
            raise DataError(f"{where}: a JSON object is needed, got {json_type(record)}. {form}")
        if kind == ".json" and number == 1:
            held = where, record
            continue
        if held is not None:
            yield held
            held = None
        yield where, record
    if held is not None:
        raise _one_object(held[1], path, form)


def _one_object(value: Any, path: Path, form: str) -> DataError:
    """The error about a file that is one object: a mapping of columns (as pandas writes by default), or of splits."""
    keys = ", ".join(map(repr, list(value)[:8])) if isinstance(value, dict) else json_type(value)
    return DataError(
        f"{path} is one JSON object (of {keys}); an array of records, or one record a line, is needed "
        f"(pandas: orient='records'). {form}"
    )


def _array_records(data: bytes, line: int, path: Path, form: str) -> Iterator[Record]:
    values = _decoded(data, f"{path}, line {line}", form)
    for number, record in enumerate(values, start=1):
        where = f"{path}, record {number}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: a JSON object is needed, got {json_type(record)}. {form}")
        yield where, record


def _decoded(data: bytes, where: str, form: str) -> Any:
    try:
        return _DECODER.decode(data.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {data[error.start]:#04x}). Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}). {form}") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deep to be read. {form}") from error
    except (ValueError, ArithmeticError) as error:  # a number that no decimal holds
        raise DataError(f"{where}: not a number that can be read ({error}). Write it as a string.") from error


def _csv_records(text: Iterator[bytes], path: Path, separator: str | None) -> Iterator[Record]:
    """The rows of a CSV file under its header; all fields are text."""
    header: list[str] = []
    row: list[str] = []
    number = 0
    decoded = _utf8_lines(text, path)
    first = next(decoded, "")
    if separator is None:  # where a comma is the decimal sign, spreadsheets write semicolons
        separator = ";" if ";" in first and "," not in first else "\t" if "\t" in first and "," not in first else ","
    reader = csv.reader(_with(first, decoded), delimiter=separator, strict=True)
    before = csv.field_size_limit(2**31 - 1)
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = [name.strip() for name in row]
                if len(set(header)) < len(header):
                    raise DataError(f"{path}: two columns of the header have one name: {', '.join(header)}.")
                continue
            number += 1
            where = f"{path}, row {number} (line {reader.line_num})"
            if len(row) != len(header):
                raise DataError(
                    f"{where}: {len(row)} fields, and the header has {len(header)}. Quote fields that hold "
                    f"a {'tab' if separator == chr(9) else separator!r} or a line end."
                )
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not CSV ({error}). Quote fields that hold a quote, a "
            "separator or a line end."
        ) from error
    finally:
        csv.field_size_limit(before)


def _with(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _utf8_lines(text: Iterator[bytes], path: Path) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not UTF-8 (byte {line[error.start]:#04x}). Save the file as UTF-8."
            ) from error


def json_type(value: Any) -> str:
    """What JSON calls a value of this type."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
        bytes: "bytes that are not UTF-8",
    }
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return "a number" if value == value else "NaN"
    return names.get(type(value), f"a {type(value).__name__}")
