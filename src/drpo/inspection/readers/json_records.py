"""The lines of a JSONL log, plain or compressed, finished or still being written."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from drpo.errors import ConfigError, DataError
from drpo.inspection.readers.growing import LONGEST_LINE, growing_lines, is_tailed
from drpo.inspection.readers.reading import Reading
from drpo.installation import install
from drpo.json_lines import parse_line


class Record(NamedTuple):
    """An object, its line counted from 1, and the share of the file read so far."""

    line: int
    values: dict[str, Any]
    done: float


def read_records(file: Path, reading: Reading) -> Iterator[Record | None]:
    """The objects of ``file``, one a line; empty lines are passed over.

    A last line without its newline that is not JSON is one that a writer has not finished: it is passed over and noted
    in ``reading``. Of a file that is followed (:func:`drpo.inspection.readers.growing.is_tailed`), None where there is
    no more for now.

    Raises:
        ConfigError: the file is compressed with zstd, and pyarrow is not installed.
        DataError: the file cannot be read, or a line is not a JSON object; the message names file and line.
    """
    if reading.follows and is_tailed(file):
        yield from _growing(file, reading)
        return
    size = max(file.stat().st_size, 1)
    try:
        with file.open("rb") as raw:
            stream = decompressed(file, raw)
            for number, values in read_lines(stream, str(file), reading):
                yield Record(number, values, min(raw.tell() / size, 1.0))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        # pyarrow raises an OSError without a number where the compressed data are wrong.
        if error.errno is None and file.suffix.lower() in DECOMPRESSED:
            raise _damaged(file, error) from error
        raise DataError(
            f"{file} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def read_lines(stream: BinaryIO, where: str, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line, from 1, and its object.

    Args:
        stream: bytes of JSONL.
        where: the file, for messages.
        reading: an unfinished last line is noted in it.

    Raises:
        DataError: a line is not a JSON object.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if (record := parsed_line(line, f"{where}, line {number}", reading)) is not None:
            yield number, record


def _growing(file: Path, reading: Reading) -> Iterator[Record | None]:
    for number, line in growing_lines(file, reading):
        record = None if line is None else parsed_line(line, f"{file}, line {number}", reading)
        if line is None or record is not None:
            yield None if record is None else Record(number, record, 0.0)


def _gunzipped(raw: BinaryIO, where: str) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw))


def _unzstd(raw: BinaryIO, where: str) -> BinaryIO:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(
            f"{where}: reading .zst needs pyarrow, which is not installed. Run {install('inspect')}, or decompress the "
            "file."
        ) from error
    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), 1 << 20)  # pyright: ignore[reportArgumentType]


#: Ending of a compressed file → what opens its bytes.
DECOMPRESSED: dict[str, Callable[[BinaryIO, str], BinaryIO]] = {".gz": _gunzipped, ".zst": _unzstd}


def decompressed(file: Path, raw: BinaryIO) -> BinaryIO:
    """The bytes of ``file``, opened as ``raw``, decompressed as its ending says."""
    return DECOMPRESSED.get(file.suffix.lower(), lambda plain, where: plain)(raw, str(file))


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} is damaged or cut off ({error}). Compress it again, or let its writer close it.")


def parsed_line(line: bytes, where: str, reading: Reading) -> dict[str, Any] | None:
    """The object of a line; None for an empty line, and for an unfinished one, which is noted in ``reading``.

    Raises:
        DataError: it is too long, or no JSON object.
    """
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
