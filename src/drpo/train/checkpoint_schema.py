"""What may stand in a checkpoint's JSON files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints

from drpo.errors import DataError
from drpo.files import read_json
from drpo.run_schema import Count, checked
from drpo.schema import check_schema

Word = Annotated[int, Field(ge=0, lt=2**32)]
#: A file's own name: nothing above or below the checkpoint is named.
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]+$")]
Sum = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
#: Without these there is nothing to resume from.
NEEDED = ("config.json", "optimizer.safetensors", "trainer_state.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


class TrainerState(BaseModel):
    """trainer_state.json."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    step: Count
    updates: Count
    cursor: Count
    #: (step, updates) of each older set of weights.
    older: list[Annotated[list[Count], Field(min_length=2, max_length=2)]] = []
    #: `random.getstate()`.
    python: tuple[Literal[3], Annotated[list[Word], Field(min_length=625, max_length=625)], float | None]
    #: `numpy.random.get_state()`.
    numpy: tuple[
        Literal["MT19937"],
        Annotated[list[Word], Field(min_length=624, max_length=624)],
        Annotated[int, Field(ge=0, le=624)],
        Literal[0, 1],
        float,
    ]


def require_known(file: Path) -> None:
    """Refuse a checkpoint of a newer version by the number in its trainer_state.json; whatever else may be wrong with
    the file is for :func:`read_state` to say.

    Raises:
        SchemaError: a newer version wrote the checkpoint.
    """
    with suppress(DataError):
        check_schema("checkpoint", read_json(file), str(file))


class Checksums(RootModel[dict[FileName, Sum]]):
    """checksums.json: SHA-256 of every other file."""


def read_state(file: Path) -> TrainerState:
    """The state that ``file`` holds.

    Raises:
        DataError: it is damaged; the message names file and field. SchemaError: a newer version wrote the checkpoint.
    """
    values = read_json(file)
    check_schema("checkpoint", values, str(file))
    for name in ("python", "numpy"):
        if isinstance(values, dict) and isinstance(values.get(name), list):
            values = {**values, name: tuple(values[name])}
    return checked(TrainerState, values, str(file))


def read_checksums(file: Path) -> dict[str, str]:
    """File name → SHA-256, of every file that a checkpoint needs.

    Raises:
        DataError: it is damaged, or leaves one out.
    """
    sums = checked(Checksums, read_json(file), str(file)).root
    adapter = "adapter_config.json" in sums
    missing = [name for name in NEEDED if name not in sums and not (adapter and name == "config.json")]
    if not any(name in sums for name in WEIGHTS):
        missing.append(WEIGHTS[0])
    if missing:
        raise DataError(f"{file} has no checksum of {', '.join(missing)}")
    return sums
