"""Complete runs of other trainers, ready to print, to check and to start."""

from drpo.recipes.command import Plan, compose
from drpo.recipes.library import Recipe, load_recipe, recipe_names

__all__ = ["Plan", "Recipe", "compose", "load_recipe", "recipe_names"]
