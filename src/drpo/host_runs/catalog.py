"""The shipped recipes: YAML files in which every value says whether it is public or assumed, and from where or why.

A recipe is ``HOST/NAME.yaml``. Files whose name starts with an underscore are parts that recipes include.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from drpo.errors import ConfigError, suggest
from drpo.integrations import hosts
from drpo.integrations.hosts import run_of
from drpo.recipe_files import PREFIX, ROOT, names_below

#: The hosts that have recipes, those of clusters first.
HOSTS = tuple(
    sorted((name for name, host in hosts.HOSTS.items() if host.run), key=lambda name: not run_of(name).on_ray)
)

Origin = Literal["public", "assumed", "yours"]


@dataclass(frozen=True)
class Setting:
    """One override of the host's configuration.

    Args:
        key: as the host takes it; a Hydra prefix (``+``, ``++``, ``~``) included.
        value: plain YAML.
        origin: published, assumed by us, or given on the command line.
        why: where it is published, or why it is assumed.
        text: the value as the user wrote it, which may be more than plain YAML.
    """

    key: str
    value: Any
    origin: Origin
    why: str = ""
    text: str | None = None

    @property
    def name(self) -> str:
        """The key without its prefix: what it sets, however it is written."""
        return self.key.lstrip("+~")


@dataclass(frozen=True)
class ObjectiveChoice:
    """An objective of a recipe, with the parameters that its runs have."""

    name: str
    parameters: dict[str, Any]
    origin: Origin
    why: str


@dataclass(frozen=True)
class Recipe:
    """One recipe with everything that it includes.

    Args:
        settings: in order, each name once; the file's own replace those that it includes.
        objectives: by name; the first is the one that runs unless another is asked for.
        not_expressible: what the host cannot do as it was done, in words.
    """

    name: str
    title: str
    host: str
    model: str
    settings: tuple[Setting, ...]
    objectives: dict[str, ObjectiveChoice]
    not_expressible: tuple[str, ...]

    def value(self, name: str) -> Any:
        """The value of a setting, None if the recipe leaves it to the host."""
        return next((setting.value for setting in self.settings if setting.name == name), None)

    @property
    def assumed(self) -> tuple[Setting, ...]:
        """The settings that are not public."""
        return tuple(setting for setting in self.settings if setting.origin == "assumed")


class _Sourced(BaseModel):
    """Something that is either public or assumed, and says from where or why."""

    model_config = ConfigDict(extra="forbid")
    public: str | None = None
    assumed: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> _Sourced:
        if bool(self.public) == bool(self.assumed):
            raise ValueError("needs exactly one of `public: where` and `assumed: why`")
        return self

    def source(self) -> tuple[Origin, str]:
        return ("public", self.public) if self.public else ("assumed", self.assumed or "")


class _Block(_Sourced):
    values: dict[str, Any]


class _Objective(_Sourced):
    parameters: dict[str, Any]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = ""
    host: str = ""
    model: str = ""
    include: list[str] = []
    settings: list[_Block] = []
    objectives: dict[str, _Objective] = {}
    not_expressible: list[str] = []

    @field_validator("host")
    @classmethod
    def _known(cls, host: str) -> str:
        if host not in HOSTS:
            raise ValueError(f"no recipes for {host!r}.{suggest(host, HOSTS)}")
        return host


def recipe_names() -> list[str]:
    """Every recipe, as ``HOST/NAME``."""
    return [name for host in HOSTS for name in names_below(host)]


def train_recipes() -> dict[str, str]:
    """``recipe:NAME`` of the shipped configurations for `drpo train` → its title, the comment that it begins with."""
    names = [*(name for name in names_below() if "/" not in name), *names_below("settings")]
    return {PREFIX + name: _title(ROOT / f"{name}.yaml") for name in names}


def _title(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


@cache
def load_recipe(name: str) -> Recipe:
    """The recipe ``name``, with or without ``recipe:`` and its host in front.

    Raises:
        ConfigError: there is none of this name (with the nearest), or its file is not a recipe.
    """
    name, names = name.removeprefix(PREFIX), recipe_names()
    found = [known for known in names if name in (known, known.partition("/")[2])]
    if not found:
        raise ConfigError(f"unknown recipe {name!r}.{suggest(name, names)}")
    return read_recipe(ROOT / f"{found[0]}.yaml", found[0])


def read_recipe(path: Path, name: str) -> Recipe:
    """The recipe in a file; what it includes, and ``_objectives.yaml``, lie beside it.

    Raises:
        ConfigError: the file is not a recipe; the message names the file and the key.
    """
    files = _with_included(path)
    top = files[-1][1]
    settings: dict[str, Setting] = {}
    objectives = _objective_table(path.parent)
    for file, content in files:
        for setting in _settings(file, content):
            settings[setting.name] = setting
        objectives |= _choices(content.objectives)
    for field in ("title", "host", "model"):
        if not getattr(top, field):
            raise ConfigError(f"{path}: a recipe needs {field!r}")
    remarks = tuple(" ".join(remark.split()) for _, content in files for remark in content.not_expressible)
    return Recipe(name, top.title, top.host, top.model, tuple(settings.values()), objectives, remarks)


def with_settings(recipe: Recipe, settings: list[Setting]) -> Recipe:
    """The recipe with these settings: instead of those of the same name, else behind them."""
    changed = {setting.name: setting for setting in recipe.settings}
    for setting in settings:
        before = changed.get(setting.name)
        # A key that the recipe adds to the host's files is still to be added when its value changes.
        prefixed = replace(setting, key=before.key) if before and setting.key == setting.name else setting
        changed[setting.name] = prefixed
    return replace(recipe, settings=tuple(changed.values()))


def _with_included(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, _File]]:
    """The files of a recipe, what is included first."""
    if path in seen:
        raise ConfigError(f"{path} includes itself")
    content = _read(path)
    below = [_with_included(path.parent / f"{part}.yaml", (*seen, path)) for part in content.include]
    return [*(file for files in below for file in files), (path, content)]


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        known = suggest(str(problem["loc"][-1]), _File.model_fields) if problem["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{path}: {where}: {problem['msg']}.{known}") from error


def _settings(path: Path, content: _File) -> list[Setting]:
    settings = [
        Setting(key, value, *block.source()) for block in content.settings for key, value in block.values.items()
    ]
    names = [setting.name for setting in settings]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path} sets {twice[0]!r} twice")
    return settings


def _objective_table(folder: Path) -> dict[str, ObjectiveChoice]:
    table = folder / "_objectives.yaml"
    if not table.is_file():
        return {}
    raw = yaml.safe_load(table.read_text(encoding="utf-8"))
    return _choices({name: _Objective.model_validate(entry) for name, entry in raw.items()})


def _choices(objectives: dict[str, _Objective]) -> dict[str, ObjectiveChoice]:
    return {name: ObjectiveChoice(name, entry.parameters, *entry.source()) for name, entry in objectives.items()}
