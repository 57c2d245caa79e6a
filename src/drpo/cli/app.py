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
    epilog="--debug anywhere on the line prints the traceback of an error.",
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, then stop.")
    ] = False,
) -> None:
    """Take the options that belong to no subcommand."""


@app.command(context_settings=_SETTINGS)
def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG.yaml] [key.sub=value]...", help="A file or recipe:NAME, and changes to it."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run. Default: runs/DATE-OBJECTIVE.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this directory; steps and other settings may change.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every setting and where it came from, then stop.")
    ] = False,
) -> None:
    """Train a policy. Without arguments: the demo, a few minutes on two CPU cores.

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
            help="A run's directory (its newest checkpoint), a Hugging Face directory, or embedded:NAME.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="Changes to the run's configuration.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure sampled accuracy on held-out problems: avg@k and unbiased pass@k, k up to eval_samples, with intervals.

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
            help="What answers: a run's newest checkpoint, a Hugging Face directory, or embedded:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The JSONL file to write; it must not exist.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="The task (math or jsonl), and more.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses to each problem.")] = 8,
    above: Annotated[float, typer.Option(min=0, max=1, help="Keep problems solved more often than this.")] = 0.0,
    below: Annotated[float, typer.Option(min=0, max=1, help="Keep problems solved less often than this.")] = 1.0,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Number of training problems to look at, from the first. Default: all.")
    ] = None,
) -> None:
    """Keep the training problems that a policy solves sometimes: each is sampled, and written with its solve rate.

    Tasks math and jsonl read what it writes.

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
            help="A run's directory (its newest checkpoint), a model's or a LoRA adapter's, or embedded:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The directory to write; it must not exist.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="model=DIR: the base of an adapter; trust_remote_code=true."),
    ] = None,
) -> None:
    """Write a policy as a plain Hugging Face model, which transformers and every engine load: an adapter merged.

    Examples:

      drpo export runs/2026-01-01-120000-drpo --out my-model
    """
    from drpo.cli.export import run_export

    run_export(source, out, settings or [])


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")]) -> None:
    """Write report.html of a run, finished or not."""
    from drpo.cli.report import run_report

    run_report(run)


@app.command()
def inspect(
    log: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Parquet or JSONL files, folders of them, or the directory of a run."),
    ],
    delta: Annotated[
        float | None,
        typer.Option(help="Bound on |π − μ| of every objective that has one. Default: the run's, or each one's own."),
    ] = None,
    objectives: Annotated[
        str | None, typer.Option(metavar="NAME,NAME...", help="Evaluate these only. Default: all of them.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Where to write the page. Default: inspection.html beside the first FILE.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; no page unless --html names it.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=NAME,...", help="Names of columns; masks are joined by +; none: unread."),
    ] = None,
) -> None:
    """Ask of logged token log-probabilities: is the trust region doing anything, and are they sound?

    Examples:

      drpo inspect runs/2026-01-01-120000-drpo

      drpo inspect tokens.parquet --delta 0.2 --objectives drpo,dppo_tv,grpo

      drpo inspect tokens.jsonl --map logprob=lp,behavior_logprob=engine_lp,mask=loss_mask+tool_mask

    The columns that a log needs are in docs/inspect.md.
    """
    from drpo.cli.inspection import run_inspect

    run_inspect(log, delta, objectives, html, as_json, columns or [])


@app.command()
def objectives(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]... [NAME.parameter=value]...",
            help="Explain these objectives or modifiers; with --plot, draw them with these parameters.",
        ),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw gradient weights: against π − μ, and as heat maps over (μ, π).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures of --plot. Default: here.")] = None,
) -> None:
    """List the objectives with their equations, parameters and sources; explain or draw some.

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
        typer.Argument(metavar="[HOST]", help=f"{names()}. Default: all that are installed."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDE]...", help="For verl: the overrides of a run, composed and checked."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this environment: versions, whether our plug-ins are really registered, where μ will come from, the GPU.

    Exits with 1 if something will not work; every finding comes with its fix.

    Examples:

      drpo doctor

      drpo doctor verl
    """
    from drpo.cli.doctor import run_doctor

    run_doctor(host, settings or [], as_json)


@app.command()
def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SUITE]...", help="kernels, sampler, step, inspect or curves. Default: all of them."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, in seconds: does everything run? The figures mean nothing.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for one JSON file a suite. Default: bench.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Measured rounds of every case. Default: as many as a case is worth.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="With torch.compile'd variants. Default: on a GPU."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that `inspect` reads. Default: 1000000.")] = None,
) -> None:
    """Measure ours against what people use instead, side by side in one run: medians, spread, ratios.

    kernels: hidden states to gradients, against log-softmax, TRL and Liger. sampler: against transformers' generate.
    step: against TRL's GRPOTrainer. inspect: its throughput. curves: cost as work grows, with a picture.

    Examples:

      drpo bench

      drpo bench kernels sampler --rounds 3

      drpo bench inspect --tokens 10000000
    """
    from drpo.cli.bench import run_bench

    run_bench(suites or [], quick, out, rounds, device, compiled, tokens)
