"""From run directories to their comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drpo.comparison.differences import differences
from drpo.comparison.groups import Group, differing_settings, group_runs, told_settings
from drpo.comparison.responses import same_prompts
from drpo.comparison.result import GroupCurve, RunComparison, RunDifference, RunRow
from drpo.comparison.runs import COURSES, ComparedRun, find_runs, read_run
from drpo.errors import DataError
from drpo.run_directory import RunDirectory

#: Settings that make accuracies incomparable where they differ.
SAME = ("task", "eval_examples", "eval_samples", "temperature", "max_new_tokens")


def compare_runs(paths: Iterable[Path], on_progress: Callable[[float], None] = lambda done: None) -> RunComparison:
    """Compare the runs in ``paths``; the first one's configuration is what the others are compared with.

    Args:
        paths: run directories, or directories that hold some.
        on_progress: called with the share of the runs read so far.

    Raises:
        DataError: fewer than two runs, or a file of one is damaged. CheckpointError: so is a configuration.
        ConfigError: seeds are compared and scipy is missing.
    """
    directories = find_runs(paths)
    if len(directories) < 2:
        raise DataError(
            f"{directories[0].path} is one run, and a comparison needs two. Give another run beside it, or read this "
            "one with `drpo report`."
        )
    runs = []
    for directory in directories:
        runs.append(read_run(directory))
        on_progress(len(runs) / len(directories))
    groups = group_runs(runs)
    found = differences(groups)
    return RunComparison(
        sentence=_sentence(groups, found),
        remarks=list(_remarks(groups, runs)),
        groups={group.label: group.objective for group in groups},
        settings=told_settings([group.runs[0] for group in groups]),
        rows=[_row(run, group) for group in groups for run in group.runs],
        differences=found,
        curves=[_curve(name, title, group) for name, title in _FIGURES.items() for group in groups],
        answered=same_prompts({group.label: RunDirectory(group.runs[0].path) for group in groups}),
    )


def _row(run: ComparedRun, group: Group) -> RunRow:
    first, last, best = run.accuracies[0] if run.accuracies else None, run.last, run.best
    return RunRow(
        run=str(run.path),
        group=group.label,
        objective=group.objective,
        seed=run.seed,
        status=run.status,
        steps=run.steps,
        updates=run.updates,
        accuracy_before=first.value if first and not first.step else None,
        accuracy=last.value if last else None,
        accuracy_low=last.low if last else None,
        accuracy_high=last.high if last else None,
        best_accuracy=best.value if best else None,
        best_step=best.step if best else None,
        reward=run.late_reward,
        tokens=run.tokens,
        seconds=run.seconds,
        outcome=run.outcome,
    )


_FIGURES = {"accuracy": "Held-out accuracy", **COURSES}


def _curve(name: str, title: str, group: Group) -> GroupCurve:
    steps: dict[int, list[float]] = {}
    for run in group.runs:
        points = [(one.step, one.value) for one in run.accuracies] if name == "accuracy" else run.curves[name]
        for step, value in points:
            steps.setdefault(step, []).append(value)
    points = [(step, sum(values) / len(values), min(values), max(values)) for step, values in sorted(steps.items())]
    return GroupCurve(name, title, group.label, points)


def _sentence(groups: Sequence[Group], found: Sequence[RunDifference]) -> str:
    """Which group ended highest, and how sure that is."""
    means = {
        group.label: sum(values) / len(values)
        for group in groups
        if (values := [run.last.value for run in group.ended if run.last is not None])
    }
    if not means:
        return "No run has an evaluation, so that only rewards can be compared."
    if len(groups) == 1:
        return (
            f"All runs have one configuration; its final held-out accuracy is {means[groups[0].label]:.3f} on average."
        )
    best = max(means, key=lambda label: means[label])
    said = f"{best} ended highest, with a final held-out accuracy of {means[best]:.3f}"
    others = [one for one in found if one.figure == "accuracy" and best in (one.ours, one.theirs)]
    if not others:
        return f"{said}; the other configurations have no evaluation."
    if len(others) > 1:  # it is the reference
        clear = f"{sum(one.is_clear for one in others)} of the {len(others)} others"
        return f"{said}; the 95 % confidence interval of the difference excludes 0 for {clear}."
    (one,) = others
    other = one.theirs if best == one.ours else one.ours
    said += f", {abs(one.value):.3f} above {other}"
    if one.low is None:
        return f"{said}; one run cannot say whether other seeds would agree."
    return f"{said}; the 95 % confidence interval of the difference {'excludes' if one.is_clear else 'includes'} 0."


def _remarks(groups: Sequence[Group], runs: Sequence[ComparedRun]) -> Iterable[str]:
    differing = differing_settings(runs)
    if keys := [key for key in differing if key.split(".")[0] in SAME]:
        yield f"The runs differ in {', '.join(keys[:5])}: their accuracies are not of the same measurement."
    if len({run.steps for run in runs}) > 1:
        yield "The runs have done different numbers of steps."
    unfinished = [run.name for run in runs if run.status != "finished"]
    if unfinished:
        more = f" and {len(unfinished) - 5} more" if len(unfinished) > 5 else ""
        yield f"Not finished: {', '.join(unfinished[:5])}{more}."
    if len(groups) > 1 and all(len(group.runs) == 1 for group in groups):
        yield (
            "Each configuration has one run, and seeds often differ by as much as configurations do. Run others with "
            "seed=1, seed=2."
        )


def csv_rows(found: RunComparison) -> list[Mapping[str, Any]]:
    """A line a run, with a column for each setting that differs."""
    labels = list(found.groups)
    lines = []
    for row in found.rows:
        index = labels.index(row.group)
        settings = {key: values[index] for key, values in found.settings.items()}
        figures = {name: getattr(row, name) for name in RunRow.__slots__}  # pyright: ignore[reportAttributeAccessIssue]
        lines.append(figures | settings)
    return lines
