"""What may stand in the files of a run, checked at the one place that reads them.

Every model leaves fields that it does not name alone: older and newer versions write others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drpo.errors import DataError
from drpo.schema import check_schema, renamed, unnumbered

#: No machine has more; torch ends in a segmentation fault at a million.
MOST_THREADS = 4096
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]

#: The schema of metrics since which names are the present ones.
NAMED = 2

M = TypeVar("M", bound=BaseModel)


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Parent(_Open):
    """Of a branch: the run that it goes on from, after ``step``."""

    path: str
    step: Count


class Manifest(_Open):
    """manifest.json."""

    status: str | None = Field(default=None, pattern="^(running|finished|interrupted|failed)$")
    run_id: str | None = Field(default=None, pattern="^[0-9A-Za-z_-]{1,64}$")
    seed: Count | None = None
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    failure: str | None = None
    config: dict[str, Any] | None = None
    config_before: dict[str, Any] | None = None
    changes: list[dict[str, Any]] | None = None
    parent: Parent | None = None
    versions: dict[str, Any] | None = None


class Metrics(_Open):
    """A line of metrics.jsonl: which record it is. A page leaves out any figure that is none."""

    kind: str = Field(min_length=1)
    step: Count
    update: Count = 0


class UpdateTiming(_Open):
    """Seconds of the parts of an update."""

    sampling: Seconds
    grading: Seconds
    training: Seconds


class EvaluationTiming(_Open):
    """Seconds of an evaluation."""

    seconds: Seconds


class UpdateMetrics(Metrics):
    """What a comparison of runs needs of an update, besides figures that may be null."""

    tokens: Count
    timing: UpdateTiming


class EvaluationMetrics(Metrics):
    """What a comparison of runs needs of an evaluation."""

    accuracy: float = Field(ge=0, le=1)
    examples: Count | None = None
    timing: EvaluationTiming


#: What is needed of each kind of record.
MEASURED: dict[str, type[Metrics]] = {"update": UpdateMetrics, "evaluation": EvaluationMetrics}


def check_manifest(value: Any, file: Path) -> dict[str, Any]:
    """``value`` with its fields as they should be, without its schema number.

    Raises:
        DataError: naming file and field. SchemaError: a newer version wrote it.
    """
    if isinstance(value, dict):
        value = unnumbered("manifest", value, str(file))
    fix = " Restore it from a backup, or remove it: a resumed run continues without it."
    return checked(Manifest, value, str(file), fix).model_dump(exclude_unset=True)


def check_metrics(record: dict[str, Any], where: str, model: type[Metrics] = Metrics) -> dict[str, Any]:
    """``record`` without its schema number, with the present names of metrics.

    Raises:
        DataError: naming ``where`` and the field. SchemaError: a newer version wrote it.
    """
    number, record = check_schema("metrics", record, where), unnumbered("metrics", record, where)
    if number < NAMED:
        record = renamed(record)
    checked(model, record, where, " Remove the line, and the record is left out.")
    return record


def checked(model: type[M], value: Any, where: str, fix: str = "") -> M:
    """``value`` as a ``model``.

    Args:
        model: the schema.
        value: what a file holds.
        where: the file, and the line if it has lines, for the message.
        fix: how to go on, for the message.

    Raises:
        DataError: one line, naming ``where`` and the first field that is wrong.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where}: an object is needed, got {type(value).__name__}.{fix}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"]
        given = "" if problem["type"] == "missing" else f", got {shortened(problem['input'])}"
        raise DataError(f"{where}: {key}: {message[0].lower() + message[1:]}{given}.{fix}") from error


def shortened(value: Any, limit: int = 80) -> str:
    """``value`` as Python writes it, at most ``limit`` characters of it."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**limit else "a number of many digits"
    return text if len(text) <= limit else f"{text[:limit]}…"
