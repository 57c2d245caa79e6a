"""A study from its first run to its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from drpo.errors import ConfigError
from drpo.files import json_text, replace_text, without_nan
from drpo.lab.curves import curves_text
from drpo.lab.directory import State, StudyDirectory
from drpo.lab.judge import Member, judge, open_arms
from drpo.lab.plan import Plan, Run, make_plan
from drpo.lab.registration import check_registration
from drpo.lab.results import Row, read_csv, read_rows, write_csv
from drpo.lab.reuse import Reusable, finished_runs, reuse_runs
from drpo.lab.runner import Runner, Watcher
from drpo.lab.study import Study, check_study
from drpo.lab.tables import markdown
from drpo.lab.tuning import choose, finalists, read_choices, write_choices
from drpo.lab.verdict import Verdict
from drpo.lab.workers import Workers
from drpo.run_directory import RunDirectory
from drpo.schema import numbered
from drpo.train.config_text import read_yaml


@dataclass(frozen=True)
class Results:
    """Every planned run as a row, and a verdict for every comparison."""

    study: Study
    rows: list[Row]
    verdicts: list[Verdict]

    def count(self, *statuses: str) -> int:
        """How many runs stand so."""
        return sum(row["status"] in statuses for row in self.rows)

    def within(self, settings: Sequence[str]) -> Results:
        """What belongs to these settings; all of it for none named."""

        def kept(setting: str) -> bool:
            return not settings or setting in settings

        return replace(
            self,
            rows=[row for row in self.rows if kept(row["setting"])],
            verdicts=[verdict for verdict in self.verdicts if kept(verdict.setting)],
        )


def run_study(
    study: Study,
    path: Path,
    workers: Workers,
    watcher: Watcher,
    retry_failed: bool = False,
    keep_checkpoints: bool = False,
    reuse: Sequence[Path] = (),
    settings: Sequence[str] = (),
) -> tuple[Results, bool]:
    """Run what is not finished, the tuning first, and write the results; also whether it was stopped before its end.

    Finished runs of the same configuration below ``reuse`` are copied instead of run, or their rows taken over. With
    ``settings`` only runs in these are started; the others stay missing until they are.

    Raises:
        DrpoError: the study or its directory is not as it should be; nothing was started.
    """
    plan, directory = make_plan(study).only(settings), StudyDirectory(path)
    if is_kept(study, path) and path.resolve() not in [source.resolve() for source in reuse]:
        raise ConfigError(
            f"{path} holds the tables of runs whose directories are not there, and running the study would replace "
            f"them. Add --reuse {path} to go on from their rows, or choose another --out."
        )
    reusable = finished_runs(reuse)
    directory.create(study)
    for note in (check_registration(study, path), *_refused(reusable)):
        if note:
            watcher.on_note(note)
    with directory.locked(watcher.on_note) as hold:
        runner = Runner(directory, workers, watcher, hold, keep_checkpoints)
        with runner.stop_on_signals():
            _run_phases(plan, runner, retry_failed, reusable)
    return write_results(study, path), runner.stopping


def _refused(reusable: Reusable) -> list[str]:
    notes = [f"{count} runs are not reused: {reason}" for reason, count in reusable.refused.items()]
    return notes + [
        f"{len(rows)} runs are of another processor ({cpu}): reused where every arm of a seed is there, or in a tuning "
        "every try of an arm"
        for cpu, rows in reusable.elsewhere.items()
    ]


def _run_phases(plan: Plan, runner: Runner, retry_failed: bool, reusable: Reusable) -> None:
    def run(runs: Sequence[Run]) -> bool:
        """Whether all of them ended."""
        states = _run(runs, runner, retry_failed, reusable)
        return all(state.status in ("finished", "failed") for state in states.values())

    best = list[Run]()
    if plan.tuning:
        if not run(plan.tuning) or not run(_second_round(plan, runner.directory)):
            return  # stopped: what is best is not known yet
        choices, records = choose(plan, _tuning_rows(plan, runner.directory))
        write_choices(runner.directory, records)
        best = plan.best(choices)
    evaluated = list(dict.fromkeys([*plan.shared, *best]))
    if not runner.stopping:
        _run_looks(plan.study, evaluated, runner, run)


def _run_looks(study: Study, runs: Sequence[Run], runner: Runner, run: Callable[[Sequence[Run]], bool]) -> None:
    """Run look by look, and no arm further than its claims need."""
    arms = set(study.arms)
    for size in study.looks or [len(study.seeds)]:
        seeds = set(study.seeds[:size])
        if not run([one for one in runs if one.seed in seeds and one.arm in arms]) or size == len(study.seeds):
            return
        arms = open_arms(study, read_results(study, runner.directory.path).verdicts)
        said = f"{', '.join(sorted(arms))} go on" if arms else "every claim is decided"
        runner.watcher.on_note(f"look at {size} seeds: {said}")


def _run(runs: Sequence[Run], runner: Runner, retry_failed: bool, reusable: Reusable) -> dict[Run, State]:
    for run in reuse_runs(runs, runner.directory, reusable):
        runner.watcher.on_note(f"reused  {run.path}")
    return runner.run(runs, retry_failed)


def _tuning_rows(plan: Plan, directory: StudyDirectory) -> list[Row]:
    """Of both rounds."""
    first = read_rows(directory, plan.tuning, plan.study)
    return [*first, *read_rows(directory, plan.confirming(finalists(plan, first)), plan.study)]


def _second_round(plan: Plan, directory: StudyDirectory) -> list[Run]:
    return plan.confirming(finalists(plan, read_rows(directory, plan.tuning, plan.study)))


def read_results(study: Study, path: Path) -> Results:
    """What the run directories say, as far as they go."""
    plan, directory = make_plan(study), StudyDirectory(path)
    choices = read_choices(directory)
    best = plan.best(choices) if choices else []
    rows = [*_tuning_rows(plan, directory), *read_rows(directory, plan.shared, study)]
    rows += [row | {"phase": "best"} for row in read_rows(directory, best, study)]
    return _judged(study, rows, path)


def _judged(study: Study, rows: list[Row], path: Path) -> Results:
    """The rows with their verdicts; runs that no claim needs any more are skipped, and not missing."""
    others = [member for name in study.family if (member := _member(path.parent / name))]
    verdicts = judge(study, rows, read_choices(StudyDirectory(path)), path.name, others)
    arms = open_arms(study, verdicts) if study.looks else set(study.arms)
    skipped = {"status": "skipped", "reason": "its claims were decided before"}
    rows = [
        row | skipped if row["status"] == "missing" and row["phase"] != "tuning" and row["arm"] not in arms else row
        for row in rows
    ]
    return Results(study, rows, verdicts)


def _member(path: Path) -> Member | None:
    """A study of the family that lies there; None where there is none."""
    directory = StudyDirectory(path)
    if not directory.study_file.is_file():
        return None
    study = check_study(read_yaml(directory.study_file), str(directory.study_file))
    if is_kept(study, path):
        return Member(study, read_csv(path / "results.csv"), read_choices(directory), path.name)
    plan, choices = make_plan(study), read_choices(directory)
    rows = read_rows(directory, plan.shared, study)
    rows += [row | {"phase": "best"} for row in read_rows(directory, plan.best(choices), study)]
    return Member(study, rows, choices, path.name)


def write_results(study: Study, path: Path) -> Results:
    """Write results.csv, curves.csv, results.md and verdicts.json from the run directories.

    Where the runs are gone and their tables were kept, the tables are what is known, and stay as they are.
    """
    directory = StudyDirectory(path)
    if is_kept(study, path):
        return kept_results(study, path)
    results = read_results(study, path)
    with directory.writing():
        write_csv(directory, results.rows)
        replace_text(path / "curves.csv", curves_text(results.rows))
    write_verdicts(results, path)
    return results


def write_verdicts(results: Results, path: Path) -> None:
    """Write results.md and verdicts.json, which follow from the study's rows."""
    verdicts = numbered("verdicts", {"verdicts": plain_verdicts(results.verdicts)})
    with StudyDirectory(path).writing():
        replace_text(path / "verdicts.json", json_text(verdicts))
        replace_text(path / "results.md", markdown(results.study, results.rows, results.verdicts))


def is_kept(study: Study, path: Path) -> bool:
    """Whether ``path`` holds the tables of runs that are not there."""
    plan = make_plan(study)
    there = (RunDirectory(path / run.path).exists() for run in (*plan.tuning, *plan.shared))
    return (path / "results.csv").is_file() and not (any(there) or StudyDirectory(path).reused())


def kept_results(study: Study, path: Path) -> Results:
    """What the tables of a study say; its verdicts are judged again.

    Raises:
        DataError: a table is damaged. SchemaError: a newer version wrote one.
    """
    return _judged(study, read_csv(path / "results.csv"), path)


def plain_verdicts(verdicts: Sequence[Verdict]) -> list[Row]:
    """As JSON takes them: no NaN."""
    found = []
    for verdict in verdicts:
        values = asdict(verdict) | {"hypothesis": verdict.hypothesis.model_dump(), "sentence": verdict.sentence}
        found.append(without_nan(values))
    return found
