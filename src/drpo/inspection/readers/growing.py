"""JSONL files that grow while they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from drpo.errors import DataError
from drpo.inspection.readers.reading import Reading

#: Endings of files that are read line by line while they grow. Others are read once, when they are whole.
TAILED = (".jsonl", ".ndjson")
#: Longest line that is read (bytes): a file without line ends must not fill the memory.
LONGEST_LINE = 1 << 28
#: Of what was read, so many bytes are compared with the file before more is read.
_MARK = 256


class Replaced(Exception):
    """A file that was read is not what it was: shorter, with other content, another file of that name, or gone."""


def is_tailed(file: Path) -> bool:
    """Whether ``file`` is read as it grows."""
    return file.name.lower().endswith(TAILED)


def growing_lines(file: Path, reading: Reading) -> Iterator[tuple[int, bytes | None]]:
    """The number of each whole line, from 1, and its bytes; None where there is no more for now.

    What follows a None is what was written since. Once ``reading`` has ended, the last line is read as it is. The file
    is closed while nobody asks.

    Raises:
        DataError: it cannot be read.
        Replaced: it is not the file whose beginning was read.
    """
    number = position = identity = 0
    mark = b""
    while True:
        try:
            with file.open("rb") as stream:
                found = os.fstat(stream.fileno()).st_ino
                if position:
                    stream.seek(position - len(mark))
                    if found != identity or stream.read(len(mark)) != mark:
                        raise Replaced(f"{file} was written anew")
                identity = found
                while line := stream.readline(LONGEST_LINE + 1):
                    if not line.endswith(b"\n") and len(line) <= LONGEST_LINE and not reading.ended:
                        break
                    number, position, mark = number + 1, position + len(line), line[-_MARK:]
                    yield number, line
        except FileNotFoundError as error:
            raise Replaced(f"{file} is gone") from error
        except OSError as error:
            raise DataError(
                f"{file} cannot be read: {error.strerror or error}. Check the path and its permissions."
            ) from error
        if reading.ended:
            return
        yield number, None
