"""The tokens that a run logged, in the token viewer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from drpo.files import read_jsonl
from drpo.inspection.result import SampledResponse
from drpo.report.html.frame import Section
from drpo.report.html.quantities import finite, plain
from drpo.report.run.history import History
from drpo.report.tokens.viewer import TokenTest, token_viewer
from drpo.run_directory import WEIGHTS, RunDirectory

#: Steps whose log is read, evenly spaced, and responses and tokens of each that are shown at most.
STEPS, RESPONSES, TOKENS = 8, 24, 6000
#: Lines of a step's log that are read.
LINES = 512
#: δ that colors refer to, of a run without one.
DELTA = 0.15


def tokens(run: RunDirectory, history: History) -> Section | None:
    """The section; None for a run that logged no tokens."""
    files = run.token_files()
    shown = [files[i * (len(files) - 1) // (STEPS - 1)] for i in range(STEPS)] if len(files) > STEPS else files
    found = [response for file in shown for response in _of_step(read_jsonl(file, ignore_cut_line=True), file.name)]
    if not found:
        return None
    delta = history.delta if history.delta is not None and 0 < history.delta <= 1 else DELTA
    found, weighted = _weighted(found, _objective(history))
    tests = [TokenTest(f"|π − μ| > δ = {plain(delta)}", "shift", delta)]
    said = "" if weighted else " <code>drpo inspect</code> shows its gradient weight too."
    if weighted:
        tests.append(TokenTest("w ≤ 0", "below_weight"))
    return Section(
        "Tokens",
        f"<p>Some logged responses of {len(shown)} of {len(files)} steps, each token colored by what updates did to "
        f"it.{said}</p>{token_viewer(found, delta, tests)}",
    )


def _objective(history: History) -> str:
    """The name of the run's own."""
    own = history.config.get("objective")
    return str(own.get("name", "objective")) if isinstance(own, Mapping) else "objective"


def _weighted(found: list[SampledResponse], objective: str) -> tuple[list[SampledResponse], bool]:
    """The responses with their weights under the name of the ``objective``, and whether any was logged. A run that an
    older version began and this one went on with has weights of some alone."""
    if not any(response.weights for response in found):
        return found, False
    named = [{objective: response.weights.get(WEIGHTS) or [math.nan] * len(response.logprobs)} for response in found]
    return [replace(response, weights=weights) for response, weights in zip(found, named, strict=True)], True


def _of_step(records: Iterator[dict[str, Any]], source: str) -> Iterator[SampledResponse]:
    """Responses of one step, evenly spaced: the later ones are of later updates."""
    lines = list(enumerate(islice(records, LINES), 1))
    room = TOKENS
    for row, record in lines[:: max(1, len(lines) // RESPONSES)][:RESPONSES]:
        response = _response(record, source, row)
        if response is None:
            continue
        room -= len(response.logprobs)
        if room < 0:
            return
        yield response


def _response(record: dict[str, Any], source: str, row: int) -> SampledResponse | None:
    """A line of the log; None where it lacks what is drawn."""
    pi, mu = _numbers(record.get("logprobs")), _numbers(record.get("behavior_logprobs"))
    if not pi or len(pi) != len(mu):
        return None
    advantage, group = finite(record.get("advantage")), record.get("group_id")
    step, update = (record.get(name) for name in ("step", "update"))
    return SampledResponse(
        source=source,
        row=row,
        step=step if isinstance(step, int) else None,
        update=update if isinstance(update, int) else None,
        group=None if group is None else str(group)[:80],
        reward=finite(record.get("reward")),
        first=0,
        length=len(pi),
        texts=_texts(record.get("texts"), len(pi)),
        ids=_texts(record.get("tokens"), len(pi)),
        behavior_logprobs=mu,
        logprobs=pi,
        advantages=[0.0 if advantage is None else advantage] * len(pi),
        weights=_weights(record.get(WEIGHTS), len(pi)),
    )


def _weights(values: object, length: int) -> dict[str, list[float]]:
    """The gradient weights, NaN where there is none; empty where they were not logged."""
    if not isinstance(values, list) or len(values) != length:
        return {}
    known = (finite(value) for value in values)
    return {WEIGHTS: [math.nan if value is None else value for value in known]}


def _numbers(values: object) -> list[float]:
    """A list of finite numbers; empty for anything else."""
    found = [finite(value) for value in values] if isinstance(values, list) else []
    return [value for value in found if value is not None] if None not in found else []


def _texts(values: object, length: int) -> list[str | None] | None:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
        return None
    return [None if value is None else str(value)[:1000] for value in values]
