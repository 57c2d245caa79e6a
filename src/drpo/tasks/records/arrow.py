"""Records from Arrow: Parquet, Arrow files and streams, saved data sets, and data sets by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from drpo.errors import DataError
from drpo.installation import install
from drpo.tasks.records.streams import imported

#: A record and where it stands, for messages.
Record = tuple[str, Mapping[str, Any]]

ARROW_FILE, ARROW_STREAM = b"ARROW1", b"\xff\xff\xff\xff"
_ROWS = 1024


class ArrowRow(Mapping[str, Any]):
    """A row of a record batch. A column is turned into Python values when it is looked up, so that one that nobody
    reads may hold anything: binary as text if it is UTF-8, float32 as the shortest decimal number that gives it.

    Args:
        batch: of pyarrow.
        columns: those of the batch that have been looked up, for all of its rows.
        index: of the row in it.
        where: it stands, for messages.

    Raises:
        DataError: on a look-up, of a value that cannot be read or a name that several columns have.
    """

    def __init__(self, batch: Any, columns: dict[str, Any], index: int, where: str):
        self._batch, self._columns, self._index, self._where = batch, columns, index, where

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._batch.schema.names))

    def __len__(self) -> int:
        return len(set(self._batch.schema.names))

    def __contains__(self, name: object) -> bool:
        return name in self._batch.schema.names

    def __getitem__(self, name: str) -> Any:
        column = self._column(name)
        try:
            return _plain(column[self._index].as_py(maps_as_pydicts="lossy"), column.type)
        except (ValueError, OverflowError, ArithmeticError, NotImplementedError, TypeError) as error:
            raise self._unreadable(name, column, error) from error

    def _column(self, name: str) -> Any:
        """The column of that name, checked once a batch: in a damaged file, offsets point anywhere."""
        if name not in self._columns:
            places = self._batch.schema.get_all_field_indices(name)
            if not places:
                raise KeyError(name)
            if len(places) > 1:
                raise DataError(f"{self._where}: {len(places)} columns are named {name!r}. Rename all but one.")
            column = self._batch.column(places[0])
            try:
                column.validate(full=True)
            except (ValueError, IndexError) as error:  # ArrowInvalid and ArrowIndexError
                raise self._unreadable(name, column, error) from error
            self._columns[name] = column
        return self._columns[name]

    def _unreadable(self, name: str, column: Any, error: Exception) -> DataError:
        return DataError(f"{self._where}: column {name!r} ({column.type}) cannot be read: {error}. Write it as text.")


def parquet_records(stream: BufferedIOBase, path: Path) -> Iterator[Record]:
    """The rows of a Parquet file; read in batches.

    Raises:
        DataError: it cannot be read as Parquet.
        ConfigError: pyarrow is not installed.
    """
    parquet = imported("pyarrow.parquet", "reading Parquet", install("math"))

    def batches() -> Iterator[Any]:
        yield from parquet.ParquetFile(stream).iter_batches(batch_size=_ROWS)

    yield from _rows(
        batches, str(path), "Parquet", " A JSONL file must not be named .parquet; otherwise write the file again."
    )


def arrow_records(stream: BufferedIOBase, path: Path, head: bytes, before: int = 0) -> Iterator[Record]:
    """The rows of an Arrow file or stream, numbered from ``before`` + 1 on.

    Raises:
        DataError: it cannot be read as Arrow.
        ConfigError: pyarrow is not installed.
    """
    ipc = imported("pyarrow.ipc", "reading Arrow", install("math"))

    def batches() -> Iterator[Any]:
        if head.startswith(ARROW_FILE):
            reader = ipc.open_file(stream)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
        else:
            yield from ipc.open_stream(stream)

    yield from _rows(batches, str(path), "Arrow", " Write it again.", before)


def saved_dataset_records(folder: Path) -> Iterator[Record]:
    """The rows of a data set that ``Dataset.save_to_disk`` wrote into ``folder``.

    Raises:
        DataError: it is no such folder, or one of several data sets, or damaged.
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = sorted(entry.name for entry in folder.iterdir() if (entry / "state.json").is_file())
        raise DataError(
            f"{folder} holds several data sets (save_to_disk of a DatasetDict): {', '.join(names)}. Name "
            f"one of them: {folder / (names[0] if names else 'train')}"
        )
    if not (folder / "state.json").is_file():
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())[:8]
        raise DataError(
            f"{folder} is a directory and no saved data set (no state.json); `path` must name a file, or a "
            f"folder that Dataset.save_to_disk wrote. In it: {', '.join(names) or '(no file)'}."
        )
    try:
        files = [folder / entry["filename"] for entry in json.loads((folder / "state.json").read_text())["_data_files"]]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise DataError(
            f"{folder / 'state.json'} does not list the data set's files ({error!r}). Save the data set again."
        ) from error
    number = 0
    for file in files:
        if file.resolve().parent != folder.resolve():
            raise DataError(f"{folder / 'state.json'} names {file.name!r} outside its folder. Save the data set again.")
        try:
            stream = file.open("rb")
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read: {error}. Save the data set again.") from error
        with stream:
            head = stream.read(len(ARROW_FILE))
            stream.seek(0)
            for record in arrow_records(stream, folder, head, number):
                number += 1
                yield record


