"""Token logs in JSONL: a file, or the standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from drpo.errors import DataError
from drpo.inspection.readers.json_records import Record, read_lines, read_records
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.record_tokens import tokens_of_records
from drpo.inspection.readers.tokens import Tokens

#: The path that stands for the standard input, and what messages call it.
STDIN, STDIN_NAME = Path("-"), "standard input"
#: NeMo-RL's log of a step, whose lines do not name it (nemo_rl/algorithms/grpo.py).
_NEMO_RL = re.compile(r"train_data_step(\d{1,18})\.")


def read_jsonl_tokens(file: Path, reading: Reading) -> Iterator[Tokens | None]:
    """The tokens of ``file`` in chunks of whole sequences, in either layout; of a file that is followed, None where
    there is no more for now.

    Raises:
        DataError: the file is empty, or a line is not JSON, lacks a value, or has one of the wrong type or length;
            the message names the line.
    """
    records = read_records(file, reading)
    if named := _NEMO_RL.match(file.name):
        step = int(named[1])
        records = (record and record._replace(values={"step": step, **record.values}) for record in records)
    return tokens_of_records(records, str(file), "line", reading)


def read_stdin(file: Path, reading: Reading) -> Iterator[Tokens | None]:
    """The tokens of JSONL in the standard input, as :func:`read_jsonl_tokens`. The share read so far stays 0.

    Raises:
        DataError: as for a file; or nothing is piped into the command.
    """
    stream = sys.stdin.buffer
    if stream.isatty():
        raise DataError("- reads JSONL from the standard input, which is a terminal. Pipe a log into the command.")
    records = (Record(number, values, 0.0) for number, values in read_lines(stream, STDIN_NAME, reading))
    return tokens_of_records(records, STDIN_NAME, "line", reading)
