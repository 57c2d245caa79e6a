"""The parts of a study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from drpo.lab.draws import LogRange
from drpo.recipe_files import recipe_file
from drpo.setting_types import STRICT, Count
from drpo.train.config_text import read_yaml

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
        "max_new_tokens",
        "eval_every",
        "eval_examples",
        "eval_samples",
        "eval_final",
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
    then the second, …; or a range of each. ``seeds``: only so many of the study's seeds, its first.
    """

    tries: dict[str, list[Any] | LogRange] = {}
    seeds: Count | None = None

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
        if len({isinstance(values, LogRange) for values in self.tries.values()}) > 1:
            raise ValueError(f"tries: every key needs values, or every key a range, got {self.tries}")
        if len({len(values) for values in self.tries.values() if isinstance(values, list)}) > 1:
            raise ValueError(f"tries: every key needs the same number of values, got {self.tries}")
        return self

    @property
    def thresholds(self) -> list[Keys]:
        """Dotted keys of each try; a single empty one for an arm without a threshold of its own."""
        lists = {key: values for key, values in self.tries.items() if isinstance(values, list)}
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)] or [{}]

    @property
    def ranges(self) -> dict[str, LogRange]:
        """The ranges that points of its threshold are drawn from; empty for an arm without."""
        return {key: values for key, values in self.tries.items() if isinstance(values, LogRange)}


class Confirmation(Part):
    """A second round of the tuning: the ``best`` of each arm by a surface fitted to the first round run again with
    fresh seeds, which alone decide."""

    best: Count
    seeds: list[Seed] = Field(min_length=1)


class Tuning(Part):
    """How each arm's best is found: every learning rate with every try of its threshold, or ``points`` drawn from a
    range of rates and the arm's range of thresholds, the same rates for all; over seeds of its own."""

    seeds: list[Seed] = Field(min_length=1)
    learning_rates: Annotated[list[float], Field(min_length=1)] | LogRange
    points: Count | None = None
    confirm: Confirmation | None = None

    @property
    def all_seeds(self) -> list[int]:
        """Of both rounds."""
        return [*self.seeds, *(self.confirm.seeds if self.confirm else ())]

    @model_validator(mode="after")
    def _drawn_or_listed(self) -> Tuning:
        if isinstance(self.learning_rates, LogRange) != (self.points is not None):
            raise ValueError(
                "a range of learning_rates needs points, the number of draws, and points need a range: "
                "{points: 10, learning_rates: {log: [1e-5, 4e-4]}}"
            )
        return self


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


class Scale(Part):
    """The same study at another size: budget and settings' keys to add, further settings by their file, other seeds."""

    budget: Keys = {}
    settings: dict[str, Keys] = {}
    seeds: list[Seed] | None = None
    tuning_seeds: list[Seed] | None = None
