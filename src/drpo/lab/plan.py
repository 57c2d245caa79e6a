"""Every run of a study: its configuration, its place, and the command that starts it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from drpo.collapse import LAST
from drpo.errors import ConfigError, suggest
from drpo.lab import draws
from drpo.lab.metrics import evaluation_steps
from drpo.lab.study import Keys, Study
from drpo.train.config import TrainConfig
from drpo.train.config_layers import as_overrides, layer_config
from drpo.train.config_text import parse_overrides

#: A setting and an arm.
Place = tuple[str, str]
Phase = Literal["tuning", "shared", "best"]
#: Where the runs of a phase lie.
FOLDERS: dict[Phase, str] = {"tuning": "tuning", "shared": "runs", "best": "best"}
#: Defaults of a study that are not those of a single run: of hundreds of runs nobody reads the samples of tokens.
UNLIKE_A_RUN: Keys = {"log_tokens": False}


def row_path(row: Mapping[str, Any]) -> Path:
    """Where in a study's directory the run lies that a row is of."""
    parts = (FOLDERS[row["phase"]], row["setting"], row["arm"], row["attempt"], f"seed-{row['seed']}")
    return Path(*(part for part in parts if part))


@dataclass(frozen=True)
class Run:
    """One `drpo train`: an arm in a setting with a seed; ``attempt`` names what the tuning tries."""

    phase: Phase
    setting: str
    arm: str
    seed: int
    config: TrainConfig = field(compare=False)
    attempt: str = ""
    #: What was drawn for its seed.
    drawn: str = field(default="", compare=False)

    @property
    def path(self) -> Path:
        """Its directory, inside the study's."""
        return row_path(vars(self))

    @property
    def config_file(self) -> Path:
        """Its configuration file, beside its directory."""
        return self.path.with_name(f"{self.path.name}.yaml")

    def arguments(self, directory: Path, resume: bool = False) -> list[str]:
        """What follows ``drpo`` on the command line of a run of the study in ``directory``."""
        path = str(directory / self.path)
        if resume:
            return ["train", "--resume", path]
        # In front of the =, which the names of tries hold, stands a slash: it is a file and no setting.
        return ["train", os.path.join(os.curdir, directory / self.config_file), "--out", path]

    def command(self, directory: Path) -> str:
        """For a shell: the same run from nothing but the defaults."""
        return shlex.join(["drpo", "train", *as_overrides(self.config), "--out", str(directory / self.path)])

    @property
    def evaluations(self) -> list[int]:
        """After which steps it is evaluated."""
        return evaluation_steps(self.config.steps, self.config.eval_every)


@dataclass(frozen=True)
class Try:
    """One entry of an arm's grid: the dotted keys that it sets."""

    keys: Keys

    @property
    def name(self) -> str:
        """A folder's name: learning_rate=0.0001,delta=0.15."""
        return draws.text(self.keys)


@dataclass(frozen=True)
class Plan:
    """A study with its runs; those of the tuning's second round, and those at each arm's best, follow from what the
    tuning found. ``evaluated`` are the runs on the study's seeds, at the shared configuration."""

    study: Study
    tuning: list[Run]
    evaluated: list[Run]

    @property
    def shared(self) -> list[Run]:
        """The runs at the shared configuration that the study has."""
        return self.evaluated if self.study.shared else []

    def only(self, settings: Sequence[str]) -> Plan:
        """The runs in these settings; all of them for none named.

        Raises:
            ConfigError: the study has no such setting.
        """
        for name in settings:
            if name not in self.study.settings:
                raise ConfigError(f"the study has no setting {name!r}.{suggest(name, self.study.settings)}")
        kept = set(settings or self.study.settings)
        tuning, evaluated = ([run for run in runs if run.setting in kept] for runs in (self.tuning, self.evaluated))
        return Plan(self.study, tuning, evaluated)

    def confirming(self, finalists: Mapping[Place, Sequence[str]]) -> list[Run]:
        """The tuning's second round: (setting, arm) → the names of the tries that are run again."""
        confirm = self.study.tuning.confirm if self.study.tuning else None
        configs = {(run.setting, run.arm, run.attempt): run.config for run in self.tuning}
        return [
            Run("tuning", *place, seed, configs[*place, name].model_copy(update={"seed": seed}), name)
            for seed in (confirm.seeds if confirm else ())
            for place, names in finalists.items()
            for name in names
        ]

    def most(self) -> list[Run]:
        """As many runs as there may be, like those that there will be: for an estimate."""
        tuning, found = self.study.tuning, [*self.tuning, *self.shared]
        if tuning is None:
            return found
        names: dict[Place, list[str]] = {}
        for run in self.tuning:
            if run.seed == tuning.seeds[0]:
                names.setdefault((run.setting, run.arm), []).append(run.attempt)
        second = tuning.confirm.best if tuning.confirm else 0
        return [*found, *self.confirming({place: own[:second] for place, own in names.items()}), *self.evaluated]

    def best(self, choices: Mapping[Place, str]) -> list[Run]:
        """The evaluation runs at the chosen tries, (setting, arm) → name; a choice that is the shared configuration
        is the shared run itself. None where nothing was chosen yet."""
        configs = {(run.setting, run.arm, run.attempt): run.config for run in self.tuning}
        found = []
        for run in self.evaluated:
            if (chosen := choices.get((run.setting, run.arm))) is None:
                continue
            config = configs[run.setting, run.arm, chosen].model_copy(update={"seed": run.seed})
            same = self.study.shared and config == run.config
            found.append(run if same else Run("best", run.setting, run.arm, run.seed, config))
        return found


