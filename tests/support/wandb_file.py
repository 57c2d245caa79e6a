"""Reads what wandb stores offline: a log in LevelDB's format, whose entries are wandb's own protocol buffers.

https://github.com/google/leveldb/blob/main/doc/log_format.md; wandb puts 7 bytes of its own before the first entry.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_BLOCK, _FULL, _LAST = 32_768, 1, 4


def wandb_records(file: Path) -> Iterator[Any]:
    """Every entry."""
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    data, at, entry = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:  # what is left of a block is too short for a header
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_FULL, _LAST):
            yield record.FromString(entry)
            entry = b""


def wandb_history(file: Path) -> list[tuple[int, dict[str, float]]]:
    """The rows: step and figures."""
    rows = [record.history for record in wandb_records(file) if record.WhichOneof("record_type") == "history"]
    return [
        (
            row.step.num,
            {
                name: json.loads(item.value_json)
                for item in row.item
                if not (name := item.key or "/".join(item.nested_key)).startswith("_")
            },
        )
        for row in rows
    ]
