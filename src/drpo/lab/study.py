"""A study: which arms are compared, in which settings, over which seeds, and what is claimed before it runs.

docs/lab.md describes the file. Whatever is wrong with it is told at once, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from drpo.errors import ConfigError, suggest
from drpo.lab.draws import Axis
from drpo.lab.draws import names as axis_keys
from drpo.lab.metrics import METRICS
from drpo.lab.study_parts import Arm, Hypothesis, Keys, Name, Scale, Seed, Setting, Test, Tuning
from drpo.recipe_files import ROOT, recipe_file
from drpo.schema import unnumbered
from drpo.setting_types import STRICT, Count
from drpo.train.config_layers import merge
from drpo.train.config_text import read_yaml

__all__ = ["Arm", "Hypothesis", "Keys", "Study", "Test", "check_study", "load_study"]

SHIPPED = ROOT / "studies"
#: What a study may draw anew for each seed.
DRAWABLE = (
    "learning_rate",
    "updates_per_step",
    "rollout_lag",
    "prompts_per_step",
    "group_size",
    "temperature",
    "precision",
    "rollout_precision",
)


class Study(BaseModel):
    """A study file; unknown keys are errors."""

    model_config = STRICT

    title: str = Field(min_length=1)
    question: str = Field(min_length=1)
    base: Keys | str = {}
    budget: Keys = {}
    settings: dict[Name, Setting] = Field(min_length=1)
    arms: dict[Name, Arm] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    tuning: Tuning | None = None
    metric: str = "final_accuracy"
    target_accuracy: float | None = Field(default=None, gt=0, le=1)
    hypotheses: list[Hypothesis] = []
    family: dict[Name, Count] = {}
    looks: list[Count] = []
    draws: dict[str, Axis] = {}
    shared: bool = True
    analysis: str = ""
    scales: dict[Name, Scale] = {}

    @model_validator(mode="before")
    @classmethod
    def _file_alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(settings := values.get("settings"), dict):
            short = {
                name: {"file": given} if isinstance(given, str) else given or {} for name, given in settings.items()
            }
            return {**values, "settings": short}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if problems := [*self._seed_problems(), *self._name_problems()]:
            raise ValueError("\n".join(problems))
        return self

    def _seed_problems(self) -> list[str]:
        found = []
        for label, seeds in (("seeds", self.seeds), ("tuning.seeds", self.tuning.all_seeds if self.tuning else [])):
            if len(set(seeds)) < len(seeds):
                found.append(f"{label}: a seed is named twice in {seeds}")
        if self.tuning and (both := sorted(set(self.seeds) & set(self.tuning.all_seeds))):
            found.append(f"seeds {both} are used for tuning and for evaluation; choose others for tuning.seeds")
        found += [*self._look_problems(), *self._draw_problems()]
        if self.tuning and self.tuning.points:
            listed = [name for name, arm in self.arms.items() if arm.tries and not arm.ranges]
            if listed:
                found.append(
                    f"tries of {', '.join(listed)} must be ranges, such as {{log: [0.05, 0.5]}}, beside points"
                )
        elif ranged := [name for name, arm in self.arms.items() if arm.ranges]:
            found.append(f"tries of {', '.join(ranged)} are ranges: add tuning with points and a range of rates")
        counts = {name: len(arm.thresholds) for name, arm in self.arms.items() if arm.tries and not arm.ranges}
        if len(set(counts.values())) > 1:
            found.append(
                f"arms differ in the number of tries of their thresholds: {counts}. Give each the same number."
            )
        if counts and not self.tuning:
            found.append(
                f"tries of {', '.join(counts)} would be ignored: add tuning, with its seeds and "
                "learning_rates, or leave them out."
            )
        return found

    def _look_problems(self) -> list[str]:
        found = []
        if self.looks and (self.looks != sorted(set(self.looks)) or self.looks[-1] != len(self.seeds)):
            found.append(f"looks must rise to the number of seeds, {len(self.seeds)}, got {self.looks}")
        for name, arm in self.arms.items():
            if arm.seeds is not None and arm.seeds > len(self.seeds):
                found.append(f"arms.{name}: seeds={arm.seeds} exceeds the study's {len(self.seeds)} seeds")
        if not self.shared and not self.tuning:
            found.append("shared: false leaves no runs without tuning. Add tuning, or leave it out.")
        return found

    def _draw_problems(self) -> list[str]:
        keys = [key for name, axis in self.draws.items() for key in axis_keys(name, axis)]
        found = [f"draws: {key!r} cannot be drawn.{suggest(key, DRAWABLE)}" for key in keys if key not in DRAWABLE]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            found.append(f"draws: {', '.join(twice)} is set by two axes")
        if self.draws and self.tuning:
            found.append("draws and tuning exclude each other: what is drawn is not tuned. Make two studies of it.")
        return found

    def _name_problems(self) -> list[str]:
        found = [] if self.metric in METRICS else [f"unknown metric {self.metric!r}.{suggest(self.metric, METRICS)}"]
        for index, claim in enumerate(self.hypotheses):
            where = f"hypotheses.{index}: "
            found += [
                f"{where}unknown arm {arm!r}.{suggest(arm, self.arms)}"
                for arm in (claim.ours, claim.theirs)
                if arm not in self.arms
            ]
            found += [
                f"{where}unknown setting {name!r}.{suggest(name, self.settings)}"
                for name in claim.settings or ()
                if name not in self.settings
            ]
            if claim.metric is not None and claim.metric not in METRICS:
                found.append(f"{where}unknown metric {claim.metric!r}.{suggest(claim.metric, METRICS)}")
            if claim.ours == claim.theirs:
                found.append(f"{where}compares {claim.ours!r} with itself")
            if claim.at == "shared" and not self.shared:
                found.append(f"{where}at: shared needs the runs that shared: false leaves out")
            if claim.at == "best" and not self.tuning:
                found.append(f"{where}at: best needs tuning, with its seeds and learning_rates")
        for label, scale in self.scales.items():
            found += [
                f"scales.{label}: unknown setting {name!r}.{suggest(name, self.settings)} A setting that the "
                "scale adds needs its file."
                for name, keys in scale.settings.items()
                if name not in self.settings and "file" not in keys
            ]
            if scale.tuning_seeds and not self.tuning:
                found.append(f"scales.{label}: tuning_seeds would be ignored: the study has no tuning")
        return found

    def looks_of(self, hypothesis: Hypothesis) -> list[int]:
        """The numbers of seeds at which a hypothesis is judged; the last is all of its arms' seeds."""
        most = min(self.seeds_of(arm) for arm in (hypothesis.ours, hypothesis.theirs))
        if hypothesis.compare == "variance":  # its test has no looks
            return [most]
        return [*(look for look in self.looks if look < most), most]

    def seeds_of(self, arm: str) -> int:
        """The number of seeds that an arm is run with, the study's first."""
        return self.arms[arm].seeds or len(self.seeds)

    def at_scale(self, name: str | None) -> Study:
        """The study with the changes of that scale; itself for None.

        Raises:
            ConfigError: no such scale, or what it makes is not allowed.
        """
        if name is None:
            return self
        if name not in self.scales:
            raise ConfigError(f"unknown scale {name!r}.{suggest(name, self.scales)}")
        scale, values = self.scales[name], self.model_dump()
        values["budget"] = merge(values["budget"], scale.budget)
        for setting, keys in scale.settings.items():
            values["settings"][setting] = merge(values["settings"].get(setting, {}), keys)
        if scale.seeds:
            values["seeds"] = scale.seeds
        if scale.tuning_seeds:
            values["tuning"]["seeds"] = scale.tuning_seeds
        return check_study({**values, "scales": {}}, f"scale {name}")

    @property
    def apart(self) -> list[str]:
        """What :meth:`without_files` has yet to write into the settings: a budget, or files that are named."""
        files = [f"settings.{name}.file" for name, setting in self.settings.items() if setting.file]
        return [*(["base"] if isinstance(self.base, str) else []), *(["budget"] if self.budget else []), *files]

    def without_files(self, folder: Path) -> Study:
        """The same study with what its files say written out, so that it needs none of them; its scales, which name
        more, are left behind.

        A setting's file comes before the budget, and the budget before the setting's own keys.
        """
        base = read_yaml(recipe_file(self.base, folder)) if isinstance(self.base, str) else self.base
        settings = {
            name: merge(merge(setting.from_file(folder), self.budget), setting.keys)
            for name, setting in self.settings.items()
        }
        values = self.model_dump() | {"base": base, "budget": {}, "settings": settings, "scales": {}}
        return check_study(values, "the study")


