"""Files that a crash or a full disk leaves whole: atomic replacement, appended JSON lines, readers that name the line.

A file that is replaced is written under a temporary name, flushed to disk, and renamed. A file that is appended to
consists of lines; only its last line can be torn, and the torn line is cut before anything follows it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from drpo.child_process import is_alive
from drpo.errors import DataError, WriteError
from drpo.json_lines import parse_json, parse_line

StrPath = str | os.PathLike[str]


@contextmanager
def writing(target: StrPath, fix: str = "Free space or fix its permissions.") -> Iterator[None]:
    """Turn what the operating system refuses within the block into one message about ``target``.

    Raises:
        WriteError: it names ``target``, the reason, and ``fix``.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write to {target}: {error.strerror or error}. {fix}") from error


def replace_text(file: Path, text: str) -> None:
    """Write ``file`` whole: a reader sees the old text or the new one, and a refused write leaves the old one.

    Raises:
        OSError: the disk refuses.
    """
    replace_bytes(file, text.encode("utf-8", "backslashreplace"))


def replace_bytes(file: Path, content: bytes) -> None:
    """As :func:`replace_text`, for bytes."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError:
        with suppress(OSError):  # the first refusal is the one to report
            temporary.unlink()
        raise


@contextmanager
def growing_text(file: Path) -> Iterator[TextIO]:
    """A stream for a long result: ``file`` appears when the block ends well.

    Until then, and where the block fails, what was written stands in ``FILE.partial``.

    Raises:
        WriteError: the disk refuses.
    """
    partial = file.with_name(f"{file.name}.partial")
    with writing(file, "Free space, fix its permissions or choose another file."):
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)


@contextmanager
def growing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into: ``folder`` appears when the block ends well and the disk has all of its files.

    Until then it stands beside ``folder`` under a name of its own. Where the block fails it is removed; what a killed
    process left is removed by the next one.

    Raises:
        OSError: the disk refuses, or ``folder`` exists and is not empty.
    """
    parent, prefix = folder.absolute().parent, f".{folder.name}.writing-"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        number = left.name.removeprefix(prefix)
        if left.name.startswith(prefix) and number.isdigit() and not is_alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    temporary = parent / f"{prefix}{os.getpid()}"
    try:
        temporary.mkdir()
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        temporary.rename(folder)
        flush(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def append_records(file: Path, records: Iterable[dict[str, Any]], sync: bool = False) -> None:
    """Append a JSON line a record, all of them or none; a torn last line is cut first (:func:`cut_torn_line` says so).

    Args:
        file: made if it does not exist.
        records: JSON values; NaN and infinities become null.
        sync: wait until the disk has them.

    Raises:
        OSError: the disk refuses; the file is as it was.
    """
    content = "".join(json_line(record) for record in records).encode("utf-8", "backslashreplace")
    cut_torn_line(file)
    with file.open("ab", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        try:
            left = memoryview(content)
            while left:
                left = left[stream.write(left) :]
            if sync:
                os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):  # the first refusal is the one to report
                stream.truncate(size)
            raise


def cut_torn_line(file: Path) -> int:
    """Cut a last line without its newline, which a crash or a full disk left.

    Returns:
        the number of bytes cut; 0 if the last line is whole or there is no file.

    Raises:
        OSError: the disk refuses.
    """
    if not file.is_file():
        return 0
    with file.open("r+b") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
        return size - end


def flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` so that a crash leaves no half of it under its name; of a symbolic link, the link alone.

    Raises:
        OSError: the system refuses.
    """
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        doomed = folder.with_name(f".removing-{folder.name}")
        if doomed.exists():
            shutil.rmtree(doomed)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that does not exist is written as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def json_text(value: Any) -> str:
    """``value`` as indented JSON with a newline at its end."""
    return json.dumps(without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def json_line(record: dict[str, Any]) -> str:
    """``record`` as one line of JSON."""
    return json.dumps(without_nan(record), ensure_ascii=False, allow_nan=False) + "\n"


class JsonLine(NamedTuple):
    """An object of a JSONL file, its line counted from 1, and the byte at which the line ends."""

    number: int
    record: dict[str, Any]
    end: int


def read_json(file: StrPath) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: it cannot be read, or is not JSON; the message names the file and the reason.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    if not content.strip():
        raise DataError(f"{file} is empty ({len(content)} bytes); a JSON value is needed.")
    return parse_json(content, str(file))


def read_jsonl(file: StrPath, ignore_cut_line: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, one a line; empty lines are passed over.

    Raises:
        DataError: a line is not a JSON object; the message names file and line. With ``ignore_cut_line`` a last
            line without its newline is left out instead.
    """
    return (line.record for line in numbered_jsonl(file, ignore_cut_line))


def numbered_jsonl(file: StrPath, ignore_cut_line: bool = False) -> Iterator[JsonLine]:
    """As :func:`read_jsonl`, with where each object stands."""
    end = 0
    # Bytes, decoded line by line: a crash may cut the last line in the middle of a character.
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            end += len(line)
            if not line.strip() or (ignore_cut_line and not line.endswith(b"\n")):
                continue
            yield JsonLine(number, parse_line(line, f"{file}, line {number}"), end)
