"""Every subcommand's arguments and help; the work is done in the module it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import drpo
from drpo.cli.lab_commands import lab
from drpo.cli.policy_commands import register_policy_commands
from drpo.cli.recipe_commands import recipe
from drpo.integrations.hosts import names

app = typer.Typer(
    help="Trust-region policy optimization for LLM reinforcement learning: train, evaluate, report.",
    epilog="--debug, anywhere on the command line, prints the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
_SETTINGS = {"ignore_unknown_options": True}  # so that `--steps 5` can be answered with steps=5
app.add_typer(recipe, name="recipe")
app.add_typer(lab, name="lab")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"drpo {drpo.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that belong to no subcommand."""


@app.command(context_settings=_SETTINGS)
def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.yaml] [key.sub=value]...",
            help="A configuration file or recipe:NAME, and settings that replace its own.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run. Default: runs/DATE-OBJECTIVE.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the run in this directory. You may change steps and some other settings."),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN[:best|last|STEP]",
            help="Start a new run from a checkpoint of this one, with its weights and optimizer and other settings.",
        ),
    ] = None,
    stop_on_collapse: Annotated[
        bool,
        typer.Option(
            "--stop-on-collapse",
            help="stop_on_collapse=true: end with a checkpoint, and exit status 3, once held-out accuracy has halved.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every setting with its source and exit.")] = False,
) -> None:
    """Train a policy. Without arguments it runs the demo, about half a minute on two CPU cores.

    The settings that people change most, with their defaults (--dry-run lists all):

    \b
      model=embedded:arithmetic     a directory, org/name on the Hub, embedded:NAME
      task=reasoning_gym:chain_sum  jsonl or math with task.path=FILE, word_problems, …
      objective=drpo                `drpo objectives` lists them
      objective.delta=0.15          a parameter of the objective
      steps=60                      rollout batches
      learning_rate=5e-05
      prompts_per_step=16           problems of a step
      group_size=8                  responses to each
      updates_per_step=4            optimizer steps of a step
      max_new_tokens=64             longest response
      eval_every=20                 steps between evaluations
      seed=0

    Examples:

      drpo train

      drpo train objective.name=dppo_tv objective.delta=0.2 seed=1

      drpo train model=DIR task=jsonl task.path=FILE steps=200

      drpo train model=DIR task=math task.path=TRAIN.parquet task.heldout_path=AIME.jsonl

      drpo train 'trackers=[tensorboard,wandb]' project=mine

      drpo train --resume runs/2026-01-01-120000-drpo

      drpo train --resume runs/2026-01-01-120000-drpo steps=200 learning_rate=1e-5

      drpo train --from runs/2026-01-01-120000-drpo:best learning_rate=1e-5
    """
    from drpo.cli.train import run_train

    given = [*(settings or []), *(["stop_on_collapse=true"] if stop_on_collapse else [])]
    run_train(given, out, resume, origin, dry_run)


register_policy_commands(app, _SETTINGS)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.")]) -> None:
    """Write report.html for a run, finished or not."""
    from drpo.cli.report import run_report

    run_report(run)


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories, or directories of runs; the first is the reference."),
    ],
    html: Annotated[
        Path | None,
        typer.Option(help="File for the page. Default: comparison.html, here or in the one directory given."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line a run, with the settings that differ.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and write a page only with --html.")
    ] = False,
) -> None:
    """Put runs side by side: curves, settings that differ, final accuracies with intervals, and answers.

    Runs that differ in their seed alone are one configuration. Differences are paired by seed where seeds agree.

    Examples:

      drpo compare runs/drpo runs/grpo

      drpo compare runs --csv runs.csv
    """
    from drpo.cli.compare import Output, run_compare

    run_compare(runs, Output(html, csv, as_json))