def load_study(source: str, scale: str | None = None) -> tuple[str, Study]:
    """The name and the study of a file, of ``recipe:NAME`` or of a shipped study's name; files that it names are read.

    Raises:
        ConfigError: it cannot be read or is not allowed; all problems in one message.
    """
    file = recipe_file(source)
    if not file.is_file() and (SHIPPED / f"{source}.yaml").is_file():
        file = SHIPPED / f"{source}.yaml"
    elif not file.is_file():
        shipped = (found.stem for found in SHIPPED.glob("*.yaml"))
        raise ConfigError(f"no study {source!r}: neither a file nor a shipped one.{suggest(source, shipped)}")
    study = check_study(read_yaml(file), str(file)).at_scale(scale).without_files(file.parent)
    return file.stem if scale is None else f"{file.stem}-{scale}", study


def check_study(values: Mapping[str, Any], source: str) -> Study:
    """The study of plain values; a ``schema`` number among them says which version wrote them.

    Raises:
        ConfigError: with every problem found. SchemaError: a newer version wrote the study.
    """
    plain = unnumbered("study", dict(values), source)
    try:
        return Study.model_validate(plain)
    except ValidationError as error:
        problems = error.errors()
        lacking = any(problem["type"] == "missing" for problem in problems)
        lines = [f"{source}:", *map(_explain, problems), *(["docs/lab.md shows the smallest study file"] * lacking)]
        raise ConfigError("\n".join(lines)) from error


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parts = {"tuning": Tuning, "hypotheses": Hypothesis, "scales": Scale}
        model = parts.get(str(problem["loc"][0]), Study)
        return f"unknown key {place!r}.{suggest(str(problem['loc'][-1]), model.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place}: {message}" if place else message
    if problem["type"] == "missing":
        return f"{place}: is missing"
    return f"{place}: {message[0].lower() + message[1:]}, got {problem['input']!r}"
