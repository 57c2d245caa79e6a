"""Every subcommand's arguments and help; the work is done in the module it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import drpo
from drpo.cli.lab_commands import lab
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every setting with its source and exit.")] = False,
) -> None:
    """Train a policy. Without arguments it runs the demo, a few minutes on two CPU cores.

    Examples:

      drpo train

      drpo train objective.name=dppo_tv objective.delta=0.2 seed=1

      drpo train model=DIR task=jsonl task.path=FILE steps=200

      drpo train model=DIR task=math task.path=TRAIN.parquet task.heldout_path=AIME.jsonl

      drpo train 'trackers=[tensorboard,wandb]' project=mine

      drpo train --resume runs/2026-01-01-120000-drpo

      drpo train --resume runs/2026-01-01-120000-drpo steps=200 learning_rate=1e-5
    """
    from drpo.cli.train import run_train

    run_train(settings or [], out, resume, dry_run)


@app.command("eval", context_settings=_SETTINGS)
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The directory of a run (its newest checkpoint is used) or of a Hugging Face model, or embedded:NAME.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="Settings that replace those of the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure accuracy on held-out problems: avg@k and unbiased pass@k, k ≤ eval_samples, with confidence intervals.

    Examples:

      drpo eval runs/2026-01-01-120000-drpo eval_samples=8

      drpo eval embedded:arithmetic eval_examples=256

      drpo eval DIR task=math task.path=TRAIN.parquet task.heldout_path=AIME.jsonl eval_samples=16
    """
    from drpo.cli.evaluate import run_evaluate

    run_evaluate(source, settings or [], as_json)


@app.command("filter", context_settings=_SETTINGS)
def filter_problems(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The policy: a run's directory (newest checkpoint), a Hugging Face model's, or embedded:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The JSONL file to write; it must not exist.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key.sub=value]...", help="The task (math or jsonl) and other settings."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses per problem.")] = 8,
    above: Annotated[float, typer.Option(min=0, max=1, help="Keep problems with a pass rate above this.")] = 0.0,
    below: Annotated[float, typer.Option(min=0, max=1, help="Keep problems with a pass rate below this.")] = 1.0,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Sample only the first N training problems. Default: all.")
    ] = None,
) -> None:
    """Keep the training problems with a pass rate between 0 and 1: sample each one, and write it with its pass rate.

    The tasks math and jsonl read the file.

    Examples:

      drpo filter DIR task=math task.path=TRAIN.parquet --out sometimes.jsonl

      drpo filter DIR task=math task.path=TRAIN.parquet --samples 16 --above 0.1 --below 0.9 --out medium.jsonl
    """
    from drpo.cli.filter import run_filter

    run_filter(source, settings or [], out, samples, (above, below), problems)


@app.command(context_settings=_SETTINGS)
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The directory of a run (its newest checkpoint), a model or a LoRA adapter, or embedded:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The directory to write; it must not exist.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="model=DIR, the base of an adapter; trust_remote_code=true."),
    ] = None,
) -> None:
    """Write a policy as a plain Hugging Face model with any adapter merged, for transformers and inference engines.

    Examples:

      drpo export runs/2026-01-01-120000-drpo --out my-model
    """
    from drpo.cli.export import run_export

    run_export(source, out, settings or [])


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.")]) -> None:
    """Write report.html for a run, finished or not."""
    from drpo.cli.report import run_report

    run_report(run)


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

      drpo inspect tokens.parquet --delta 0.2 --objectives drpo,dppo_tv,grpo

      drpo inspect tokens.jsonl --map logprob=lp,behavior_logprob=engine_lp,mask=loss_mask+tool_mask

      drpo inspect after.parquet --against before.parquet

      drpo inspect tokens.jsonl --fail-on fault --max beyond_delta=0.05 --junit inspection.xml

    docs/inspect.md lists the columns that a log needs.
    """
    from drpo.cli.inspection import Output, Question, run_inspect

    question = Question.of(delta, objectives, columns or [], steps)
    output = Output(html, as_json, as_markdown, everything, junit)
    run_inspect(log, against, question, output, fail_on, limits or [])


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
) -> None:
    """List the objectives with equations, parameters and sources; explain or draw those that are named.

    Examples:

      drpo objectives

      drpo objectives drpo tis

      drpo objectives --plot drpo dppo_kl sapo drpo.delta=0.2 --out figures
    """
    from drpo.cli.objectives import run_objectives

    run_objectives(arguments or [], plot, out)


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
        typer.Argument(metavar="[SUITE]...", help="kernels, sampler, step, inspect or curves. Default: all."),
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
) -> None:
    """Compare drpo with alternatives, side by side in one run: medians, spread, ratios.

    kernels: hidden states to gradients, against log-softmax, TRL and Liger. sampler: against transformers' generate.
    step: against TRL's GRPOTrainer. inspect: throughput of drpo inspect. curves: cost by size, with a figure.

    Examples:

      drpo bench

      drpo bench kernels sampler --rounds 3

      drpo bench inspect --tokens 10000000
    """
    from drpo.cli.bench import run_bench

    run_bench(suites or [], quick, out, rounds, device, compiled, tokens)
