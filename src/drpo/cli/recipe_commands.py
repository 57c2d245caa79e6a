"""The arguments and help of `drpo recipe …`; the work is done in :mod:`drpo.cli.recipe`."""

from __future__ import annotations

from typing import Annotated

import typer

from drpo.integrations.hosts import HOSTS

_HOSTS = " and ".join(host.title for host in HOSTS.values() if host.run)

recipe = typer.Typer(
    help=f"List, show, check and start complete runs in {_HOSTS}.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `drpo recipe list`, with or without recipe:.")]
ObjectiveName = Annotated[
    str | None, typer.Option(metavar="NAME", help="One of the recipe's objectives, or any from `drpo objectives`.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the host (for verl a Hydra override), or a parameter of the objective. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@recipe.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Show every recipe: host, model, objectives, GPUs, and how many of its values are assumed."""
    from drpo.cli.recipe import run_list

    run_list(as_json)


@recipe.command()
def show(name: Name, objective: ObjectiveName = None, changes: Changes = None, as_json: AsJson = False) -> None:
    """Print the full command as a bash script. Every value is marked public or assumed, with the reason.

    Examples:

      drpo recipe show verl/qwen3-4b-base

      drpo recipe show verl/qwen3-30b-a3b-base-fp8 --objective dppo_tv > run.sh
    """
    from drpo.cli.recipe import run_show

    run_show(name, objective, changes or [], as_json)


@recipe.command()
def launch(
    name: Name,
    objective: ObjectiveName = None,
    changes: Changes = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Join this Ray cluster ('auto' finds a local one).")
    ] = None,
    submit: Annotated[
        str | None, typer.Option(metavar="URL", help="Submit the run to the Ray dashboard at this address instead.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the host check the configuration, then exit.")
    ] = False,
) -> None:
    """Check packages, data and GPUs, then start the run. Output and exit code are the host's.

    Examples:

      drpo recipe launch verl/qwen3-4b-base --dry-run

      drpo recipe launch verl/qwen3-4b-base --objective grpo --set data.train_files=[train.parquet]

      drpo recipe launch verl/qwen3-30b-a3b-base --address auto
    """
    from drpo.cli.recipe import run_launch

    run_launch(name, objective, changes or [], address, submit, dry_run)
