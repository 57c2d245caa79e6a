"""`drpo recipe list|show|launch`."""

from __future__ import annotations

from rich.table import Table

from drpo.cli.printing import wide_console, write, write_json
from drpo.host_runs import compose, load_recipe, recipe_names
from drpo.host_runs.catalog import train_recipes
from drpo.host_runs.command import gpus
from drpo.host_runs.launch import dry_run, launch


def run_list(as_json: bool) -> None:
    """Print a row for every recipe."""
    recipes = [load_recipe(name) for name in recipe_names()]
    if as_json:
        rows = [
            {
                "name": recipe.name,
                "title": recipe.title,
                "host": recipe.host,
                "model": recipe.model,
                "objectives": list(recipe.objectives),
                "gpus": gpus(recipe),
                "settings": len(recipe.settings),
                "assumed": len(recipe.assumed),
            }
            for recipe in recipes
        ]
        write_json(rows, indent=2)
        return
    table = Table("recipe", "model", "GPUs", "assumed", "objectives", box=None, pad_edge=False)
    for recipe in recipes:
        table.add_row(
            recipe.name,
            recipe.model,
            str(gpus(recipe)),
            f"{len(recipe.assumed)} of {len(recipe.settings)}",
            " ".join(recipe.objectives),
        )
    wide_console().print(table)
    write("\nassumed: values that are not public, GPUs among them; `drpo recipe show NAME` gives the reason for each.")
    write("\nHere, without another trainer:")
    for name, title in train_recipes().items():
        write(f"  drpo train {name}\n    {title}")


def run_show(name: str, objective: str | None, changes: list[str], as_json: bool) -> None:
    """Print the run as a script, or as JSON."""
    plan = compose(load_recipe(name), objective, changes)
    if as_json:
        write_json(plan.as_dict(), indent=2)
        return
    recipe = plan.recipe
    head = [
        f"{recipe.name}: {recipe.title}, objective {plan.objective.name}, {gpus(recipe)} GPUs",
        f"{len(recipe.assumed)} of {len(recipe.settings)} values are assumed, not public; each has its reason.",
        *(f"Not expressible in {recipe.host}: {remark}" for remark in recipe.not_expressible),
    ]
    write("\n".join([*(f"# {line}" for line in head), plan.script()]))


def run_launch(
    name: str, objective: str | None, changes: list[str], address: str | None, submit: str | None, check_only: bool
) -> None:
    """Start the run, or only let the host check it."""
    plan = compose(load_recipe(name), objective, changes)
    if not check_only:
        launch(plan, address, submit)
    answer = dry_run(plan)
    write(f"{plan.recipe.name} with {plan.objective.name}: valid")
    write("\n".join(f"  checked      {line}" for line in answer["validated"]))
    write("\n".join(f"  not checked  {line}" for line in answer["not_validated"]))
