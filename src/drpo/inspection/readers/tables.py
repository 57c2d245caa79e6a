"""Python values that hold a log, as its records: a list of dicts, or a dict of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from drpo.errors import DataError
from drpo.inspection.readers.columns import NAMES, PAIRS
from drpo.inspection.readers.json_records import Record

_POLICIES = (*NAMES["logprob"], *NAMES["behavior_logprob"], *{name for pair in PAIRS for name in pair})
ROWS_OR_COLUMNS = "a list of records, or one object of columns of equal length"


def records_of(value: Any, where: str, unit: str, is_list: Callable[[Any], bool]) -> Iterator[Record]:
    """The records that ``value`` holds.

    Args:
        value: a list of dicts, a dict of columns, or one dict that is a response.
        where: the file, for messages.
        unit: what a record is called.
        is_list: whether a value is a list of values, one a record or one a token.

    Raises:
        DataError: it is neither, or columns are of different lengths.
    """
    if isinstance(value, Mapping):
        value = _rows(value, where, is_list)
    if not isinstance(value, list):
        raise DataError(f"{where} holds {type(value).__name__} where a log is {ROWS_OR_COLUMNS}.")
    for number, values in enumerate(value, 1):
        if not isinstance(values, dict):
            raise DataError(f"{where}, {unit} {number}: an object is needed, got {type(values).__name__}.")
        yield Record(number, values, number / len(value))


def batch_size(values: Mapping[str, Any]) -> int:
    """How many responses a record holds whose π or μ is a list of lists, as in NeMo-RL's log; 0 for any other."""
    for name in _POLICIES:
        lists = values.get(name)
        if type(lists) is list and lists and type(lists[0]) is list:
            return len(lists)
    return 0


def responses_of(records: Iterable[Record | None]) -> Iterator[Record | None]:
    """The responses in each record: of each column that has one value a response, that value. None is handed on."""
    for record in records:
        if record is None:
            yield None
            continue
        size = batch_size(record.values)
        if not size:
            yield record
        for i in range(size):
            values = {
                name: value[i] if type(value) is list and len(value) == size else value
                for name, value in record.values.items()
            }
            yield record._replace(values=values)


def _rows(columns: Mapping[str, Any], where: str, is_list: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """One dict a record of a dict of columns; or the dict itself, if it is one response."""
    if _is_response(columns, is_list):
        return [dict(columns)]
    lengths = {name: len(values) for name, values in columns.items() if is_list(values)}
    single = next((name for name in columns if name not in lengths), None)
    if single is not None or len(set(lengths.values())) > 1:
        what = "is one value" if single is not None else f"has {max(lengths.values()):,} values"
        name = single or max(lengths, key=lengths.__getitem__)
        others = f" where others have {min(lengths.values()):,}" if lengths else ""
        raise DataError(f"{where}: the column {name!r:.80} {what}{others}. A log is {ROWS_OR_COLUMNS}.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_response(columns: Mapping[str, Any], is_list: Callable[[Any], bool]) -> bool:
    """Whether the lists are of tokens, with nothing that tells responses apart."""
    if any(is_list(columns.get(name)) for name in NAMES["sequence_id"]):
        return False
    lists: list[Sequence[Any]] = [values for name, values in columns.items() if name in _POLICIES and is_list(values)]
    return bool(lists) and not any(len(values) and is_list(values[0]) for values in lists)
