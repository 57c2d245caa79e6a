"""Token logs in Parquet: opened, checked, and read a few row batches at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DataError
from drpo.inspection.readers.arrow_columns import is_id, is_list, is_number, simplified
from drpo.inspection.readers.columns import (
    INTEGERS,
    ONE_A_RESPONSE,
    PER_TOKEN,
    SHOWN,
    is_mask,
    require_sequence_id,
    resolve,
)
from drpo.inspection.readers.parquet_rows import Origin, responses, tokens_of_sequences
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.tokens import CHUNK_TOKENS, Tokens
from drpo.installation import install


def read_parquet(file: Path, reading: Reading) -> Iterator[Tokens]:
    """The tokens of ``file`` in chunks of whole sequences, in either layout (one row a token, or one a response).

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: the file is damaged or empty, or a column is missing, of the wrong type or of mixed lengths.
    """
    arrow, parquet = _pyarrow()
    try:
        opened = parquet.ParquetFile(file, page_checksum_verification=True)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as Parquet ({_first_line(error)}). It may be cut off or still being "
            "written: copy it again, or let its writer close it."
        ) from error
    with opened:
        schema, rows = opened.schema_arrow, opened.metadata.num_rows
        columns = resolve(schema.names, str(file), reading.columns)
        _refuse_twins(schema.names, columns, str(file))
        if rows <= 0:
            raise DataError(f"{file} has no rows. Give a log with at least one token.")
        types = {column: schema.field(name).type for column, name in columns.items()}
        _check_types(types, columns, str(file))
        reading.uses(columns, schema.names, str(file))
        origin = Origin(str(file), rows, columns, reading)
        if is_list(types["logprob"]):
            columns = {column: name for column, name in columns.items() if column != "sequence_id"}
            at_a_time, read = _responses_at_a_time(opened, columns["logprob"]), responses
        else:
            require_sequence_id(columns, schema.names, str(file))
            at_a_time, read = CHUNK_TOKENS, tokens_of_sequences
        yield from read(_tables(opened, columns, at_a_time, file), origin)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "reading Parquet needs pyarrow, which is not installed. Run "
            f"{install('inspect')}, or give the log as JSONL."
        ) from error
    return pyarrow, pyarrow.parquet


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:300]


def _refuse_twins(present: list[str], columns: dict[str, str], where: str) -> None:
    for name in columns.values():
        if present.count(name) > 1:
            raise DataError(
                f"{where} has {present.count(name)} columns called {name!r:.80}. Rename or drop all but one."
            )


def _check_types(types: dict[str, Any], columns: dict[str, str], where: str) -> None:
    """All columns of a token must have the layout of logprob, and numbers must be numbers."""
    from pyarrow import types as kinds

    lists = is_list(types["logprob"])
    for column, kind in types.items():
        name = columns[column]
        if column in SHOWN:
            continue
        if column in ONE_A_RESPONSE:
            if not (is_number(kind) or kinds.is_boolean(kind) if column == "reward" else is_id(kind)):
                raise DataError(f"{where}: column {name!r:.80} must hold {ONE_A_RESPONSE[column]}, got {kind!s:.80}.")
            continue
        inner = kind.value_type if is_list(kind) else kind
        one_a_response = column in ("advantage", *INTEGERS) or is_mask(column)
        unread = lists and column == "sequence_id"
        if is_list(kind) != lists and not unread and not (lists and one_a_response):
            wanted = "a list" if lists else "one value a row"
            raise DataError(
                f"{where}: column {name!r:.80} must be {wanted}, as {columns['logprob']!r:.80} is, got "
                f"{kind!s:.80}. Either every row is a token, or every row is a response with lists."
            )
        if column == "sequence_id" and not lists and not is_id(kind):
            raise DataError(
                f"{where}: column {name!r:.80} must hold whole numbers or text, got {kind!s:.80}. Write "
                "it as int64 or string."
            )
        numeric = column in (*PER_TOKEN, "advantage", *INTEGERS) or is_mask(column)
        if numeric and not is_number(inner) and not (is_mask(column) and kinds.is_boolean(inner)):
            wanted = "int64" if column in INTEGERS else "bool" if is_mask(column) else "float32"
            raise DataError(f"{where}: column {name!r:.80} must hold numbers, got {kind!s:.80}. Write it as {wanted}.")


def _responses_at_a_time(opened: Any, name: str) -> int:
    """As many rows as make a chunk; a response may have one token or ten thousand."""
    metadata = opened.metadata
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    leaf = next(i for i, path in enumerate(paths) if path == name or path.startswith(f"{name}."))
    values = sum(metadata.row_group(i).column(leaf).num_values for i in range(metadata.num_row_groups))
    return max(1, CHUNK_TOKENS * metadata.num_rows // max(values, 1))


def _tables(opened: Any, columns: dict[str, str], rows: int, file: Path) -> Iterator[Any]:
    """Tables of at most ``rows`` rows, with our column names."""
    import pyarrow

    names = list(dict.fromkeys(columns.values()))
    try:
        for batch in opened.iter_batches(batch_size=rows, columns=names):
            yield pyarrow.table({column: simplified(batch.column(name)) for column, name in columns.items()})
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} is damaged ({_first_line(error)}). Copy it again, or log it again.") from error
