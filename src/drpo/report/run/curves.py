"""The curves of a report, with their captions."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.intervals import accuracy_interval
from drpo.report.html.frame import Section
from drpo.report.html.quantities import percent, plain, seconds
from drpo.report.palette import paint
from drpo.report.run.histograms import Histogram, draw_histogram
from drpo.report.run.history import History, Record, time_by_part, value_of
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point, known
from drpo.run_directory import SHIFT_EDGES, WEIGHT_EDGES

#: A heading, its introduction and its figures, both as HTML.
Charts = tuple[str, str, list[str]]


def charts_by_section(history: History) -> list[Charts]:
    """The charts that the records allow: none without records, no training curves without updates."""
    steps = (0.0, float(max(1, history.last_step)))
    sections: list[Charts] = []
    if history.updates or history.evaluations:
        sections.append(("Learning", "", [draw(chart, steps) for chart in _learning(history)]))
    if history.updates:
        sections += [
            (
                "Trust region",
                _explanation(history),
                [
                    *(draw(chart, steps) for chart in _trust_region(history)),
                    *(draw_histogram(histogram, history) for histogram in _histograms(history)),
                    *_staleness(history),
                ],
            ),
            ("Policy", "", [draw(chart, steps) for chart in _policy(history)]),
            ("Time", _time_shares(history), [draw(chart, steps) for chart in _time(history)]),
        ]
    return sections


def _updates_per_step(history: History) -> int:
    return max((record.get("update", 0) for record in history.updates), default=0) + 1


def _explanation(history: History) -> str:
    letters = (
        "π is the trained policy's probability of the sampled token, μ the behavior policy's; Â is the token's "
        "advantage."
    )
    if _updates_per_step(history) == 1:
        return letters
    return f"{letters} A line is the mean over a step's updates (min and max: the extremes), its band their range."


def _learning(history: History) -> list[Chart]:
    held_out = [_with_interval(record) for record in history.evaluations]
    charts = [
        Chart(
            "Accuracy",
            "of the sampled training responses, and on held-out prompts with 95 % confidence intervals.",
            [Line("train", history.by_step("accuracy")), Line("held-out", held_out, 2, marks=True)],
            text=percent,
        )
    ]
    if any(
        value_of(record, "reward") != value_of(record, "accuracy")
        for record in (*history.updates, *history.evaluations)
    ):
        charts.append(
            Chart(
                "Reward",
                "mean over the responses.",
                [
                    Line("train", history.by_step("reward")),
                    Line("held-out", history.by_evaluation("reward"), 2, marks=True),
                ],
            )
        )
    return charts


def _with_interval(record: Record) -> Point:
    low, high = accuracy_interval(record) or (None, None)
    return Point(record["step"], value_of(record, "accuracy"), low, high)


def _trust_region(history: History) -> list[Chart]:
    delta = history.delta
    bound = "δ" if delta is None else f"δ = {plain(delta)}"
    return [
        Chart(
            "Absolute probability shift |π − μ|",
            "of the sampled tokens.",
            [Line("mean", history.by_step("shift")), Line("p99", history.by_step("shift_p99"), 2)],
            log=True,
            rules=_boundary(history, f"δ = {plain(delta)}"),
        ),
        Chart(
            "Tokens beyond δ",
            f"share of tokens with |π − μ| > {bound}, by sign of the advantage.",
            [
                Line("all", history.by_step("beyond_delta")),
                Line("Â > 0", history.average("beyond_delta_positive"), 3),
                Line("Â < 0", history.average("beyond_delta_negative"), 2),
            ],
            text=percent,
        ),
        *_corrected(history),
        Chart(
            "Ratio π/μ",
            "over the tokens of an update.",
            [
                Line("min", history.lowest("ratio_min"), 3),
                Line("mean", history.by_step("ratio")),
                Line("max", history.highest("ratio_max"), 2),
            ],
            log=True,
            rules=[(1.0, "")],
        ),
        Chart(
            "Mismatch |log π − log μ|",
            "in nats. Without staleness, a step's first update shows the training–inference mismatch alone.",
            [
                Line("mean", history.by_step("mismatch")),
                Line("p95", history.average("mismatch_p95"), 3),
                Line("max", history.highest("mismatch_max"), 2),
            ],
            log=True,
        ),
    ]


def _corrected(history: History) -> list[Chart]:
    return [
        Chart(
            "Corrective and masked tokens",
            "share of tokens with a negative gradient weight w (corrective), and with w = 0 (masked).",
            [
                Line("w < 0", history.by_step("corrective_share")),
                Line("w = 0", history.average("masked_share"), 2, dash=1),
            ],
            text=percent,
        ),
        Chart(
            "Corrective and masked gradient mass",
            "their share of the gradient mass Σ |Â r|.",
            [
                Line("w < 0", history.by_step("corrective_mass")),
                Line("w = 0", history.average("masked_mass"), 2, dash=1),
            ],
            text=percent,
        ),
    ]


def other_objectives(history: History) -> Section | None:
    """What other objectives would hold back of the same tokens; None where it was not recorded."""
    lines = [
        Line("PPO", history.average("others.ppo.masked_mass"), *paint("ppo")[:2]),
        Line("SPO", history.average("others.spo.corrective_mass"), *paint("spo")[:2]),
        # One line: for the same δ, DPPO masks the tokens that are corrective under DRPO.
        Line("DPPO, DRPO", history.average("others.drpo.corrective_mass"), *paint("drpo")[:2]),
    ]
    means = {line.name: sum(values) / len(values) for line in lines if (values := known(line.points))}
    if not means:
        return None
    chart = Chart(
        "Held back, by step",
        "share of the gradient mass Σ |Â r| that is masked (PPO, DPPO) or corrective (SPO, DRPO) at default settings.",
        lines,
        text=percent,
    )
    said = "; ".join(f"{name} {percent(value)}" for name, value in means.items())
    drawn = draw(chart, (0.0, float(max(1, history.last_step))))
    return Section(
        "What other objectives would hold back",
        f"<p>On the tokens of this run, averaged over its steps, these objectives would hold back this much of the "
        f"gradient: {said}.</p><div class='charts'>{drawn}</div>",
        name="others",
    )


def _boundary(history: History, label: str) -> list[tuple[float, str]]:
    """The line at δ; none if δ > 1, which |π − μ| cannot reach."""
    return [] if history.delta is None or history.delta > 1 else [(history.delta, label)]


def _histograms(history: History) -> Sequence[Histogram]:
    between = "share of tokens (log scale) in the first and last third of the steps"
    return (
        Histogram(
            "shift",
            "Distribution of |π − μ|:",
            f"{between}.",
            SHIFT_EDGES,
            rules=_boundary(history, "δ"),
            log=True,
        ),
        Histogram(
            "weight",
            "Distribution of the gradient weight w:",
            f"{between}. w = 1: plain surrogate; w < 0: corrective. The outermost bins include all values beyond them.",
            WEIGHT_EDGES,
            rules=[(0.0, ""), (1.0, "w = 1")],
        ),
    )


def _staleness(history: History) -> list[str]:
    """|π − μ| by update within a step; nothing with one update per step."""
    updates = _updates_per_step(history)
    if updates == 1:
        return []
    lines = [Line("mean", history.by_update("shift")), Line("p99", history.by_update("shift_p99"), 2)]
    caption = "|π − μ| by update within a step: mean over all steps, and their range."
    chart = Chart("Staleness", caption, lines, log=True, x_label="update")
    return [draw(chart, (1.0, float(updates)))]


def _policy(history: History) -> list[Chart]:
    return [
        Chart("Entropy", "of π, in nats per token.", [Line("", history.by_step("entropy"))]),
        Chart("Gradient norm", "before clipping.", [Line("", history.by_step("gradient_norm"))], log=True),
        Chart(
            "Response length",
            "in tokens.",
            [
                Line("train", history.by_step("response_length")),
                Line("held-out", history.by_evaluation("response_length"), 2, marks=True),
            ],
        ),
        Chart(
            "Truncated responses",
            "share of responses that reached the length limit.",
            [
                Line("train", history.by_step("truncated_share")),
                Line("held-out", history.by_evaluation("truncated_share"), 2, marks=True),
            ],
            text=percent,
        ),
        Chart(
            "Rare tokens",
            "share of sampled tokens with μ ≤ 0.01.",
            [Line("", history.by_step("rare_share"))],
            text=percent,
        ),
    ]


def _time(history: History) -> list[Chart]:
    return [
        Chart(
            "Seconds per step",
            "",
            [
                Line(part, history.summed_by_step(f"timing.{part}"), color)
                for part, color in (("sampling", 2), ("grading", 3), ("training", 1))
            ],
        ),
        Chart("Throughput", "tokens per second.", [Line("", history.by_step("timing.tokens_per_second"))]),
    ]


def _time_shares(history: History) -> str:
    totals = time_by_part(history)
    whole = sum(totals.values())
    if not whole:
        return ""
    parts = (f"{part} {seconds(spent)} ({percent(round(spent / whole, 2))})" for part, spent in totals.items())
    return f"Total: {'; '.join(parts)}."
