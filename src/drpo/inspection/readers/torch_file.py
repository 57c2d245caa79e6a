"""Token logs written with torch.save: the dumps of slime, vime and miles, and plain dicts and lists of tensors.

slime (slime/utils/train_dump_utils.py, slime/ray/rollout.py; its forks vime and miles write the same) has two dumps.
``--save-debug-train-data`` writes ``{"rollout_id", "rank", "rollout_data"}``: the training data of one rank, a dict of
lists with one entry a sample, tensors among them. ``--save-debug-rollout-data`` writes ``{"rollout_id", "samples"}``: a
dict for each sample, with μ and without π.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from drpo.errors import DataError
from drpo.inspection.readers.columns import NAMES
from drpo.inspection.readers.json_records import Record
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.record_tokens import tokens_of_records
from drpo.inspection.readers.tables import records_of
from drpo.inspection.readers.tokens import Tokens

#: The keys of a dump under which the samples are: a dict for each, and a dict of columns.
SAMPLES, COLUMNS = "samples", "rollout_data"
#: The length of a sample's response; ``tokens`` has the prompt before it.
_LENGTHS = ("response_length", "response_lengths")


def read_torch(file: Path, reading: Reading) -> Iterator[Tokens | None]:
    """The tokens of ``file`` in chunks of whole sequences. Tensors are mapped into memory, not read at once.

    Raises:
        DataError: the file holds objects other than tensors, numbers, texts, lists and dicts (they are not loaded), is
            damaged, or holds no samples.
    """
    value = _load(file)
    records = (_plain(record, str(file)) for record in _records(value, str(file)))
    return tokens_of_records(records, str(file), "sample", reading)


def _load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it holds an object of {kind[1]:.100}" if kind else "it is no file of torch.save, or is damaged"
        raise DataError(
            f"{file} was not loaded: {what}. Only tensors, numbers, texts, lists "
            "and dicts are loaded, because other objects may run code. Save arrays as tensors or lists."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0][:200]
        raise DataError(
            f"{file} cannot be read with torch.load ({reason}). It may be cut off: save it again."
        ) from error


def _records(value: Any, where: str) -> Iterator[Record]:
    """The samples of a dump, each with the dump's rollout as its step."""
    if not isinstance(value, dict) or not {SAMPLES, COLUMNS} & value.keys():
        yield from records_of(value, where, "sample", _is_list)
        return
    samples = value[SAMPLES] if SAMPLES in value else _columns(value[COLUMNS], where)
    step = {"step": value["rollout_id"]} if type(value.get("rollout_id")) is int else {}
    for record in records_of(samples, where, "sample", _is_list):
        yield record._replace(values=step | record.values)


def _columns(data: Any, where: str) -> dict[str, Any]:
    """The columns with one entry a sample; others are of all ranks, or of micro-batches."""
    if not isinstance(data, Mapping):
        raise DataError(f"{where}: {COLUMNS} must be a dict of columns, got {type(data).__name__}.")
    known = (*_LENGTHS, *NAMES["logprob"], *NAMES["behavior_logprob"], "tokens")
    count = next((len(data[name]) for name in known if _is_list(data.get(name))), None)
    return {name: values for name, values in data.items() if _is_list(values) and len(values) == count}


def _plain(record: Record, where: str) -> Record:
    """The record with tensors as lists, and of ``tokens`` the response."""
    values = {str(name): _as_list(value, str(name), where, record.line) for name, value in record.values.items()}
    length = next((values[name] for name in _LENGTHS if type(values.get(name)) is int), None)
    if length is not None and isinstance(values.get("tokens"), list):
        values["tokens"] = values["tokens"][len(values["tokens"]) - length :]
    return record._replace(values={name: value for name, value in values.items() if value is not None})


def _as_list(value: Any, name: str, where: str, number: int) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, torch.Tensor):
        return value
    if value.layout != torch.strided or value.is_meta:
        raise DataError(f"{where}, sample {number}: {name!r:.80} must be a dense tensor. Save it with .to_dense().")
    return value.tolist()


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, torch.Tensor) and value.dim() > 0)
