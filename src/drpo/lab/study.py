"""A study: which arms are compared, in which settings, over which seeds, and what is claimed before it runs.

docs/lab.md describes the file. Whatever is wrong with it is told at once, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from drpo.errors import ConfigError, suggest
from drpo.lab.metrics import METRICS
from drpo.recipe_files import ROOT, recipe_file
from drpo.schema import unnumbered
from drpo.setting_types import STRICT
from drpo.train.config import merge
from drpo.train.config_text import read_yaml

SHIPPED = ROOT / "studies"
#: What arms have in common, so that they differ in nothing but how they learn: an arm may not change it.
COMMON = frozenset(
    {
        "model",
        "task",
        "steps",
        "seed",
        "prompts_per_step",
        "group_size",
        "updates_per_step",
        "learning_rate",
        "temperature",
        "top_p",
        "top_k",
        "max_new_tokens",
        "eval_every",
        "eval_examples",
        "eval_samples",
        "precision",
        "rollout_precision",
        "rollout_lag",
        "sampler",
    }
)

#: A folder is named after it.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Seed = Annotated[int, Field(ge=0)]
Keys = dict[str, Any]
#: What a hypothesis of means is tested for.
Test = Literal["difference", "equivalence"]


class Part(BaseModel):
    """A part of a study file; unknown keys are errors."""

    model_config = STRICT


class Configured(Part):
    """A part whose other keys are TrainConfig's."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @property
    def keys(self) -> Keys:
        """What it sets of a run's configuration."""
        return dict(self.model_extra or {})


class Setting(Configured):
    """Where the arms are compared: the keys of ``file``, then the study's budget, then its own keys."""

    file: str | None = None

    def from_file(self, folder: Path) -> Keys:
        """The keys of its file: ``recipe:NAME``, or a path that starts at ``folder``."""
        return read_yaml(recipe_file(self.file, folder)) if self.file else {}


class Arm(Configured):
    """One of those compared, by the keys in which it differs from the others.

    ``tries``: values of its own threshold for the tuning, by dotted key; with several keys, the first values together,
    then the second, …
    """

    tries: dict[str, list[Any]] = {}

    @model_validator(mode="after")
    def _fair(self) -> Arm:
        if shared := sorted(COMMON & set(self.keys)):
            raise ValueError(
                f"an arm may not change {', '.join(shared)}: arms share weights, prompts, budget and "
                "learning rates. Put it in a setting, in base, or in tuning."
            )
        if foreign := sorted(key for key in self.tries if not key.startswith("objective.")):
            raise ValueError(
                f"tries are of the objective's own threshold, got {', '.join(foreign)}. Write for "
                "example objective.delta: [0.1, 0.15, 0.3]"
            )
        if len({len(values) for values in self.tries.values()}) > 1:
            raise ValueError(f"tries: every key needs the same number of values, got {self.tries}")
        return self

    @property
    def thresholds(self) -> list[Keys]:
        """Dotted keys of each try; a single empty one for an arm without a threshold of its own."""
        return [dict(zip(self.tries, values, strict=True)) for values in zip(*self.tries.values(), strict=True)] or [{}]


class Tuning(Part):
    """How each arm's best is found: every learning rate with every try of its threshold, over seeds of its own."""

    seeds: list[Seed] = Field(min_length=1)
    learning_rates: list[float] = Field(min_length=1)


class Hypothesis(Part):
    """What is claimed of ``ours`` against ``theirs``, in a sentence; the lab finds out, whichever way it goes.

    With a ``margin`` it is also tested whether the arms are equivalent: whether the difference is below it in both
    directions; ``test: equivalence`` makes that test alone. ``one_sided``: only whether ours is better.
    ``secondary`` hypotheses are corrected among themselves.
    """

    claim: str = Field(min_length=1)
    ours: str
    theirs: str
    compare: Literal["mean", "variance"] = "mean"
    metric: str | None = None
    settings: list[str] | None = None
    at: Literal["shared", "best"] = "shared"
    margin: float | None = Field(default=None, gt=0)
    test: Test | None = None
    one_sided: bool = False
    secondary: bool = False

    @property
    def tests(self) -> tuple[Test, ...]:
        """What it is tested for."""
        if self.test:
            return (self.test,)
        return ("difference",) if self.margin is None else ("difference", "equivalence")

    @model_validator(mode="after")
    def _testable(self) -> Hypothesis:
        if self.compare == "variance" and (self.margin is not None or self.test or self.one_sided):
            raise ValueError("margin, test and one_sided are for compare: mean. Leave them out.")
        if self.test == "equivalence" and self.margin is None:
            raise ValueError("test: equivalence needs a margin, for example margin: 0.02")
        if self.margin is not None and self.test == "difference":
            raise ValueError("margin would be ignored with test: difference. Leave one of them out.")
        if self.one_sided and self.test == "equivalence":
            raise ValueError("one_sided would be ignored with test: equivalence. Leave one of them out.")
        return self


class Family(Part):
    """Claims that are corrected together although they lie in several studies.

    ``elsewhere`` is the number of the family's comparisons in other studies; where those are not at hand, they count
    as not shown.
    """

    name: Name
    elsewhere: int = Field(ge=1)


class Scale(Part):
    """The same study at another size: budget and settings' keys to add, further settings by their file, other seeds."""

    budget: Keys = {}
    settings: dict[str, Keys] = {}
    seeds: list[Seed] | None = None
    tuning_seeds: list[Seed] | None = None


class Study(Part):
    """A study file."""

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
    family: Family | None = None
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
        for label, seeds in (("seeds", self.seeds), ("tuning.seeds", self.tuning.seeds if self.tuning else [])):
            if len(set(seeds)) < len(seeds):
                found.append(f"{label}: a seed is named twice in {seeds}")
        if self.tuning and (both := sorted(set(self.seeds) & set(self.tuning.seeds))):
            found.append(f"seeds {both} are used for tuning and for evaluation; choose others for tuning.seeds")
        counts = {name: len(arm.thresholds) for name, arm in self.arms.items() if arm.tries}
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
        return [len(self.seeds)]

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
        raise ConfigError("\n".join([f"{source}:", *(_explain(problem) for problem in error.errors())])) from error


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        model = {"tuning": Tuning, "hypotheses": Hypothesis, "scales": Scale, "family": Family}.get(
            str(problem["loc"][0]), Study
        )
        return f"unknown key {place!r}.{suggest(str(problem['loc'][-1]), model.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place}: {message}" if place else message
    if problem["type"] == "missing":
        return f"{place}: is missing"
    return f"{place}: {message[0].lower() + message[1:]}, got {problem['input']!r}"
