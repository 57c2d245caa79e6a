"""The files of results: one JSON a suite, and what it says of the machine.

``schema`` (:mod:`drpo.schema`), ``suite``, ``command``, ``machine`` (:func:`describe`; once all is measured also
``others``, the CPUs that other programs used meanwhile, and ``busy``), and ``rows``, each with
``case``, ``variant``, ``sizes``, ``curve`` (the size that grows, or null), and either ``skipped`` (why) or

- ``rounds``: seconds of every measured round, in order; ``seconds``, ``min``, ``max``: their median and extremes;
- ``tokens``: response tokens of every round (null where they are no measure of the work), ``tokens_per_second``;
- ``ratios``: baseline → median over rounds of the ratio to it in the same round, of seconds, or of seconds per token
  where ``per_token`` says so;
- ``figures``: what else was measured (``peak_bytes``: highest memory above inputs and gradients, in a process of its
  own, and of the suites ``inspect`` and ``model-step`` of the whole process; ``bytes_per_token``: of a support;
  ``file_bytes``; ``sampling_share``: of the step's time; ``sampling_seconds``, ``forward_seconds`` …: parts of the
  step; ``cpu_seconds``: of its process, which other programs lengthen less; ``tflops``; ``gemm_share``: of the card's
  own rate);
- ``note``, where there is something else to know.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from drpo.bench.frame import Row
from drpo.cpus import Look, cpu_name
from drpo.errors import CheckpointError
from drpo.files import replace_text
from drpo.schema import numbered

#: Other programs that use more than this of a CPU make times longer and ratios less certain.
BUSY = 0.3
PACKAGES = ("torch", "numpy", "transformers", "trl", "liger_kernel", "triton")


def describe(device: str = "cpu") -> dict[str, Any]:
    """CPU, cores, threads, device, versions, load and date."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "device": device,
        "python": platform.python_version(),
        "packages": {},
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_bytes": properties.total_memory, "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            found["packages"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_others(look: Look) -> dict[str, Any]:
    """``others``, how many CPUs other programs used since ``look``, and ``busy``, whether that was much of one."""
    others = round(look.others(), 2)
    return {"others": others, "busy": others > BUSY}


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_as_json(row: Row) -> dict[str, Any]:
    """A row as the file holds it."""
    head = {"case": row.case, "variant": row.variant, "sizes": dict(row.sizes), "curve": row.curve}
    if row.skipped is not None:
        return {**head, "skipped": row.skipped}
    return {
        **head,
        "seconds": row.median,
        "min": min(row.seconds),
        "max": max(row.seconds),
        "rounds": list(row.seconds),
        "tokens": None if row.tokens is None else list(row.tokens),
        "tokens_per_second": row.tokens_per_second,
        "ratios": dict(row.ratios),
        "per_token": row.per_token,
        "figures": dict(row.figures),
        **({} if row.note is None else {"note": row.note}),
    }


def row_from_json(values: dict[str, Any]) -> Row:
    """The row that :func:`row_as_json` wrote."""
    head = {key: values[key] for key in ("case", "variant", "sizes", "curve")}
    if "skipped" in values:
        return Row(**head, skipped=values["skipped"])
    measured = {key: values[key] for key in ("tokens", "ratios", "per_token", "figures")}
    return Row(**head, seconds=values["rounds"], note=values.get("note"), **measured)


def as_json(suite: str, command: str, machine: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The whole record of a suite."""
    rows_as_json = [row_as_json(row) for row in rows]
    return numbered("bench", {"suite": suite, "command": command, "machine": machine, "rows": rows_as_json})


def write(file: Path, record: dict[str, Any]) -> None:
    """Write ``record``, and the folder if it is not there.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise CheckpointError(f"cannot write {file}: {error.strerror or error}. Choose another --out.") from error
