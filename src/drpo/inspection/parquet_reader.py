"""Token logs in Parquet: opened, checked, and read a few row batches at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DataError
from drpo.inspection.arrow_columns import is_list
from drpo.inspection.columns import PER_TOKEN, require_sequence_id, resolve
from drpo.inspection.parquet_rows import responses, tokens_of_sequences
from drpo.inspection.tokens import CHUNK_TOKENS, Tokens


def read_parquet(file: Path) -> Iterator[Tokens]:
    """The tokens of ``file`` in chunks of whole sequences, in either layout (one row a token, or one a response).

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: the file is damaged or empty, or a column is missing, of the wrong type or of mixed lengths.
    """
    arrow, parquet = _pyarrow()
    try:
        opened = parquet.ParquetFile(file, page_checksum_verification=True)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet ({_first_line(error)}). It may be cut off or still being "
                        "written: copy it again, or let its writer close it.") from error
    with opened:
        schema, rows = opened.schema_arrow, opened.metadata.num_rows
        columns = resolve(schema.names, str(file))
        if rows == 0:
            raise DataError(f"{file} has no rows. Give a log with at least one token.")
        types = {column: schema.field(name).type for column, name in columns.items()}
        _check_types(types, columns, str(file))
        if is_list(types["logprob"]):
            at_a_time, read = _responses_at_a_time(opened, columns["logprob"]), responses
        else:
            require_sequence_id(columns, schema.names, str(file))
            at_a_time, read = CHUNK_TOKENS, tokens_of_sequences
        yield from read(_tables(opened, columns, at_a_time, file), rows, str(file))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("reading Parquet needs pyarrow, which is not installed. Run "
                          "`pip install 'drpo[inspect]'`, or give the log as JSONL.") from error
    return pyarrow, pyarrow.parquet


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _check_types(types: dict[str, Any], columns: dict[str, str], where: str) -> None:
    """All columns of a token must have the layout of logprob, and numbers must be numbers."""
    from pyarrow import types as kinds

    lists = is_list(types["logprob"])
    for column, kind in types.items():
        name = columns[column]
        inner = kind.value_type if is_list(kind) else kind
        free = column in ("sequence_id", "step", "update") or (lists and column == "advantage")
        if not free and is_list(kind) != lists:
            wanted = "a list" if lists else "one value a row"
            raise DataError(f"{where}: column {name!r} must be {wanted}, as {columns['logprob']!r} is, got {kind}. "
                            "Either every row is a token, or every row is a response with lists.")
        if column in (*PER_TOKEN, "advantage", "mask", "step", "update"):
            number = kinds.is_floating(inner) or kinds.is_integer(inner)
            if not number and not (column == "mask" and kinds.is_boolean(inner)):
                wanted = "int64" if column in ("step", "update") else "bool" if column == "mask" else "float32"
                raise DataError(f"{where}: column {name!r} must hold numbers, got {kind}. Write it as {wanted}.")


def _responses_at_a_time(opened: Any, name: str) -> int:
    """As many rows as make a chunk; a response may have one token or ten thousand."""
    metadata = opened.metadata
    roots = [metadata.schema.column(i).path.split(".")[0] for i in range(metadata.num_columns)]
    leaf = roots.index(name)
    values = sum(metadata.row_group(i).column(leaf).num_values for i in range(metadata.num_row_groups))
    return max(1, CHUNK_TOKENS * metadata.num_rows // max(values, 1))


def _tables(opened: Any, columns: dict[str, str], rows: int, file: Path) -> Iterator[Any]:
    """Tables of at most ``rows`` rows, with our column names."""
    import pyarrow

    names = list(columns.values())
    try:
        for batch in opened.iter_batches(batch_size=rows, columns=names):
            yield pyarrow.Table.from_batches([batch]).select(names).rename_columns(list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is damaged ({_first_line(error)}). Copy it again, or log it again.") from error
