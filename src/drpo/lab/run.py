"""A study from its first run to its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from drpo.files import json_text, replace_text, without_nan
from drpo.lab.curves import curves_text
from drpo.lab.directory import State, StudyDirectory
from drpo.lab.judge import judge
from drpo.lab.plan import Plan, Run, make_plan
from drpo.lab.results import Row, read_csv, read_rows, write_csv
from drpo.lab.reuse import finished_runs, reuse_runs
from drpo.lab.runner import Runner, Watcher
from drpo.lab.study import Study
from drpo.lab.tables import markdown
from drpo.lab.tuning import choose, read_choices, write_choices
from drpo.lab.verdict import Verdict
from drpo.lab.workers import Workers
from drpo.run_directory import RunDirectory
from drpo.schema import numbered


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

    Finished runs of the same configuration below ``reuse`` are copied instead of run. With ``settings`` only runs in
    these are started; the others stay missing until they are.

    Raises:
        DrpoError: the study or its directory is not as it should be; nothing was started.
    """
    plan, directory = make_plan(study).only(settings), StudyDirectory(path)
    reusable = finished_runs(reuse)
    directory.create(study)
    with directory.locked(watcher.on_note) as hold:
        runner = Runner(directory, workers, watcher, hold, keep_checkpoints)
        with runner.stop_on_signals():
            _run_phases(plan, runner, retry_failed, reusable)
    return write_results(study, path), runner.stopping


def _run_phases(plan: Plan, runner: Runner, retry_failed: bool, reusable: Mapping[str, Path]) -> None:
    directory, best = runner.directory, list[Run]()
    if plan.tuning:
        states = _run(plan.tuning, runner, retry_failed, reusable)
        if any(state.status not in ("finished", "failed") for state in states.values()):
            return  # stopped: what is best is not known yet
        choices, records = choose(plan, read_rows(directory, plan.tuning, plan.study))
        write_choices(directory, records)
        best = plan.best(choices)
    if not runner.stopping:
        _run(list(dict.fromkeys([*plan.shared, *best])), runner, retry_failed, reusable)


def _run(runs: Sequence[Run], runner: Runner, retry_failed: bool, reusable: Mapping[str, Path]) -> dict[Run, State]:
    for run in reuse_runs(runs, runner.directory, reusable):
        runner.watcher.on_note(f"reused  {run.path}")
    return runner.run(runs, retry_failed)


def read_results(study: Study, path: Path) -> Results:
    """What the run directories say, as far as they go."""
    plan, directory = make_plan(study), StudyDirectory(path)
    choices = read_choices(directory)
    best = plan.best(choices) if choices else []
    rows = read_rows(directory, [*plan.tuning, *plan.shared], study)
    rows += [row | {"phase": "best"} for row in read_rows(directory, best, study)]
    return Results(study, rows, judge(study, rows, choices))


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
    return (path / "results.csv").is_file() and not any(there)


def kept_results(study: Study, path: Path) -> Results:
    """What the tables of a study say; its verdicts are judged again.

    Raises:
        DataError: a table is damaged. SchemaError: a newer version wrote one.
    """
    rows = read_csv(path / "results.csv")
    return Results(study, rows, judge(study, rows, read_choices(StudyDirectory(path))))


def plain_verdicts(verdicts: Sequence[Verdict]) -> list[Row]:
    """As JSON takes them: no NaN."""
    found = []
    for verdict in verdicts:
        values = asdict(verdict) | {"hypothesis": verdict.hypothesis.model_dump(), "sentence": verdict.sentence}
        found.append(without_nan(values))
    return found