def make_plan(study: Study) -> Plan:
    """Every run, in the order in which they start: seed by seed, so that a study that is stopped early has compared
    all arms on the seeds that it finished.

    Raises:
        ConfigError: the study is not written out, or some would be no valid runs; every problem, with where it occurs.
    """
    if apart := study.apart:
        raise ConfigError(
            f"the study keeps {' and '.join(apart)} apart from its settings, where no run would read it. Write it out "
            "first: study.without_files(FOLDER); load_study does."
        )
    problems: dict[str, list[str]] = {}
    tuning: list[Run] = []
    places = [(setting, arm) for setting in study.settings for arm in study.arms]
    evaluated = _evaluated(study, places, problems)
    if study.tuning:
        tried = [
            (place, one, _config(study, *place, one.keys, problems))
            for place in places
            for one in tries(study, place[1])
        ]
        for seed in study.tuning.seeds:
            tuning += [
                Run("tuning", *place, seed, config.model_copy(update={"seed": seed}), one.name)
                for place, one, config in tried
                if config
            ]
    if problems:
        lines = [f"{message}\n    ({_some(where)})" for message, where in problems.items()]
        raise ConfigError("\n".join(["not every run of the study is valid:", *lines]))
    return Plan(study, tuning, evaluated)


def _evaluated(study: Study, places: Sequence[Place], problems: dict[str, list[str]]) -> list[Run]:
    """The runs on the study's seeds; with draws each seed has a configuration of its own."""
    found, configs = [], {}
    for index, seed in enumerate(study.seeds):
        drawn = draws.draw(study.draws, seed) if study.draws else {}
        if drawn or not configs:
            configs = {place: _config(study, *place, drawn, problems) for place in places}
        found += [
            Run("shared", *place, seed, config.model_copy(update={"seed": seed}), drawn=draws.text(drawn))
            for place, config in configs.items()
            if config and index < study.seeds_of(place[1])
        ]
    return found


def tries(study: Study, arm: str) -> Iterator[Try]:
    """The grid of an arm: every learning rate with every threshold; or the points of its ranges."""
    tuning, own = study.tuning, study.arms[arm]
    if tuning is None:
        return
    if isinstance(rates := tuning.learning_rates, draws.LogRange):
        for index in range(tuning.points or 0):
            rate, threshold = draws.point(index, 2)
            yield Try({"learning_rate": rates.at(rate), **{key: one.at(threshold) for key, one in own.ranges.items()}})
        return
    for rate in rates:
        for threshold in own.thresholds:
            yield Try({"learning_rate": rate, **threshold})


def _config(study: Study, setting: str, arm: str, keys: Keys, problems: dict[str, list[str]]) -> TrainConfig | None:
    assert isinstance(study.base, dict)
    attempt = parse_overrides(f"{key}={json.dumps(value)}" for key, value in keys.items())
    layers = [UNLIKE_A_RUN, study.base, study.settings[setting].keys, study.arms[arm].keys, attempt]
    where = f"{setting} × {arm}" + (f", {Try(keys).name}" if keys else "")
    config = None
    try:
        config, _ = layer_config([(where, layer) for layer in layers])
        found = _unsuitable(config)
    except ConfigError as error:
        found = str(error).splitlines()
    for problem in found:
        problems.setdefault(problem, []).append(where)
    return None if found else config


def _unsuitable(config: TrainConfig) -> list[str]:
    """What a comparison asks for beyond a valid configuration."""
    found = []
    evaluations = len(evaluation_steps(config.steps, config.eval_every)) - 1
    if evaluations < LAST and config.eval_final is None:
        needs = f"eval_every={config.steps // LAST}" if config.steps >= LAST else f"steps={LAST} and eval_every=1"
        found.append(
            f"eval_every={config.eval_every} gives {evaluations} evaluation{'' if evaluations == 1 else 's'} in "
            f"{config.steps} steps; the final accuracy is the mean of the last {LAST}. Set {needs} (of a study "
            "file, in its budget), or eval_final."
        )
    if config.stop_on_collapse:
        found.append("stop_on_collapse=true: a comparison needs every evaluation of a run. Leave it out.")
    if layer_config([("", config.as_dict())])[0] != config:
        found.append(
            "the run's configuration file would be read with a default: a task or objective leaves out a parameter "
            "that its default form has. Write the parameter out."
        )
    return found


def _some(places: list[str], limit: int = 3) -> str:
    more = len(places) - limit
    return "; ".join(places[:limit]) + (f"; and {more} more" if more > 0 else "")