def dataset_records(name: str, subset: str | None, split: str) -> Iterator[Record]:
    """The rows of a split, as ``datasets.load_dataset(name, subset, split=split)`` finds them (a hub or a folder).

    Raises:
        DataError: it cannot be loaded.
        ConfigError: the datasets library is not installed.
    """
    library = imported("datasets", f"dataset={name}", "pip install datasets")
    if (Path(name) / "state.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
        raise DataError(f"dataset={name} is a folder that save_to_disk wrote. Give path={name} in its place.")
    try:
        tables = library.load_dataset(name, subset, split=split).with_format("arrow").iter(batch_size=_ROWS)
    except Exception as error:  # of the library, its readers and its network client: no common class
        raise DataError(
            f"datasets.load_dataset({name!r}, {subset!r}, split={split!r}) failed with "
            f"{type(error).__name__}: {error}. Check dataset, subset and split, and that the hub can be "
            "reached; or download the file and give path=FILE."
        ) from error
    yield from _rows(
        lambda: (batch for table in tables for batch in table.to_batches()),
        f"{name} ({split})",
        "a data set",
        " Check dataset, subset and split.",
    )


def _rows(batches: Any, source: str, kind: str, advice: str, before: int = 0) -> Iterator[Record]:
    """The rows of all batches.

    Args:
        batches: gives an iterator over record batches.
        source: what messages call the file.
        kind: what it was read as.
        advice: the end of a message about a file that cannot be read.
        before: rows of the files before this one.
    """
    arrow = imported("pyarrow", f"reading {kind}", install("math"))
    number = before
    try:
        for batch in batches():
            batch.validate()
            _ = batch.schema.names  # here, so that names that are not UTF-8 are told with the file
            columns: dict[str, Any] = {}
            for index in range(batch.num_rows):
                number += 1
                where = f"{source}, row {number}"
                yield where, ArrowRow(batch, columns, index, where)
    except DataError:
        raise
    except (OSError, arrow.ArrowException, ValueError, IndexError, NotImplementedError) as error:
        raise DataError(f"{source} cannot be read as {kind}: {' '.join(str(error).split())}.{advice}") from error


def _plain(value: Any, kind: Any) -> Any:
    """A value of Arrow type ``kind`` as JSON would have it."""
    import numpy as np
    import pyarrow as pa

    types = pa.types
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(value, kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _plain(value, kind.value_type)
    if types.is_float32(kind) or types.is_float16(kind):
        return float(str((np.float32 if types.is_float32(kind) else np.float16)(value)))
    if types.is_struct(kind) and isinstance(value, Mapping):
        return {field.name: _plain(value.get(field.name), field.type) for field in kind}
    if types.is_map(kind) and isinstance(value, Mapping):
        return {str(key): _plain(inner, kind.item_type) for key, inner in value.items()}
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_plain(inner, kind.value_type) for inner in value]
    return value
