"""The arguments and help of the commands that use a policy, trained or not; the work is done in the modules named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Step = Annotated[
    str | None,
    typer.Option(
        metavar="best|last|N",
        help="Which checkpoint of a run: the best by held-out accuracy, the newest, or that of step N. Default: last.",
    ),
]


def register_policy_commands(app: typer.Typer, settings: dict[str, Any]) -> None:
    """Add them to ``app``, with these context settings."""
    app.command("eval", context_settings=settings)(evaluate)
    app.command()(sample)
    app.command("filter", context_settings=settings)(filter_problems)
    app.command(context_settings=settings)(export)


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The directory of a run, of one of its checkpoints or of a Hugging Face model, or embedded:NAME.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="Settings that replace those of the run.")
    ] = None,
    step: Step = None,
    show: Annotated[int | None, typer.Option(min=1, help="Print the responses to the first N problems.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Print wrong responses only. Default of --show: 10.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write every response to this JSONL file, which must not exist.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure accuracy on held-out problems: avg@k and unbiased pass@k, k ≤ eval_samples, with confidence intervals.

    Examples:

      drpo eval runs/2026-01-01-120000-drpo eval_samples=8

      drpo eval runs/2026-01-01-120000-drpo --step best

      drpo eval runs/2026-01-01-120000-drpo --wrong --show 5 --out responses.jsonl

      drpo eval embedded:arithmetic eval_examples=256

      drpo eval DIR task=math task.path=TRAIN.parquet task.heldout_path=AIME.jsonl eval_samples=16
    """
    from drpo.cli.evaluate import run_evaluate

    run_evaluate(source, settings or [], step, as_json, show, wrong, out)


def sample(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The directory of a run, of one of its checkpoints or of a Hugging Face model, or embedded:NAME.",
        ),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="Prompts; - or none: standard input, one a line, plain or as {prompt, answer}.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="Answers to each prompt.")] = 4,
    step: Step = None,
    answer: Annotated[
        str | None, typer.Option(help="The right answer: each response gets the reward of the run's task.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Default: the run's.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Default: the run's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the run's. Equal seeds give equal answers.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting, such as task=math. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Try a prompt: answers with the probability of every token.

    A prompt is put into the chat template, where there is one, as in training. Tokens below 0.5 are underlined, below
    0.1 in bold too, and the least likely ones are named.

    Examples:

      drpo sample runs/2026-01-01-120000-drpo "3 + 4 - 5 ="

      drpo sample runs/2026-01-01-120000-drpo "3 + 4 - 5 =" --answer 2 --step best --n 8 --temperature 0.7

      head -n 3 problems.jsonl | drpo sample embedded:arithmetic - --set task=jsonl --set task.path=problems.jsonl
    """
    from drpo.cli.sample import run_sample

    given = {"temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
    changes = [f"{key}={value}" for key, value in given.items() if value is not None]
    run_sample(source, prompts or [], answer, count, [*(settings or []), *changes], step, as_json)


def filter_problems(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The policy: the directory of a run or of a Hugging Face model, or embedded:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The JSONL file to write; it must not exist.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key.sub=value]...", help="The task (math or jsonl) and other settings."),
    ] = None,
    step: Step = None,
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

    run_filter(source, settings or [], step, out, samples, (above, below), problems)


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The directory of a run, a model or a LoRA adapter, or embedded:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The directory to write; it must not exist.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="model=DIR, the base of an adapter; trust_remote_code=true."),
    ] = None,
    step: Step = None,
) -> None:
    """Write a policy as a plain Hugging Face model with any adapter merged, for transformers and inference engines.

    Examples:

      drpo export runs/2026-01-01-120000-drpo --out my-model

      drpo export runs/2026-01-01-120000-drpo --step best --out my-model
    """
    from drpo.cli.export import run_export

    run_export(source, out, settings or [], step)
