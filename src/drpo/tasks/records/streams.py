"""Files as bytes, whatever they are compressed with; told by their first bytes, as names are often wrong."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from drpo.errors import ConfigError, DataError
from drpo.installation import install

#: Bytes of one line, or of a file that has to be read whole.
MAX_LINE, MAX_WHOLE = 64 * 2**20, 4 * 2**30

_REFUSED = {
    b"PK\x03\x04": "is a ZIP archive (an .xlsx file is one, too). Unpack it, or save it as CSV",
    b"version https://git-lfs": "is a Git LFS pointer, not the data. Fetch the file with `git lfs pull`",
    b"\x93NUMPY": "is a NumPy array. Write its records as JSONL",
    b"SQLite format 3": "is a database. Export the table as CSV",
    b"%PDF": "is a PDF",
    b"\x89HDF": "is an HDF5 file. Write its records as JSONL or Parquet",
    b"ORC": "is an ORC file. Write it as Parquet",
    b"Obj\x01": "is an Avro file. Write it as Parquet",
    b"<!DOCTYPE": "is a web page: the download failed. Download the file again",
    b"<html": "is a web page: the download failed. Download the file again",
}


@contextmanager
def decompressed(path: Path) -> Iterator[tuple[io.BufferedReader, bytes]]:
    """The content of a file (gzip, zstandard, bzip2 and xz are undone) and its first bytes, which are still to be read.

    Raises:
        DataError: the file cannot be read, its compressed data is damaged, or it is of a kind that holds no records.
        ConfigError: it is compressed with zstandard, and pyarrow is not installed.
    """
    try:
        with path.open("rb") as file:
            stream = _undone(file)
            head = stream.peek(64)[:64]
            for mark, what in _REFUSED.items():
                if head.startswith(mark):
                    raise DataError(f"{path} {what}.")
            yield stream, head
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise DataError(f"{path}: its compressed data is damaged or cut off ({error}). Fetch it again.") from error


def _undone(file: BinaryIO) -> io.BufferedReader:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=file)))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        arrow = imported("pyarrow", "reading zstandard", install("math"))
        return io.BufferedReader(arrow.CompressedInputStream(file, "zstd"))
    if head.startswith(b"BZh"):
        return io.BufferedReader(cast(Any, bz2.BZ2File(file)))
    if head.startswith(b"\xfd7zXZ\x00"):
        return io.BufferedReader(cast(Any, lzma.LZMAFile(file)))
    return cast(io.BufferedReader, file)


def lines(stream: io.BufferedReader, head: bytes, path: Path) -> Iterator[bytes]:
    """The lines of a text in UTF-8, with or without a byte-order mark, or in UTF-16 or UTF-32 with one.

    Raises:
        DataError: a line has more than ``MAX_LINE`` bytes, or the text is not in the encoding of its mark.
    """
    encoding = _encoding(head)
    if encoding is not None:
        try:
            text = whole(stream, path).decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not {encoding.upper()}, which its first bytes say it is ({error.reason}). Save "
                "the file as UTF-8."
            ) from error
        yield from text.encode("utf-8", "surrogatepass").splitlines(keepends=True)
        return
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(f"{path}, line {number}: has more than {MAX_LINE // 2**20} MiB. Write one record a line.")
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def whole(stream: io.BufferedReader, path: Path) -> bytes:
    """All that is left of a stream.

    Raises:
        DataError: it is more than ``MAX_WHOLE`` bytes.
    """
    data = stream.read(MAX_WHOLE + 1)
    if len(data) > MAX_WHOLE:
        raise DataError(
            f"{path} has more than {MAX_WHOLE // 2**30} GiB, too much for a file of this kind. Write it as "
            "JSONL or Parquet."
        )
    return data


def _encoding(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else None


def unreadable(path: Path, error: OSError) -> DataError:
    """The error about a file that the system does not open."""
    if isinstance(error, FileNotFoundError):
        return DataError(
            f"{path} does not exist. Give `path` relative to the working directory ({Path.cwd()}) or from the root."
        )
    return DataError(f"{path} cannot be read: {error.strerror or error}. Make it readable.")


def imported(module: str, purpose: str, command: str) -> Any:
    """An optional library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the {module.partition('.')[0]} library ({error}). Install it: {command}"
        ) from error
