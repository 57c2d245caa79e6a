"""Token logs of every layout, sound and damaged, through `drpo inspect`: the figures, the tables and the page."""

from __future__ import annotations

import contextlib
import io
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.cli.inspection_tables import show
from drpo.cli.printing import PlainConsole
from drpo.inspection.inspect import inspect
from drpo.inspection.readers.column_map import parse_column_map
from drpo.inspection.result import Inspection
from drpo.objectives import OBJECTIVES
from drpo.report.inspection.page import build_inspection_page
from fuzz.log_files import write_log
from fuzz.log_records import Sketch, sketch
from fuzz.outcomes import outcome, run_command

UNITS = 1000
SMALL = 3
#: Lines of one log.
SIZES = (1, 2, 5, 20, 60, 150, 400)
_DELTAS = (None, None, None, 0.15, 0.01, 1e-9, 1.0, 1e308, float("nan"), -1.0, float("inf"))
_MAPS = (
    "mask=none",
    "logprob=lp",
    "mask=loss_mask",
    "mask=loss_mask+tool_mask",
    "step=none,update=none",
    "text=none",
    "behavior_logprob=logprobs",
    "logprob",
    "mask=",
    "sequence_id=step",
    "entropy=none",
    "=",
    "token=text",
)
_NOT_FINITE = re.compile(r"(?<![A-Za-z])(nan|inf)(?![A-Za-z])")


def run_case(seed: int, folder: Path) -> str | None:
    """Logs of ``UNITS`` lines together."""
    random_ = random.Random(f"logs {seed}")
    for unit, size in enumerate(_sizes(random_)):
        here = folder / str(unit)
        here.mkdir()
        log = sketch(random_, size)
        write_log(here, log, random_)
        problem = _check(here, log, random_)
        if problem is not None:
            return f"log {unit}, {log.kind}, {sorted(file.name for file in here.iterdir())}: {problem}"
    return None


def _sizes(random_: random.Random) -> Iterator[int]:
    left = UNITS
    while left:
        size = min(left, random_.choice(SIZES))
        yield size
        left -= size


def _check(folder: Path, log: Sketch, random_: random.Random) -> str | None:
    files = sorted(folder.iterdir())
    paths = [folder] if random_.random() < 0.2 else files
    sound = log.kind == "sound" and log.tokens > 0  # its masks may leave out all
    delta = None if sound else random_.choice(_DELTAS)
    maps = [random_.choice(_MAPS)] if not sound and random_.random() < 0.1 else []
    if random_.random() < 0.05:
        options = [*(f"--map={text}" for text in maps), *([] if delta is None else [f"--delta={delta}"])]
        status, said, problem = run_command(["inspect", *map(str, paths), *options, f"--html={folder / 'page.html'}"])
        return problem or (f"a sound log is refused: {said[:300]}" if sound and status else None)
    names = None if random_.random() < 0.3 else random_.sample(sorted(OBJECTIVES), 3)

    def call() -> Inspection:
        return inspect(paths, delta, names, columns=parse_column_map(maps))

    found, error, problem = outcome(call)
    if problem is not None or error is not None:
        needs = "cannot be evaluated" in str(error)
        return problem or (f"a sound log is refused: {error}" if sound and not needs else None)
    problem = _not_finite(found) or _page_problem(found) or (_table_problem(found) if random_.random() < 0.5 else None)
    if problem is None and sound and (found.tokens, found.sequences) != (log.tokens, log.sequences):
        return f"{found.tokens} tokens of {found.sequences} responses for {log.tokens} of {log.sequences}"
    return problem


def _not_finite(found: Inspection) -> str | None:
    """Where the result holds a number that is not finite."""
    values = found.figures_only()
    # The mean over the tokens of a sign that none has.
    figures = {
        name: value
        for name, value in values.pop("figures").items()
        if not (math.isnan(value) and name.endswith(("_positive", "_negative")))
    }
    return next(
        (
            f"{place} is {value}"
            for place, value in _numbers({"figures": figures, **values}, "")
            if not math.isfinite(value)
        ),
        None,
    )


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _numbers(item, f"{place}.{key}")


def _page_problem(found: Inspection) -> str | None:
    """What is wrong with the page."""
    page, _, problem = outcome(lambda: build_inspection_page(found))
    if problem is not None:
        return f"page: {problem}"
    # What a model wrote, and what a finding quotes, may be any text.
    page = re.sub(
        r"<style>.*?</style>|<section[^>]*><h2>Findings.*?</section>|<bdi.*?</bdi>", "", page, flags=re.DOTALL
    )
    if bad := _NOT_FINITE.search(page):
        return f"the page says {page[max(0, bad.start() - 60) : bad.end() + 20]!r}"
    return None


def _table_problem(found: Inspection) -> str | None:
    """What is wrong with the tables in the terminal."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        _, _, problem = outcome(lambda: show(found, PlainConsole(width=160), everything=True, chosen=False))
    if problem is not None:
        return f"tables: {problem}"
    tables = stream.getvalue()
    if unclean := next((c for c in tables if not c.isprintable() and c not in "\n\t\u200c\u200d"), None):
        return f"the tables print {unclean!r}"
    tables = tables[tables.find("Suggested δ") :].split("Most affected tokens")[0]
    if bad := _NOT_FINITE.search(tables):
        return f"the tables say {tables[max(0, bad.start() - 60) : bad.end() + 20]!r}"
    return None
