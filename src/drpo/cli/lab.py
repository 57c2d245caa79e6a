"""`drpo lab plan|run|report`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from drpo.cli.lab_display import duration, watch
from drpo.cli.printing import PlainConsole, wide_console
from drpo.cli.settings import refuse_data_file, refuse_options
from drpo.errors import CheckpointError
from drpo.files import replace_text
from drpo.lab.curves import read_curves
from drpo.lab.directory import StudyDirectory
from drpo.lab.doubts import doubts
from drpo.lab.draws import LogRange
from drpo.lab.estimate import Cost, measure_settings, seconds
from drpo.lab.plan import Plan, make_plan, row_path, tries
from drpo.lab.registration import check_registration, study_digest
from drpo.lab.results import Row, summary_rows
from drpo.lab.robustness import areas
from drpo.lab.run import Results, plain_verdicts, run_study, write_results
from drpo.lab.study import Hypothesis, Keys, Study, load_study
from drpo.lab.typed_study import typed_study
from drpo.lab.workers import LocalWorkers, Workers
from drpo.model.source import find_model
from drpo.report.study.page import build_study_page
from drpo.run_directory import RunDirectory
from drpo.tasks import make_task
from drpo.train.config import TrainConfig


def run_plan(source: str, scale: str | None, jobs: int | None, measure: bool) -> None:
    """Print the study, and the time that it would take."""
    console = wide_console()
    name, study = load_study(source, scale)
    plan, workers = make_plan(study), LocalWorkers.here(jobs)
    console.say(f"{name}: {study.title}. {study.question}\n")
    console.print(_arms(study))
    console.say(_counts(plan))
    for doubt in doubts(plan):
        console.say(f"note      {doubt}")
    for hypothesis in study.hypotheses:
        where = ", ".join(hypothesis.settings or study.settings)
        arms = f"{hypothesis.ours} against {hypothesis.theirs}"
        console.say(
            f"claim     {hypothesis.claim} ({arms}: {hypothesis.compare} of "
            f"{hypothesis.metric or study.metric}, {hypothesis.at}, in {where}{_tests(hypothesis)})"
        )
    if measure:
        _estimate(console, plan, workers)


def _arms(study: Study) -> Table:
    table = Table("arm", "differs by", "its own threshold", box=None, pad_edge=False)
    for name, arm in study.arms.items():
        own = "; ".join(f"{key}: {_tried(values)}" for key, values in arm.tries.items())
        table.add_row(name, json.dumps(arm.keys, ensure_ascii=False), own or "–")
    return table


def _tried(values: list[Any] | LogRange) -> str:
    if isinstance(values, LogRange):
        return f"{values.log[0]:g} to {values.log[1]:g}"
    return ", ".join(map(str, values))


def _tests(hypothesis: Hypothesis) -> str:
    """What a claim is tested for beyond a difference."""
    parts = [f"equivalence within ±{hypothesis.margin:g}"] if hypothesis.margin else []
    parts += ["one-sided"] if hypothesis.one_sided else []
    return "".join(f", {part}" for part in [*parts, *(["secondary"] if hypothesis.secondary else [])])


def _counts(plan: Plan) -> str:
    study, tuning = plan.study, plan.study.tuning
    lines = [f"\nsettings  {', '.join(study.settings)}", f"seeds     {study.seeds}"]
    if tuning:
        grids = {arm: len(list(tries(study, arm))) for arm in study.arms}
        rates = tuning.learning_rates if isinstance(tuning.learning_rates, list) else tuning.learning_rates.log
        lines.append(f"tuning    seeds {tuning.seeds}, learning rates {rates}; tries: {grids}")
        if confirm := tuning.confirm:
            lines.append(f"          the {confirm.best} best of each arm again, seeds {confirm.seeds}")
    if study.draws:
        lines.append(f"draws     {', '.join(study.draws)}, anew for each seed and the same for every arm")
    if study.looks:
        lines.append(f"looks     at {', '.join(map(str, study.looks))} seeds; an arm whose claims are decided stops")
    lines.append(f"digest    {study_digest(study)} (sha256 of the study; about.json keeps it from its first run)")
    again = f", and up to {len(plan.evaluated)} with each arm at its best" if tuning else ""
    lines.append(f"runs      {len(plan.tuning)} to tune, {len(plan.shared)} at the shared learning rate{again}")
    return "\n".join(lines)


def _estimate(console: PlainConsole, plan: Plan, workers: LocalWorkers) -> None:
    def say(setting: str, cost: Cost) -> None:
        console.say(
            f"          {setting}: {cost.start:.1f} s to start, {cost.step:.2f} s a step, "
            f"{cost.evaluation:.1f} s an evaluation, {cost.final:.1f} s the last"
        )

    console.say("measured  two steps of each setting, with nothing else running")
    costs = measure_settings(plan.evaluated, workers, say)
    most = plan.most()
    runs = "1 run" if workers.jobs == 1 else f"{workers.jobs} runs"
    console.say(
        f"time      at most {duration(seconds(most, costs, workers.jobs))} for {len(most)} runs, with {runs} at a "
        f"time, each on {workers.threads} threads, if they do not slow each other"
    )


def run_run(
    source: str,
    out: Path | None,
    scale: str | None,
    jobs: int | None,
    where: str,
    retry_failed: bool,
    keep_checkpoints: bool,
    reuse: Sequence[Path],
    settings: Sequence[str],
) -> None:
    """Run the study of ``source``, show its progress, and print the verdicts."""
    name, study = load_study(source, scale)
    path = out or default_directory(name)
    _run(study, path, jobs, where, retry_failed, keep_checkpoints, reuse, settings)


def run_compare(
    arguments: Sequence[str], seeds: int, out: Path | None, jobs: int | None, reuse: Sequence[Path] = ()
) -> None:
    """Compare objectives on one task, as a study that the command line describes.

    Args:
        arguments: objectives, and ``key=value`` settings of every run.
        seeds: how many.
        out: the directory of the study.
        jobs: runs at the same time.
        reuse: directories of studies whose finished runs are taken over.
    """
    refuse_options(arguments, ("--seeds", "--out", "--jobs", "--reuse", "--debug"))
    arms = [argument for argument in arguments if "=" not in argument.partition(":")[0]]
    for arm in arms:
        refuse_data_file(Path(arm))
    name, study = typed_study(arms, [argument for argument in arguments if argument not in arms], seeds)
    path = out or default_directory(name)
    config = make_plan(study).shared[0].config  # model and task are the same in every run
    make_task(config.task.name, **config.task.parameters)
    find_model(config.model, config.trust_remote_code, weights=False)
    _run(study, path, jobs, reuse=reuse)
    PlainConsole().say(f"study   {path / 'study.yaml'} (drpo lab run {path / 'study.yaml'} --out {path} goes on)")


def _run(
    study: Study,
    path: Path,
    jobs: int | None,
    where: str = "local",
    retry_failed: bool = False,
    keep_checkpoints: bool = False,
    reuse: Sequence[Path] = (),
    settings: Sequence[str] = (),
) -> None:
    """Run ``study`` in ``path`` (:func:`drpo.lab.run.run_study` describes the rest)."""
    console = PlainConsole()
    for doubt in doubts(make_plan(study).only(settings)):
        console.say(f"note: {doubt}")
    with _workers(where, jobs) as workers, watch(console) as watcher:
        results, stopped = run_study(study, path, workers, watcher, retry_failed, keep_checkpoints, reuse, settings)
    write_page(results, path)
    asked = results.within(settings)
    _say(console, asked, path)
    if stopped:
        console.say("stopped; run the same command again to continue")
        raise KeyboardInterrupt
    if asked.count("failed"):
        console.say("some runs failed; add --retry-failed to try them again")
    if asked.count("interrupted", "missing"):
        console.say("some runs were lost; run the same command again to continue them")
    if asked.count("failed", "interrupted", "missing"):
        sys.exit(2)


def _workers(where: str, jobs: int | None) -> AbstractContextManager[Workers]:
    if where == "ray":
        from drpo.lab.ray_workers import RayWorkers

        return RayWorkers.connected(jobs)
    return nullcontext(LocalWorkers.here(jobs))


def run_report(source: str, out: Path | None, scale: str | None) -> None:
    """Write the results so far.

    Raises:
        CheckpointError: nothing of the study has run there.
    """
    name, study = load_study(source, scale)
    path = out or default_directory(name)
    if not StudyDirectory(path).study_file.is_file():
        raise CheckpointError(f"{path} holds no study (no study.yaml). Give the directory of `drpo lab run` as --out.")
    StudyDirectory(path).create(study)  # says so if it is another one
    if note := check_registration(study, path):
        PlainConsole().say(f"note: {note}")
    results = write_results(study, path)
    write_page(results, path)
    _say(PlainConsole(), results, path)


def default_directory(name: str) -> Path:
    """Where a study runs unless told otherwise: the same place each time, so that it goes on."""
    return Path("runs") / "lab" / name


def write_page(results: Results, path: Path) -> None:
    """Write the study's report.html."""
    page = study_page(results, path)
    with StudyDirectory(path).writing():
        replace_text(path / "report.html", page)


