"""A recipe, an objective and the user's changes, as the command of the host."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from drpo.errors import ConfigError, suggest
from drpo.host_runs.catalog import ObjectiveChoice, Recipe, Setting, with_settings
from drpo.integrations.hosts import run_of

#: Text that Hydra takes without quotes, an interpolation in front included.
_PLAIN = re.compile(r"(\$\{[\w.:]+\}|[A-Za-z_/.])[A-Za-z0-9_/.:-]*")
_EXPONENT = re.compile(r"(-?\d+)(e.*)")
_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "nan", "inf", "~"}


@dataclass(frozen=True)
class Plan:
    """A run, ready to start.

    Args:
        recipe: with the objective's settings and the user's changes in place.
        objective: what it optimizes.
    """

    recipe: Recipe
    objective: ObjectiveChoice

    @property
    def module(self) -> str:
        """What ``python -m`` runs."""
        return run_of(self.recipe.host).module

    @property
    def arguments(self) -> list[str]:
        """``key=value`` of every setting, in the host's own notation."""
        return [_argument(setting) for setting in self.recipe.settings]

    @property
    def command(self) -> list[str]:
        """What :func:`os.execvp` takes, with this interpreter."""
        return [sys.executable, "-m", self.module, *self.arguments]

    def script(self) -> str:
        """The command as a script for bash, every value under a comment that says where it comes from."""
        lines = ["settings=("]
        for (origin, why), group in groupby(self.recipe.settings, key=lambda setting: (setting.origin, setting.why)):
            lines.append(f"  # {origin}: {why}" if why else f"  # {origin}")
            lines += [f"  {_quoted(_argument(setting))}" for setting in group]
        return "\n".join([*lines, ")", f'python -m {self.module} "${{settings[@]}}"'])

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "name": self.recipe.name,
            "title": self.recipe.title,
            "host": self.recipe.host,
            "model": self.recipe.model,
            "objective": self.objective.name,
            "gpus": gpus(self.recipe),
            "assumed": len(self.recipe.assumed),
            "command": ["python", "-m", self.module, *self.arguments],
            "settings": [
                {"key": setting.key, "value": setting.value, "origin": setting.origin, "why": setting.why}
                for setting in self.recipe.settings
            ],
            "not_expressible": list(self.recipe.not_expressible),
        }


def compose(recipe: Recipe, objective: str | None = None, changes: Iterable[str] = ()) -> Plan:
    """The run of ``recipe`` with an objective and changes.

    Args:
        recipe: a host's run, as :func:`drpo.host_runs.load_recipe` reads it.
        objective: one of the recipe's, or any registered name; None takes the recipe's first.
        changes: ``key=value``; the key is the host's (for verl a Hydra override, prefixes and all), or the name of a
            parameter of the objective.

    Raises:
        ConfigError: an unknown objective or parameter, or a change that is not key=value.
    """
    choice = _choose(recipe, objective or next(iter(recipe.objectives)))
    run = run_of(recipe.host)
    settings = [Setting(run.objective_key, choice.name, choice.origin, choice.why)]
    settings += [
        Setting(run.parameter_prefix + key, value, choice.origin, choice.why)
        for key, value in choice.parameters.items()
    ]
    composed = with_settings(recipe, settings)
    return Plan(with_settings(composed, [_change(text, recipe, choice.name) for text in changes]), choice)


def gpus(recipe: Recipe) -> int:
    """How many GPUs the run asks for."""
    if recipe.host == "trl":
        return 0 if recipe.value("use_cpu") else 1
    return nodes(recipe) * _count(recipe, "trainer.n_gpus_per_node", 8)


def nodes(recipe: Recipe) -> int:
    """How many machines the run asks for."""
    return _count(recipe, "trainer.nnodes", 1)


def _count(recipe: Recipe, name: str, default: int) -> int:
    value = recipe.value(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    return value


def hydra_value(value: Any) -> str:
    """A plain value in Hydra's notation, which YAML reads the same way."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():  # YAML takes 1e-06 for a text
            return _EXPONENT.sub(r"\1.0\2", repr(value))
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case str() if "'" not in value and "\\" not in value:
            return f"'{value}'"
        case list() | tuple():
            return f"[{','.join(hydra_value(item) for item in value)}]"
        case dict():
            return f"{{{','.join(f'{key}:{hydra_value(item)}' for key, item in value.items())}}}"
        case _:
            raise ConfigError(f"cannot write {value!r} as a setting: quotes and backslashes are not supported")


def _quoted(text: str) -> str:
    """For bash; in double quotes where that is easier to read."""
    return f'"{text}"' if "'" in text and not set('"$`\\!') & set(text) else shlex.quote(text)


def _argument(setting: Setting) -> str:
    return f"{setting.key}={hydra_value(setting.value) if setting.text is None else setting.text}"


def _choose(recipe: Recipe, name: str) -> ObjectiveChoice:
    if name in recipe.objectives:
        return recipe.objectives[name]
    from drpo.objectives import OBJECTIVES  # torch: only where the recipe's own table is not enough

    if name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {name!r}.{suggest(name, {*recipe.objectives, *OBJECTIVES})}")
    return ObjectiveChoice(name, {}, "assumed", "the recipe has no run with it: the objective's own defaults")


def _change(text: str, recipe: Recipe, objective: str) -> Setting:
    key, equals, value = text.partition("=")
    if not equals or not key.strip("+~"):
        raise ConfigError(
            f"--set {text!r} is not key=value. Write for example --set delta=0.2, or --set "
            f"{recipe.settings[-1].name}={hydra_value(recipe.settings[-1].value)}"
        )
    if "." not in key:
        key = _undotted(key, recipe, objective)
    return Setting(key, _plain(value), "yours", text=value)


def _undotted(key: str, recipe: Recipe, objective: str) -> str:
    """A parameter of the objective under its full key; other keys as they are."""
    from drpo.objectives import OBJECTIVES  # torch: only where a change may be such a parameter

    parameters = OBJECTIVES[objective].parameters()
    if key in parameters:
        return run_of(recipe.host).parameter_prefix + key
    groups = [setting.name for setting in recipe.settings if "." not in setting.name]
    if recipe.host == "verl" and key.lstrip("+~") not in groups:  # all else of verl's has a section
        raise ConfigError(
            f"--set {key}=…: neither a parameter of {objective!r} nor a key of verl's."
            f"{suggest(key, [*parameters, *groups])} A setting of verl has its sections in front: "
            "trainer.nnodes."
        )
    return key


def _plain(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:  # Hydra's notation has more than YAML's
        return text
