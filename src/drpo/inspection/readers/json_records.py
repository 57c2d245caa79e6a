"""The lines of a JSONL log, plain or compressed with gzip, finished or still being written."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from drpo.errors import DataError
from drpo.inspection.readers.reading import Reading
from drpo.json_lines import parse_line

#: Longest line that is read (bytes): a file without line ends must not fill the memory.
LONGEST_LINE = 1 << 28


class Record(NamedTuple):
    """An object, its line counted from 1, and the share of the file read so far."""

    line: int
    values: dict[str, Any]
    done: float


def read_records(file: Path, reading: Reading) -> Iterator[Record]:
    """The objects of ``file``, one a line; empty lines are passed over.

    A last line without its newline that is not JSON is one that a writer has not finished: it is passed over and noted
    in ``reading``.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object; the message names file and line.
    """
    size = max(file.stat().st_size, 1)
    try:
        with file.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if file.suffix.lower() == ".gz" else raw
            number = 0
            while line := stream.readline(LONGEST_LINE + 1):
                number += 1
                if (record := _record(line, f"{file}, line {number}", reading)) is not None:
                    yield Record(number, record, min(raw.tell() / size, 1.0))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{file} is damaged or cut off ({error}). Compress it again, or let its writer close it."
        ) from error
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def _record(line: bytes, where: str, reading: Reading) -> dict[str, Any] | None:
    if len(line) > LONGEST_LINE:
        raise DataError(f"{where} is longer than {LONGEST_LINE >> 20} MiB. A log has one line a token or a response.")
    if not line.strip():
        return None
    if line.endswith(b"\n"):
        return parse_line(line, where)
    try:
        return parse_line(line, where)
    except DataError as error:
        broken = isinstance(error.__cause__, json.JSONDecodeError | UnicodeDecodeError)
        if not (broken and line.lstrip().startswith(b"{")):
            raise
        reading.unfinished.append(where)
        return None