def study_page(results: Results, path: Path) -> str:
    """The page of a study whose curves.csv lies in ``path``."""
    study, rows = results.study, results.rows
    summaries = {phase: summary_rows(study, rows, phase) for phase in ("shared", "best")}
    values = study.model_dump(exclude_none=True)
    values["settings"] = {name: _with_defaults(study, setting.keys) for name, setting in study.settings.items()}
    found = read_curves(path / "curves.csv")
    curves = {(curve.phase, curve.setting, curve.arm, curve.name): points for curve, points in found.items()}
    rows = [row | {"page": _page_of(row, path)} for row in rows]
    verdicts = plain_verdicts(results.verdicts)
    return build_study_page(values, rows, verdicts, summaries, curves, areas(study, rows))


def _page_of(row: Row, path: Path) -> str | None:
    """The report of a run of the study in ``path``, as seen from there; None where there is none."""
    page = RunDirectory(path / row_path(row)).report_file
    return page.relative_to(path).as_posix() if page.is_file() else None


def _with_defaults(study: Study, keys: Keys) -> Keys:
    """A setting with the numbers that it leaves to base and to TrainConfig, so that it can be placed beside others."""
    assert isinstance(study.base, dict)
    numbers = {
        name: field.default for name, field in TrainConfig.model_fields.items() if type(field.default) in (int, float)
    }
    return numbers | study.base | keys


def _say(console: PlainConsole, results: Results, path: Path) -> None:
    for row in results.rows:
        if row["status"] == "failed":
            console.say(f"failed  {row['setting']} × {row['arm']} seed {row['seed']}: {row['reason']}")
    for verdict in results.verdicts:
        console.say(f"claim   {verdict.hypothesis.claim}\n        {verdict.sentence}")
    counts = ", ".join(
        f"{count} {status}"
        for status in ("finished", "failed", "interrupted", "missing")
        if (count := results.count(status))
    )
    console.say(f"runs    {counts}\nresults {path / 'results.md'}\nreport  {path / 'report.html'}")
