"""Token logs in one JSON document: an array of records, or an object of columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.errors import DataError
from drpo.inspection.readers.jsonl import read_jsonl_tokens
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.record_tokens import tokens_of_records
from drpo.inspection.readers.tables import records_of
from drpo.inspection.readers.tokens import Tokens
from drpo.json_lines import parse_json, parse_line

#: Largest document that is read (bytes): all of it is in memory at once, at about ten times its size.
LARGEST = 1 << 28


def read_json(file: Path, reading: Reading) -> Iterator[Tokens | None]:
    """The tokens of ``file`` in chunks of whole sequences; a file of one object a line is read as JSONL.

    Raises:
        DataError: the file is too large, not JSON, or holds something else than records or columns.
    """
    if is_jsonl(file):
        return read_jsonl_tokens(file, reading)
    if file.stat().st_size > LARGEST:
        raise DataError(
            f"{file} is larger than {LARGEST >> 20} MiB, and a JSON document must be in memory at once. Write one "
            "record a line (.jsonl), for example with jq -c '.[]'."
        )
    value = parse_json(file.read_bytes(), str(file))
    return tokens_of_records(records_of(value, str(file), "record", _is_list), str(file), "record", reading)


def is_jsonl(file: Path) -> bool:
    """Whether the first line is an object of its own, and others follow."""
    with file.open("rb") as stream:
        first = stream.readline(LARGEST)
        if not first.lstrip().startswith(b"{") or not stream.read(1 << 16).strip():
            return False
    try:
        parse_line(first, "")
    except DataError:
        return False
    return True


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
