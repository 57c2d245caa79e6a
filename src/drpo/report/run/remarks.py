"""Remarks above the curves: warnings first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from drpo.report.html.escape import visible
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.run.history import History, failed_rewards, value_of

#: A remark is HTML, and whether it is a warning.
Remark = tuple[bool, str]
#: Figures that exist for every healthy update; null means that they were not finite.
ALWAYS_FINITE = ("loss", "gradient_norm", "entropy")


def remarks(history: History) -> str:
    """The list of remarks as HTML; empty if there is nothing to say."""
    writers: tuple[Callable[[History], Iterator[Remark]], ...] = (
        _how_it_ended,
        _what_is_missing,
        _broken_numbers,
        _lengths,
        _entropy,
        _region,
        _sampler_gap,
    )
    found = [remark for write in writers for remark in write(history)]
    found.sort(key=lambda remark: not remark[0])
    if not found:
        return ""
    items = (f"<li{' class=warn' if warning else ''}>{text}</li>" for warning, text in found)
    return f"<ul class='notes'>{''.join(items)}</ul>"


def _how_it_ended(history: History) -> Iterator[Remark]:
    status = history.manifest.get("status")
    planned = history.steps_planned
    if status != "finished":
        of = "" if planned is None else f" of {planned}"
        yield (
            True,
            (
                f"This run is not finished (status: {visible(status or 'unknown', 40)}); "
                f"{history.steps_done}{of} steps are recorded."
            ),
        )
    failure = history.manifest.get("failure")
    if failure and status == "failed":  # a resumed run may carry the reason of an earlier attempt
        yield True, f"It failed with<pre>{visible(failure, 4000)}</pre>"


def _what_is_missing(history: History) -> Iterator[Remark]:
    if not history.updates:
        yield True, "No update was recorded, so there are no training curves."
    if not history.evaluations:
        yield True, "No evaluation was recorded, so the gain on held-out prompts is unknown."
    if failed := failed_rewards(history):
        yield True, f"{failed:,.0f} rewards could not be computed; these responses are excluded everywhere."


def _broken_numbers(history: History) -> Iterator[Remark]:
    for key in ALWAYS_FINITE:
        broken = [record for record in history.updates if key in record and value_of(record, key) is None]
        if broken:
            yield (
                True,
                (
                    f"{key.replace('_', ' ')} was not finite in {len(broken):,} of {len(history.updates):,} "
                    f"updates, first at step {broken[0]['step']}; the curves have gaps there."
                ),
            )
    saturated = sum(1 for value in history.values("saturated_share") if value > 0)
    if saturated:
        yield True, f"Extreme log-ratios were clamped in {saturated:,} updates (saturated_share > 0)."


def _lengths(history: History) -> Iterator[Remark]:
    last = _last(history, "truncated_share")
    if last is not None and last > 0.1:
        yield True, f"{percent(last)} of the last step's responses reached the length limit."


def _entropy(history: History) -> Iterator[Remark]:
    values = history.values("entropy")
    if len(values) > 1 and values[-1] < 0.1 * values[0]:
        yield False, f"Entropy fell from {plain(values[0])} to {plain(values[-1])} nats per token."


def _region(history: History) -> Iterator[Remark]:
    objective = history.config.get("objective")
    delta = finite(objective.get("delta")) if isinstance(objective, Mapping) else None
    if delta is not None and delta >= 1:
        yield (
            True,
            f"δ = {plain(delta)} bounds nothing: |π − μ| cannot exceed 1, so no token is ever masked or corrective.",
        )
    furthest, beyond = history.values("shift_max"), history.values("beyond_delta")
    if furthest and max(furthest) == 0:
        yield False, "π equals μ on every token: all ratios are 1, and the trust region is inert."
    elif furthest and beyond and max(beyond) == 0 and history.delta is not None:
        yield (
            False,
            (f"No token was beyond δ = {plain(history.delta)}; the largest |π − μ| is {plain(max(furthest))}."),
        )


def _sampler_gap(history: History) -> Iterator[Remark]:
    if not history.updates:
        return
    first = history.updates[0]
    mean, tail = value_of(first, "mismatch"), value_of(first, "mismatch_p95")
    if mean is not None and (first["step"], first.get("update", 0)) == (1, 0):
        also = "" if tail is None else f" (p95 {plain(tail)})"
        yield (
            False,
            (
                f"Training–inference mismatch: mean |log π − log μ| before the first update, at equal weights, is "
                f"{plain(mean)} nats{also}."
            ),
        )


def _last(history: History, key: str) -> float | None:
    return next((point.value for point in reversed(history.by_step(key)) if point.value is not None), None)