@app.command()
def inspect(
    log: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Parquet, JSONL, JSON or .pt files, folders of them, the directory of a run, or - for standard input.",
        ),
    ],
    delta: Annotated[
        float | None,
        typer.Option(
            help="δ of every objective that bounds |π − μ|. Default: the run's, or else each objective's default."
        ),
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(metavar="NAME,NAME...", help="Evaluate only these objectives. Default: all.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="File for the page. Default: inspection.html beside the first FILE.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=NAME,...", help="Columns by name; join masks with +; NAME none skips a column."
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST", help="Read only these steps; either side may be left out.")
    ] = None,
    last: Annotated[int | None, typer.Option(metavar="N", help="Read only the last N steps of the log.")] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Read on while the log is written, until its run is over or Ctrl-C; print a line (on a terminal, all) "
            "and write the page each time that something new was logged.",
        ),
    ] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another log (file, folder or run) to put beside this one.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every finding, objective and table, not only the most important.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and write a page only with --html.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a short summary in Markdown, and write a page only with --html.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the checks of --fail-on and --max as JUnit XML.")] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(metavar="fault|warning", help="Exit with 1 on a finding of this severity or a higher one."),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="FIGURE=VALUE", help="Exit with 1 if a figure of --json is larger."),
    ] = None,
) -> None:
    """Check logged token log-probabilities: is the trust region active, and are the values valid?

    Exits with 0, with 1 if --fail-on or --max finds something, and with 2 if the log cannot be read.

    Examples:

      drpo inspect runs/2026-01-01-120000-drpo

      drpo inspect runs/2026-01-01-120000-drpo --follow

      drpo inspect tokens.parquet --delta 0.2 --objectives drpo,dppo_tv,grpo

      drpo inspect tokens.jsonl --map logprob=lp,behavior_logprob=engine_lp,mask=loss_mask+tool_mask

      drpo inspect after.parquet --against before.parquet

      drpo inspect tokens.jsonl --fail-on fault --max beyond_delta=0.05 --junit inspection.xml

    docs/inspect.md lists the columns that a log needs.
    """
    if follow and hasattr(os, "nice"):
        os.nice(10)  # before anything is loaded: the run that is watched goes first
    from drpo.cli.inspection import Output, Question, run_inspect

    question = Question.of(delta, objectives, columns or [], steps, last)
    output = Output(html, as_json, as_markdown, everything, junit)
    run_inspect(log, against, question, output, fail_on, limits or [], follow)


@app.command()
def objectives(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]... [NAME.parameter=value]...",
            help="Explain these objectives or modifiers. With --plot, draw them with these parameters.",
        ),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw gradient weights against π − μ, and as heat maps over (μ, π).")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures of --plot. Default: the current folder.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Print weights at a few tokens, limits and needs side by side.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(help="For --compare: a token log; adds the share of its gradient mass that each changes."),
    ] = None,
    alias: Annotated[
        bool, typer.Option("--alias", help="Print the names that other trainers use for these objectives.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --compare or --alias: print JSON.")] = False,
) -> None:
    """List the objectives with equations, parameters and sources; explain or draw those that are named.

    Examples:

      drpo objectives

      drpo objectives drpo tis

      drpo objectives --plot drpo dppo_kl sapo drpo.delta=0.2 --out figures

      drpo objectives --compare drpo ipo dppo_tv grpo

      drpo objectives --alias
    """
    from drpo.cli.objectives import Display, run_objectives

    run_objectives(arguments or [], Display(plot, out, compare, log, alias, as_json))


@app.command(context_settings={"ignore_unknown_options": True})
def doctor(
    host: Annotated[
        str | None,
        typer.Argument(metavar="[HOST]", help=f"{names()}. Default: all installed ones."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDE]...", help="For verl: overrides of a run, to compose and check."),
    ] = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="Compare the gradients of the installed host with drpo's.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this environment: versions, whether the plug-ins are registered, the source of μ, and the GPU.

    Exits with 1 if there is a problem. Every finding names its fix.

    Examples:

      drpo doctor

      drpo doctor verl

      drpo doctor trl --parity
    """
    from drpo.cli.doctor import run_doctor

    run_doctor(host, settings or [], parity, as_json)


@app.command()
def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...", help="kernels, support, sampler, step, model-step, inspect, curves. Default: all."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Tiny sizes, in seconds, to check that everything runs. The figures mean nothing."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for one JSON file per suite. Default: bench.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Measured rounds per case. Default: depends on the case.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Include variants with torch.compile. Default: on a GPU only."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that `inspect` reads. Default: 1000000.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model that `model-step` trains. Default: SmolLM2's shape, random weights.")
    ] = None,
) -> None:
    """Compare drpo with alternatives, side by side in one run: medians, spread, ratios.

    kernels: hidden states to gradients, against log-softmax, TRL and Liger. support: the same over the tokens of
    truncated sampling, against the whole vocabulary. sampler: against transformers' generate. step: against TRL's
    GRPOTrainer. model-step: the same with SmolLM2's shape. inspect: throughput of drpo inspect. curves: cost by size,
    with a figure.

    Examples:

      drpo bench

      drpo bench kernels sampler --rounds 3

      drpo bench inspect --tokens 10000000
    """
    from drpo.cli.bench import run_bench

    run_bench(suites or [], quick, out, rounds, device, compiled, tokens, model)
