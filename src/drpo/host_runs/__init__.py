"""Complete runs of other trainers, ready to print, to check and to start."""

from drpo.host_runs.catalog import Recipe, load_recipe, recipe_names
from drpo.host_runs.command import Plan, compose

__all__ = ["Plan", "Recipe", "compose", "load_recipe", "recipe_names"]
