"""The arguments and help of `drpo recipe …`; the work is done in :mod:`drpo.cli.recipe`."""

from __future__ import annotations

from typing import Annotated

import typer

from drpo.integrations.hosts import HOSTS

_HOSTS = " and ".join(host.title for host in HOSTS.values() if host.run)

recipe = typer.Typer(
    help=f"Complete runs in {_HOSTS}: list them, print the command, check it, start it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `drpo recipe list` shows it; recipe:NAME is the same.")]
ObjectiveName = Annotated[
    str | None, typer.Option(metavar="NAME", help="One of the recipe's objectives, or any of `drpo objectives`.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the host (for verl a Hydra override), or a parameter of the objective. May be repeated.",
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
    """Print the full command as a script for bash; every value says whether it is public or assumed, and why.

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
        str | None, typer.Option(metavar="URL", help="Hand the run to the Ray dashboard at this address instead.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the host's own code check the configuration, then stop.")
    ] = False,
) -> None:
    """Start the run, after checking packages, data and GPUs. Output and exit code are the host's.

    Examples:

      drpo recipe launch verl/qwen3-4b-base --dry-run

      drpo recipe launch verl/qwen3-4b-base --objective grpo --set data.train_files=[train.parquet]

      drpo recipe launch verl/qwen3-30b-a3b-base --address auto
    """
    from drpo.cli.recipe import run_launch

    run_launch(name, objective, changes or [], address, submit, dry_run)
