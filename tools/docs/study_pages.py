"""What the studies below results/ came to, computed again from the committed results.csv.

Makes the tables of docs/studies.md, the figure of accuracy against δ, and each report.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from drpo.cli.lab import write_page
from drpo.files import read_json
from drpo.lab.results import Row, summary_rows
from drpo.lab.run import kept_results, write_verdicts
from drpo.lab.statistics import ALPHA, Estimate
from drpo.lab.study import Study, check_study
from drpo.lab.tables import headings, table
from drpo.lab.verdict import Verdict, signed
from drpo.report.figures.delta_curve import Point, delta_curve
from drpo.train.config_text import read_yaml
from tools import RESULTS

FIRST_ROUND = ("settle", "delta", "mask", "advantage-weight", "staleness", "activation", "divergence")
SECOND_ROUND = (
    "settle2-tuned",
    "settle2-area",
    "settle2-matched",
    "settle2-models",
    "settle2-pretrained",
    "settle2-small-vocabulary",
)
FURTHER = ("rivals", "truncated-sampling")
ORDER = (*SECOND_ROUND, *FIRST_ROUND, *FURTHER)
#: Those that are finished.
STUDIES = [name for name in ORDER if (RESULTS / name / "verdicts.json").is_file()]
FIGURES = ("rare_share", "beyond_delta")
#: Of the remark of a verdict on a choice that the tuning's grid ends at.
EDGE = "at the edge of the tuning's grid"


@cache
def load(name: str) -> tuple[Study, tuple[Row, ...], tuple[Verdict, ...]]:
    """A study with its rows, and its verdicts judged again from them, with the studies of its family beside it."""
    study = check_study(read_yaml(RESULTS / name / "study.yaml"), name)
    found = kept_results(study, RESULTS / name)
    return study, tuple(found.rows), tuple(found.verdicts)


def record(name: str, file: str) -> Any:
    """A JSON file of a study."""
    return read_json(RESULTS / name / file)


def ran(study: Study, rows: Sequence[Row], phase: str = "shared") -> list[str]:
    """The settings all of whose runs of a phase have ended."""

    def ended(setting: str) -> bool:
        mine = [row["status"] for row in rows if (row["phase"], row["setting"]) == (phase, setting)]
        return bool(mine) and set(mine) <= {"finished", "failed"}

    return [setting for setting in study.settings if ended(setting)]


def about(name: str) -> str:
    """The command, how many runs, when and on what."""
    study, rows, _ = load(name)
    made = record(name, "about.json")
    machine = made["machine"]
    # A run at an arm's best that is the shared one is the same directory, and the same command.
    runs = {row["command"]: row["status"] for row in rows if row["setting"] in ran(study, rows)}
    failed = list(runs.values()).count("failed")
    dates = " to ".join(dict.fromkeys([made["began"], made["ended"]])) if made["began"] else machine["date"]
    reused = f", those that it shares with {', '.join(made['reused'])} taken over" if made["reused"] else ""
    threads = ", ".join(map(str, made["threads_a_run"])) or "1"
    took = f"; {made['seconds'] / 60:.0f} minutes of runs" if made["started"] else ""
    return (
        f"`{made['command']}`: {len(runs)} runs{reused}, {failed} failed; {dates}, {machine['cpu']}, "
        f"{machine['cores']} cores, threads a run: {threads}, torch "
        f"{machine['packages']['torch']}{took}."
    )


def second_round_block() -> str:
    """docs/studies.md: the studies of the second round that have ended, and which have not."""
    left = [f"`{name}`" for name in SECOND_ROUND if name not in STUDIES]
    waiting = f"Not finished: {', '.join(left)}." if left else ""
    return "\n\n".join(filter(None, (_studies(SECOND_ROUND), waiting)))


def first_round_block() -> str:
    """The same of the first round."""
    return _studies(FIRST_ROUND)


def further_block() -> str:
    """The same of the studies of neither."""
    return _studies(FURTHER)


def _studies(names: Sequence[str]) -> str:
    """Each study: its question, how it ran, its claims and its arms."""
    parts = []
    for name in (name for name in names if name in STUDIES):
        study, rows, _ = load(name)
        where = ran(study, rows)
        missing = [setting for setting in study.settings if setting not in where]
        links = (
            f"[study](../src/drpo/recipes/studies/{name}.yaml), [verdicts](../results/{name}/verdicts.json), "
            f"[runs](../results/{name}/results.csv), [curves](../results/{name}/curves.csv)"
        )
        parts += [f"### {study.title}", f"*{study.question}* ({links})", about(name)]
        if missing:
            parts.append(f"Not run yet: {', '.join(missing)}.")
        parts.append(claims_table(name, [*where, "all"]))
        for phase, heading in headings(study).items():
            if settings := ran(study, rows, phase):
                parts += [f"**{heading}**", arms_table(study, rows, phase, settings)]
        if name == "activation":
            parts += activation_parts()
    return "\n\n".join(parts)


def arms_table(study: Study, rows: Sequence[Row], phase: str, settings: Sequence[str]) -> str:
    """Arms over their seeds."""
    head = (
        "setting",
        "arm",
        "final accuracy",
        "95 %",
        "std",
        "area",
        "drawdown",
        "collapsed",
        "p99 |π−μ|",
        "beyond δ=0.15, Â>0",
        "Â<0",
        "w<0",
    )
    lines = []
    for row in summary_rows(study, rows, phase):
        if row["setting"] in settings:
            lines.append(
                [
                    row["setting"],
                    row["arm"],
                    f"{row['final_accuracy']:.3f}",
                    f"{row['low']:.3f} to {row['high']:.3f}",
                    f"{row['spread']:.3f}",
                    f"{row['area']:.3f}",
                    f"{row['drawdown']:.3f}",
                    f"{row['collapsed']} of {row['runs']}",
                    f"{row['shift_p99']:.3f}",
                    f"{row['beyond_delta_positive']:.2%}",
                    f"{row['beyond_delta_negative']:.2%}",
                    f"{row['corrective_share']:.2%}",
                ]
            )
    return table(head, lines)


def activation_parts() -> list[str]:
    """Of logged tokens: how often each trust region would act, and where the moves are."""
    parts = []
    for setting, arms in record("activation", "tokens.json").items():
        objectives = [verdict["objective"] for verdict in next(iter(arms.values()))["verdicts"]]
        lines = [
            [
                arm,
                f"{found['tokens']:,}",
                *(f"{found['figures'][name]:.2%}" for name in FIGURES),
                *(f"{verdict['changed']:.2%}" for verdict in found["verdicts"]),
            ]
            for arm, found in arms.items()
        ]
        parts += [
            f"**{setting}: logged tokens** (a 20th of all, all seeds together). The last columns: the share of "
            "the gradient's mass that each trust region would change on these tokens, at δ = 0.15 where it has "
            "one.",
            table(("trained with", "tokens", "μ ≤ 0.01", "|π−μ| > 0.15", *objectives), lines),
        ]
        own = arms["drpo"]
        bins = [
            [
                f"{part['low']:g} to {part['high']:g}",
                f"{part['share']:.1%}",
                f"{part['ratio_p05']:.2f}",
                f"{part['ratio_p95']:.2f}",
                f"{part['shift_p99']:.3g}",
                f"{part['beyond_delta']:.2%}",
            ]
            for part in own["mu_bins"]
            if part["share"]
        ]
        parts += [
            f"**{setting}: where the moves are**, trained with DRPO at δ = 0.15",
            table(("μ", "tokens", "ratio p5", "ratio p95", "|π−μ| p99", "|π−μ| > 0.15"), bins),
        ]
    return parts


def untrained(rows: Sequence[Row], setting: str) -> float:
    """What the base reached in the evaluation before the first step, over seeds."""
    return fmean(
        {
            row["seed"]: row["accuracy_before"] for row in rows if (row["setting"], row["phase"]) == (setting, "shared")
        }.values()
    )


def claims_table(name: str, settings: Sequence[str]) -> str:
    """Claims and those of ``settings`` in which one was judged: a line for each of whatever there is more of."""
    study, _, verdicts = load(name)
    judged = {verdict.setting for verdict in verdicts if verdict.found}
    shown = [setting for setting in settings if setting in judged]
    grid: list[list[Any]] = [["claim", *("all together" if setting == "all" else setting for setting in shown)]]
    for hypothesis in study.hypotheses:
        answers = {verdict.setting: answer(verdict) for verdict in verdicts if verdict.hypothesis == hypothesis}
        grid.append([hypothesis.claim, *map(answers.get, shown)])
    if len(shown) > len(study.hypotheses):
        grid[0][0] = "setting"
        grid = list(map(list, zip(*grid, strict=True)))
    return table(grid[0], grid[1:])


def interval(found: Estimate) -> str:
    """A difference with its confidence interval."""
    return f"{signed(found.value)} ({signed(found.low)} to {signed(found.high)})"


def in_words(verdict: Verdict) -> str:
    """The answer; an equivalence with its margin."""
    return f"equivalent within ±{verdict.hypothesis.margin:g}" if verdict.answer == "equivalent" else verdict.answer


def answer(verdict: Verdict) -> str | None:
    """What was found in one setting, as docs/studies.md explains it."""
    if (found := verdict.found) is None:
        return None
    power = verdict.detectable
    assert power is not None
    if verdict.hypothesis.compare == "variance":
        text, least = f"× {found.value:.2g} ({found.low:.2g} to {found.high:.2g})", f"× {power.value:.2g}"
    else:
        text, least = interval(found), f"{power.value:.3f}"
    edge = " ‡" if EDGE in verdict.remark else ""
    if verdict.answer != "undecided":
        return f"**{in_words(verdict)}** {text}{edge}"
    return f"{text}; {least}{' †' if verdict.adjusted_p <= ALPHA else ''}{edge}"


def figure() -> Figure:
    """Final accuracy against δ."""
    study, rows, _ = load("delta")
    found = {row["arm"]: row for row in summary_rows(study, rows, "shared") if row["setting"] == "dense"}
    lines: dict[str, list[Point]] = {"drpo": [], "dppo_tv": []}
    for name, row in found.items():
        objective = study.arms[name].keys["objective"]
        if objective["name"] in lines:
            lines[objective["name"]].append((objective["delta"], row["final_accuracy"], row["low"], row["high"]))
    none = found["surrogate"]
    band = ("surrogate", (none["final_accuracy"], none["low"], none["high"]))
    return delta_curve(lines, band, untrained(rows, "dense"))


def write_report(name: str) -> Path:
    """Write a study's verdicts.json, results.md and report.html (git ignores it) from its tables; returns the page."""
    folder = RESULTS / name
    results = kept_results(load(name)[0], folder)
    write_verdicts(results, folder)
    write_page(results, folder)
    return folder / "report.html"
