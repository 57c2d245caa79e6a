"""The arguments and help of `drpo lab …`; the work is done in :mod:`drpo.cli.lab`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

lab = typer.Typer(
    help="Compare objectives in a study, arms × settings × seeds, with statistics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, recipe:studies/NAME, or just NAME.")]
ScaleName = Annotated[str | None, typer.Option(metavar="NAME", help="One of the study's scales, for example gpu.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the study. Default: runs/lab/STUDY.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at the same time; they share the cores. Default: one per GPU, or else per core."),
]
Reuse = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Take over finished runs of the same configuration from here: run directories, or a study's tables. "
        "Repeatable.",
    ),
]


class Where(StrEnum):
    """Where runs are executed."""

    local = "local"
    ray = "ray"


@lab.command()
def plan(
    study: StudyName,
    scale: ScaleName = None,
    jobs: Jobs = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Run two steps of each setting to estimate the time.")
    ] = True,
) -> None:
    """Show the plan: arms with the keys in which they differ, settings, seeds, tuning, and the estimated time.

    Examples:

      drpo lab plan smoke

      drpo lab plan recipe:studies/settle --scale gpu --no-measure
    """
    from drpo.cli.lab import run_plan

    run_plan(study, scale, jobs, measure)


@lab.command()
def run(
    study: StudyName,
    out: Out = None,
    scale: ScaleName = None,
    jobs: Jobs = None,
    on: Annotated[
        Where, typer.Option(help="Run on this machine, or on the Ray cluster at RAY_ADDRESS (without it, a local one).")
    ] = Where.local,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed runs again. Default: leave them as they are.")
    ] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the weights of finished runs.")
    ] = False,
    reuse: Reuse = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run only this setting now. Repeatable."),
    ] = None,
) -> None:
    """Run or continue a study: finished runs are kept, interrupted ones continue from their checkpoints.

    Ctrl-C stops each run with a checkpoint after its current step; a second one stops at once. Exits with 2 if runs
    failed.

    Examples:

      drpo lab run smoke

      drpo lab run recipe:studies/settle --out results/settle --jobs 2

      drpo lab run mask --reuse runs/lab/delta

      drpo lab run settle2-area --reuse results/settle2-area

      drpo lab run settle --setting dense

      RAY_ADDRESS=auto drpo lab run settle --on ray --out /shared/settle
    """
    from drpo.cli.lab import run_run

    run_run(study, out, scale, jobs, on.value, retry_failed, keep_checkpoints, reuse or [], setting or [])


@lab.command(context_settings={"ignore_unknown_options": True})
def compare(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="OBJECTIVE... [key.sub=value]...",
            help="Two or more objectives, NAME or NAME:parameter=value,…, and settings of every run.",
        ),
    ],
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each objective, with seeds 0, 1, ….")] = 3,
    out: Annotated[Path | None, typer.Option(help="Directory of the study. Default: runs/lab/OBJECTIVES.")] = None,
    jobs: Jobs = None,
    reuse: Reuse = None,
) -> None:
    """Compare objectives on your own task: a study without a file. The same command goes on after a stop.

    Examples:

      drpo lab compare drpo grpo --seeds 3 task=jsonl task.path=problems.jsonl task.heldout_fraction=0.25

      drpo lab compare drpo drpo:delta=0.3 surrogate --seeds 5 learning_rate=1e-4 steps=40 eval_every=5
    """
    from drpo.cli.lab import run_compare

    run_compare(arguments, seeds, out, jobs, reuse or [])


@lab.command()
def report(study: StudyName, out: Out = None, scale: ScaleName = None) -> None:
    """Write report.html, results.csv, results.md and verdicts.json from the runs so far, and print the verdicts.

    Examples:

      drpo lab report smoke

      drpo lab report recipe:studies/settle --out results/settle
    """
    from drpo.cli.lab import run_report

    run_report(study, out, scale)
