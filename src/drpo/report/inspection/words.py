"""The figures of a log, each with what it means in words."""

from __future__ import annotations

import math
from collections.abc import Callable

from drpo.inspection.result import Inspection
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.html.table import Cell, Column, Row, number, table, words

#: Share of tokens beyond δ → what it says; the suggested δ leaves 1 % of the diverging tokens outside.
BEYOND = (
    (0.0, "no token reaches δ: the bound does nothing"),
    (0.001, "hardly any: the bound seldom acts"),
    (0.02, "few: about what the suggested δ leaves outside"),
    (0.1, "many: the policy moves far within a rollout batch"),
    (1.0, "very many: most of the update is a fight with the bound; fewer updates or a lower learning rate would help"),
)
#: Mean |log π − log μ| in nats → what it says.
MISMATCH = (
    (1e-3, "the two sides agree up to rounding"),
    (0.02, "small: a token's probability is off by a percent or so"),
    (0.1, "moderate: staleness, or two engines that differ"),
    (math.inf, "large: very stale responses, or log-probabilities that do not belong together"),
)


def figures_table(found: Inspection) -> str:
    """The table: figure, value, words."""
    f = {name: finite(value) for name, value in found.figures.items()}
    columns = [Column("figure", words=True), Column("value"), Column("in words", words=True)]
    beyond, rare, diverging = f["beyond_delta"], f["rare_share"], f["diverging_share"]
    rows = [
        _row(f"|π − μ| > δ = {plain(found.delta)}", beyond, percent, f"{one_in(beyond)}; {_judged(beyond, BEYOND)}"),
        _row("mean |π − μ|", f["shift"], plain, _of_delta(f["shift"], found.delta)),
        _row("largest |π − μ|", f["shift_max"], plain, _of_delta(f["shift_max"], found.delta)),
        _row("mean |log π − log μ|", f["mismatch"], _nats, _judged(f["mismatch"], MISMATCH)),
        _row("largest |log π − log μ|", f["mismatch_max"], _nats, _factor(f["mismatch_max"])),
        _row("mean ratio r", f["ratio"], plain, "1 in expectation, if the tokens are samples of μ"),
        _row("smallest ratio r", f["ratio_min"], plain, _times(f["ratio_min"])),
        _row("largest ratio r", f["ratio_max"], plain, _times(f["ratio_max"])),
        _row("diverging, Â(r − 1) > 0", diverging, percent, "the tokens that a trust region may hold back"),
        _row("rare, μ ≤ 0.01", rare, percent, f"{one_in(rare)}; here bounds on r and on |π − μ| differ most"),
    ]
    return table("figures of the log", columns, rows, stacked=True)


def one_in(part: float | None) -> str:
    """A share as one token in so many."""
    if part is None:
        return "unknown"
    if part == 0:
        return "no token"
    return "every token" if part > 0.995 else f"1 token in {plain(1 / part if part < 0.1 else round(1 / part, 1))}"


def _row(name: str, value: float | None, write: Callable[[float | None], str], said: str) -> Row:
    return Row([Cell(name), number(value, write), words(said)])


def _judged(value: float | None, scale: tuple[tuple[float, str], ...]) -> str:
    """The words of the first step of ``scale`` that ``value`` does not exceed."""
    return "unknown" if value is None else next(said for limit, said in scale if value <= limit)


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{plain(value)} nats"


def _of_delta(value: float | None, delta: float) -> str:
    return "unknown" if value is None else f"{percent(value / delta)} of δ"


def _factor(nats: float | None) -> str:
    """A difference of log-probabilities as a factor between probabilities."""
    return "unknown" if nats is None else f"one probability is {plain(math.exp(min(nats, 200.0)))} times the other"


def _times(ratio: float | None) -> str:
    if not ratio:
        return "unknown" if ratio is None else "a token that was sampled is impossible now"
    times, more = (ratio, "more") if ratio >= 1 else (1 / ratio, "less")
    return f"a token is {plain(times)} times {more} likely than when it was sampled"
