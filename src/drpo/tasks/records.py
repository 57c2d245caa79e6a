"""Files and data sets as records: each with the place that a message about it names."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DataError
from drpo.installation import install

#: A record and where it stands, for messages.
Record = tuple[str, dict[str, Any]]

PARQUET = (".parquet", ".pq")
#: Names that end so are data, not a configuration.
DATA_SUFFIXES = (*PARQUET, ".jsonl", ".ndjson", ".csv", ".tsv", ".arrow", ".gz", ".zst", ".zstd", ".bz2", ".xz")
_MARK = b"PAR1"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)


def file_records(path: Path, form: str) -> Iterator[Record]:
    """The records of a Parquet file (by its name, or its first bytes) or of a JSONL file; ``form`` as there.

    Raises:
        DataError: the file cannot be read, or is not what its name says.
        ConfigError: pyarrow, which Parquet needs, is not installed.
    """
    yield from parquet_records(path) if _is_parquet(path) else jsonl_records(path, form)


def jsonl_records(path: Path, form: str) -> Iterator[Record]:
    """The objects of a JSONL file, without its empty lines; numbers with a fraction as Decimal, digits kept.

    Args:
        path: UTF-8, with or without a byte-order mark.
        form: what a line looks like, one sentence for the messages.

    Raises:
        DataError: the file cannot be read, or a line is no JSON object; the message names the line.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield where, _decoded(line, where, form)
    except OSError as error:
        raise _unreadable(path, error, "JSONL") from error


def parquet_records(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file as plain Python values; read in batches.

    Raises:
        DataError: the file cannot be read as Parquet.
        ConfigError: pyarrow is not installed.
    """
    parquet = _imported("pyarrow.parquet", "reading Parquet", install("math"))
    arrow = _imported("pyarrow", "reading Parquet", install("math"))
    try:
        with path.open("rb") as stream:
            number = 0
            for batch in parquet.ParquetFile(stream).iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except OSError as error:  # pyarrow's own errors of reading are OSErrors too, without a number
        if error.errno is not None:
            raise _unreadable(path, error, "Parquet") from error
        raise DataError(f"{path} cannot be read as Parquet: {error}. Write the file again.") from error
    except arrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. A JSONL file must not be named .parquet; "
                        "otherwise write the file again.") from error


def dataset_records(name: str, subset: str | None, split: str) -> Iterator[Record]:
    """The rows of a split, as ``datasets.load_dataset(name, subset, split=split)`` finds them (a hub or a folder).

    Raises:
        DataError: it cannot be loaded.
        ConfigError: the datasets library is not installed.
    """
    library = _imported("datasets", f"dataset={name}", "pip install datasets")
    try:
        rows = library.load_dataset(name, subset, split=split)
    except Exception as error:  # of the library, its readers and its network client: no common class
        raise DataError(f"datasets.load_dataset({name!r}, {subset!r}, split={split!r}) failed with "
                        f"{type(error).__name__}: {error}. Check dataset, subset and split, and that the hub can be "
                        "reached; or download the file and give path=FILE.") from error
    for number, row in enumerate(rows, start=1):
        yield f"{name} ({split}), row {number}", dict(row)


def json_type(value: Any) -> str:
    """What JSON calls a value of this type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in PARQUET:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MARK)) == _MARK
    except OSError:
        return False  # whoever reads it says why it cannot be read


def _imported(module: str, purpose: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{purpose} needs the {module.partition('.')[0]} library ({error}). Install it: "
                          f"{install}") from error


def _unreadable(path: Path, error: OSError, kind: str) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist. Give `path` relative to the working directory ({Path.cwd()}) or "
                         "from the root.")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path} is a directory; `path` must name one {kind} file.")
    return DataError(f"{path} cannot be read: {error.strerror or error}. Make it readable.")


def _decoded(line: bytes, where: str, form: str) -> dict[str, Any]:
    try:
        # A byte-order mark, as some editors put before the first line, is not part of it.
        record = _DECODER.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {line[error.start]:#04x}). Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}). {form}") from error
    except ValueError as error:  # an infinity, a NaN, or more digits than Python converts
        raise DataError(f"{where}: not a number that can be compared ({error}). Write it as a string.") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is needed, got {json_type(record)}. {form}")
    return record
