"""Study files: what they say, and that every mistake is told, at once, with its fix."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from drpo.cli.train import split_settings
from drpo.errors import ConfigError
from drpo.lab.directory import StudyDirectory, comparable
from drpo.lab.plan import make_plan, tries
from drpo.lab.study import SHIPPED, Study, check_study, load_study
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.config_text import read_yaml
from support import studies

pytestmark = pytest.mark.slow

DRPO, DPPO = (studies.VALUES["arms"][name] for name in ("drpo", "dppo"))
CLAIM = studies.VALUES["hypotheses"][0]


def test_a_plan_has_every_arm_in_every_setting_with_every_seed() -> None:
    plan = make_plan(studies.study())
    assert [(run.setting, run.arm, run.seed) for run in plan.shared] == [
        (setting, arm, seed) for seed in (0, 1, 2) for setting in ("one", "two") for arm in ("drpo", "dppo")
    ]
    assert plan.tuning == []
    for run in plan.shared:
        assert run.config.seed == run.seed and run.config.steps == 4
        assert run.config.updates_per_step == (4 if run.setting == "two" else 2)
        assert run.config.objective.name == ("drpo" if run.arm == "drpo" else "dppo_tv")


def test_the_smallest_file_of_the_page_is_whole_and_has_no_key_too_many(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")
    text = page.partition("## A study file")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "mine.yaml").write_text(text)
    name, study = load_study(str(tmp_path / "mine.yaml"))
    assert name == "mine" and len(make_plan(study).shared) == 12
    values = read_yaml(tmp_path / "mine.yaml")
    for key in ("title", "question", "settings", "arms", "seeds"):
        with pytest.raises(ConfigError, match=f"{key}: is missing"):
            check_study({other: value for other, value in values.items() if other != key}, "the page")


def test_files_and_commands_make_the_planned_configuration_from_nothing_else(tmp_path: Path) -> None:
    arms = {**studies.VALUES["arms"], "masked": {"objective": {"name": "drpo", "modifiers": [{"name": "opsm"}]}}}
    base = {"model": "some where", "task": {"name": "jsonl", "path": "1e3"}, "weight_decay": 1e-7}
    directory = StudyDirectory(tmp_path / "delta=0.1")
    for run in make_plan(studies.study(base=base, arms=arms)).shared:
        path = f"{directory.path}/runs/{run.setting}/{run.arm}/seed-{run.seed}"
        drpo, train, *overrides, out, where = shlex.split(run.command(directory.path))
        assert (drpo, train, out, where) == ("drpo", "train", "--out", path)
        assert load_config(None, overrides)[0] == run.config
        directory.write_config(run)
        train, *settings, out, where = run.arguments(directory.path)
        assert (train, settings, out, where) == ("train", [f"{path}.yaml"], "--out", path)
        assert load_config(*split_settings(settings))[0] == run.config
        assert run.arguments(directory.path, resume=True) == ["train", "--resume", path]
    relative = make_plan(studies.study()).shared[0].arguments(Path("delta=0.1"))[1]
    assert split_settings([relative]) == (Path(relative), [])


def test_layers_of_a_setting(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("steps: 9\nseed: 3\ngroup_size: 4\ntemperature: 0.9\n")
    (tmp_path / "of").mkdir()
    (tmp_path / "of" / "file.yaml").write_text(
        "steps: 8\ngroup_size: 6\nobjective: {name: grpo, ratio_low: 0.1}\nmax_new_tokens: 7\n"
    )
    settings = {"plain": "of/file.yaml", "own": {"file": "of/file.yaml", "max_new_tokens": 5, "eval_every": 2}}
    arms = {"grpo": {"objective": "grpo"}, "drpo": {"objective": "drpo"}}
    file = studies.write(tmp_path / "s.yaml", base="base.yaml", settings=settings, arms=arms, hypotheses=None)
    budget = {**studies.BUDGET, "steps": 6}
    name, study = load_study(
        str(studies.write(file, base="base.yaml", settings=settings, arms=arms, budget=budget, hypotheses=None))
    )
    assert name == "s" and study.budget == {}
    configs = {(run.setting, run.arm): run.config for run in make_plan(study).shared if run.seed == 0}
    assert {config.temperature for config in configs.values()} == {0.9}  # base
    assert {config.group_size for config in configs.values()} == {6}  # a setting's file over base
    assert {config.steps for config in configs.values()} == {6}  # the budget over the file
    assert configs["own", "drpo"].eval_every == 2 and configs["plain", "drpo"].eval_every == 1  # its own over all
    assert configs["own", "drpo"].max_new_tokens == 5
    assert configs["plain", "grpo"].objective.parameters == {"ratio_low": 0.1}
    assert configs["plain", "drpo"].objective.parameters == {}  # another name drops the file's parameters


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "budget"),
        ({"budget": None, "settings": {"one": {"file": "one.yaml"}}}, "settings.one.file"),
        ({"budget": None, "base": "base.yaml"}, "base"),
        ({"base": "base.yaml"}, "base and budget"),
    ],
)
def test_a_study_that_is_not_written_out_is_not_planned(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    """Its runs would ignore what is not in its settings."""
    (tmp_path / "one.yaml").write_text("steps: 3\neval_every: 1\n")
    (tmp_path / "base.yaml").write_text("steps: 3\neval_every: 1\n")
    study = check_study(studies.values(**changes), "test")
    with pytest.raises(ConfigError, match=rf"keeps {named} apart .*without_files"):
        make_plan(study)
    whole = study.without_files(tmp_path)
    steps = 4 if "budget" not in changes else 3
    assert whole.apart == [] and steps in {run.config.steps for run in make_plan(whole).shared}


def test_a_scale_changes_budget_settings_and_seeds() -> None:
    scales = {
        "gpu": {
            "budget": {"steps": 40},
            "settings": {"two": {"model": "large"}},
            "seeds": [0, 1, 2, 3],
            "tuning_seeds": [200],
        }
    }
    study = check_study(studies.values(scales=scales, tuning=studies.TUNING), "test")
    gpu = study.at_scale("gpu").without_files(Path())
    plan = make_plan(gpu)
    assert {run.config.steps for run in plan.shared} == {40} and {run.seed for run in plan.tuning} == {200}
    assert {(run.setting, run.config.model) for run in plan.shared} == {
        ("one", "embedded:arithmetic"),
        ("two", "large"),
    }
    assert len(plan.shared) == 2 * 2 * 4
    assert study.at_scale(None) is study
    with pytest.raises(ConfigError, match=r"unknown scale 'gup'. Did you mean 'gpu'\?"):
        study.at_scale("gup")


def test_a_scale_adds_settings(tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text("steps: 7\ntemperature: 0.5\n")
    scales = {"more": {"budget": {"steps": 8}, "settings": {"three": {"file": "three.yaml", "updates_per_step": 1}}}}
    name, study = load_study(str(studies.write(tmp_path / "some.yaml", scales=scales)), "more")
    assert name == "some-more" and list(study.settings) == ["one", "two", "three"]
    assert study.settings["three"].keys["steps"] == 8 and study.settings["three"].keys["temperature"] == 0.5
    assert {run.config.updates_per_step for run in make_plan(study).shared if run.setting == "three"} == {1}


def test_every_arm_gets_the_same_grid() -> None:
    arms = {
        "drpo": {**DRPO, "tries": {"objective.delta": [0.1, 0.2, 0.3]}},
        "grpo": {
            "objective": "grpo",
            "tries": {"objective.ratio_low": [0.1, 0.2, 0.3], "objective.ratio_high": [0.14, 0.28, 0.42]},
        },
        "surrogate": {"objective": "surrogate"},
    }
    study = studies.study(arms=arms, tuning=studies.TUNING, hypotheses=None)
    assert [one.keys for one in tries(study, "grpo")][3:5] == [
        {"learning_rate": 1e-4, "objective.ratio_low": 0.1, "objective.ratio_high": 0.14},
        {"learning_rate": 1e-4, "objective.ratio_low": 0.2, "objective.ratio_high": 0.28},
    ]
    assert [one.name for one in tries(study, "surrogate")] == ["learning_rate=5e-05", "learning_rate=0.0001"]
    plan = make_plan(study)
    assert len(plan.tuning) == 2 * 2 * (6 + 6 + 2)  # settings × tuning seeds × tries
    run = next(run for run in plan.tuning if run.attempt == "learning_rate=0.0001,delta=0.3" and run.seed == 101)
    assert (run.config.learning_rate, run.config.make_objective().shift_bound, run.config.seed) == (1e-4, 0.3, 101)
    assert str(run.path) == "tuning/one/drpo/learning_rate=0.0001,delta=0.3/seed-101"


def test_the_best_at_the_shared_configuration_is_the_shared_run() -> None:
    arms = {"drpo": {**DRPO, "tries": {"objective.delta": [0.15, 0.3]}}, "surrogate": {"objective": "surrogate"}}
    plan = make_plan(studies.study(arms=arms, tuning=studies.TUNING, hypotheses=None, settings={"one": {}}))
    chosen = {("one", "drpo"): "learning_rate=5e-05,delta=0.15", ("one", "surrogate"): "learning_rate=0.0001"}
    best = plan.best(chosen)
    assert [str(run.path) for run in best if run.seed == 1] == ["runs/one/drpo/seed-1", "best/one/surrogate/seed-1"]
    assert {run.config.learning_rate for run in best if run.arm == "surrogate"} == {1e-4}
    assert [run.seed for run in best] == [run.seed for run in plan.shared]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"armss": {}}, r"unknown key 'armss'. Did you mean 'arms'\?"),
        ({"arms": {}}, r"arms: dictionary should have at least 1 item"),
        ({"arms": None}, r"arms: is missing\n(.*\n)*docs/lab.md shows"),
        ({"seeds": []}, r"seeds: list should have at least 1 item"),
        ({"seeds": [0, 0]}, r"a seed is named twice in \[0, 0\]"),
        ({"seeds": [0, "1"]}, r"seeds.1: input should be a valid integer, got '1'"),
        ({"seeds": [-1]}, r"seeds.0: input should be greater than or equal to 0"),
        ({"tuning": {**studies.TUNING, "seeds": [2, 100]}}, r"seeds \[2\] are used for tuning and for evaluation"),
        ({"tuning": {**studies.TUNING, "rates": []}}, r"unknown key 'tuning.rates'.* Known: .*learning_rates, points"),
        ({"arms": {"a b": DRPO}, "hypotheses": None}, r"arms.a b.*string should match pattern"),
        ({"metric": "final_acuracy"}, r"unknown metric 'final_acuracy'. Did you mean 'final_accuracy'\?"),
        ({"hypotheses": [{**CLAIM, "ours": "dprpo"}]}, r"hypotheses.0: unknown arm 'dprpo'. Did you mean 'drpo'\?"),
        ({"hypotheses": [{**CLAIM, "settings": ["three"]}]}, r"hypotheses.0: unknown setting 'three'. Known: one, two"),
        ({"hypotheses": [{**CLAIM, "theirs": "drpo"}]}, r"compares 'drpo' with itself"),
        ({"hypotheses": [{**CLAIM, "at": "best"}]}, r"at: best needs tuning"),
        ({"hypotheses": [{**CLAIM, "compare": "medians"}]}, r"hypotheses.0.compare: .*'mean' or 'variance'"),
        ({"hypotheses": [{**CLAIM, "setting": "one"}]}, r"unknown key 'hypotheses.0.setting'. Did you mean 'settings'"),
        ({"scales": {"gpu": {"settings": {"three": {}}}}}, r"scales.gpu: unknown setting 'three'.*needs its file"),
        ({"scales": {"gpu": {"tuning_seeds": [7]}}}, r"tuning_seeds would be ignored"),
        ({"arms": {"drpo": {**DRPO, "steps": 9}, "dppo": DPPO}}, r"an arm may not change steps: arms share"),
        ({"arms": {"drpo": {**DRPO, "learning_rate": 1e-3}, "dppo": DPPO}}, r"an arm may not change learning_rate"),
        ({"arms": {"drpo": {**DRPO, "tries": {"objective.delta": [0.1]}}, "dppo": DPPO}}, r"tries of drpo would be "),
        ({"arms": {"drpo": {**DRPO, "tries": {"learning_rate": [0.1]}}, "dppo": DPPO}}, r"tries are of the object"),
        (
            {
                "arms": {
                    "drpo": {**DRPO, "tries": {"objective.delta": [0.1]}},
                    "dppo": {**DPPO, "tries": {"objective.delta": [0.1, 0.2]}},
                },
                "tuning": studies.TUNING,
            },
            r"arms differ .*tries.* \{'drpo': 1, 'dppo': 2\}",
        ),
    ],
)
def test_mistakes_in_a_study(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_study(studies.values(**changes), "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"color": "red"}}, r"unknown key 'color'.*\n    \(one × drpo; one × dppo; two × drpo; and 1 "),
        ({"arms": {"drpo": {"objectiv": "drpo"}, "dppo": DPPO}}, r"unknown key 'objectiv'. Did you mean 'objective'"),
        ({"arms": {"drpo": {"objective": "dprpo"}, "dppo": DPPO}}, r"unknown objective 'dprpo'. Did you mean 'drpo'"),
        ({"settings": {"one": {"updates_per_step": 99}}}, r"updates_per_step=99 exceeds the 32 responses"),
        (
            {"base": {"task": "copy"}, "settings": {"one": {"task": "reasoning_gym:chain_sum"}}},
            r"leaves out a parameter",
        ),
        ({"budget": {**studies.BUDGET, "eval_every": 0}}, r"gives 1 evaluation in 4 steps; .* Set eval_every=1 \(of"),
        (
            {
                "tuning": studies.TUNING,
                "arms": {**studies.VALUES["arms"], "drpo": {**DRPO, "tries": {"objective.delta": [0.1, -0.1]}}},
            },
            r"delta must be .* got -0.1\n    \(one × drpo, learning_rate=5e-05,delta=-0.1; ",
        ),
    ],
)
def test_runs_that_would_be_no_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(studies.study(**changes))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)unknown arm 'a'.*unknown arm 'b'.*twice|twice.*arm 'a'.*arm 'b'"):
        check_study(studies.values(seeds=[0, 0], hypotheses=[{**CLAIM, "ours": "a", "theirs": "b"}]), "test")
    arms = {"drpo": {"objective": "dprpo"}, "dppo": {"objective": {"name": "dppo_tv", "detla": 1}}}
    with pytest.raises(ConfigError, match=r"(?s)unknown objective 'dprpo'.*no parameter 'detla'"):
        make_plan(studies.study(arms=arms))


def test_what_is_no_study() -> None:
    with pytest.raises(ConfigError, match=r"no study 'smok'.* Did you mean 'smoke'\?"):
        load_study("smok")
    assert load_study("smoke")[0] == load_study(str(SHIPPED / "smoke.yaml"))[0] == "smoke"


def arm_keys(study: Study, arm: str) -> set[str]:
    """The keys of an arm but its objective."""
    return set(study.arms[arm].keys) - {"objective"}


@pytest.mark.filterwarnings("ignore:.*delta:drpo.errors.DrpoWarning")  # the paper's 12.5 is an arm on purpose
@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_study_plans_at_every_scale(file: Path) -> None:
    for scale in [None, *check_study(read_yaml(file), file.name).scales]:
        name, study = load_study(str(file), scale)
        plan = make_plan(study)
        evaluated, tuned = {run.seed for run in plan.evaluated}, {run.seed for run in plan.tuning}
        assert plan.evaluated and not evaluated & tuned
        # They claim nothing.
        if file.stem in ("smoke", "settle2-identity", "settle2-matched-pilot") or scale == "rehearsal":
            continue
        assert study.hypotheses
        if file.stem == "truncated-sampling":  # its arms differ in how they sample, and in nothing else
            assert {arm: arm_keys(study, arm) for arm in study.arms} == {
                "whole": set(),
                "replayed": {"top_p"},
                "not-replayed": {"top_p", "support_replay"},
            }
            continue
        assert len(evaluated) >= (10 if scale == "gpu" else 5)
        first = {arm: [run.config for run in plan.evaluated if run.arm == arm] for arm in study.arms}
        for configs in first.values():  # arms differ in their objective alone
            others = first[next(iter(study.arms))]
            assert [config.model_copy(update={"objective": None}) for config in configs] == [
                config.model_copy(update={"objective": None}) for config in others[: len(configs)]
            ]
        assert name == (file.stem if scale is None else f"{file.stem}-{scale}")


@pytest.mark.filterwarnings("ignore:.*delta:drpo.errors.DrpoWarning")  # the paper's 12.5 is an arm on purpose
def test_the_runs_of_a_study_log_tokens_only_where_it_says_so() -> None:
    logs = {}
    for name in ("smoke", "activation"):
        study = load_study(str(SHIPPED / f"{name}.yaml"), None)[1]
        logs[name] = {run.config.log_tokens for run in make_plan(study).shared}
    assert logs == {"smoke": {False}, "activation": {True}}


@pytest.mark.parametrize(
    ("changes", "same"), [({"mismatch_limit": 0.5}, True), ({"log_tokens": True}, False), ({"steps": 61}, False)]
)
def test_runs_are_the_same_where_a_study_reads_the_same_from_them(changes: dict[str, Any], same: bool) -> None:
    """A run without token logs must not stand in for one with them."""
    other = TrainConfig().model_copy(update=changes)
    assert (comparable(other) == comparable(TrainConfig())) == same


RANGES = {"points": 4, "seeds": [100], "learning_rates": {"log": [1e-5, 4e-4]}}


def test_points_are_the_same_rates_for_every_arm() -> None:
    arms = {
        "drpo": {**DRPO, "tries": {"objective.delta": {"log": [0.05, 0.5]}}},
        "grpo": {
            "objective": "grpo",
            "tries": {"objective.ratio_low": {"log": [0.1, 0.4]}, "objective.ratio_high": {"log": [0.14, 0.56]}},
        },
        "surrogate": {"objective": "surrogate"},
    }
    study = studies.study(arms=arms, tuning=RANGES, hypotheses=None, settings={"one": {}})
    tried = {arm: [one.keys for one in tries(study, arm)] for arm in arms}
    rates = [keys["learning_rate"] for keys in tried["surrogate"]]
    assert len(set(rates)) == 4 and all(1e-5 < rate < 4e-4 for rate in rates)
    assert all([keys["learning_rate"] for keys in own] == rates for own in tried.values())
    assert all(0.05 < keys["objective.delta"] < 0.5 for keys in tried["drpo"])
    for keys in tried["grpo"]:  # one point of the threshold moves all of its keys
        assert keys["objective.ratio_high"] / keys["objective.ratio_low"] == pytest.approx(1.4, rel=0.01)
    assert len(make_plan(study).tuning) == 3 * 4


DRAWS = {
    "learning_rate": {"log": [1e-5, 4e-4]},
    "updates_per_step": [1, 2, 4],
    "shape": [{"prompts_per_step": 8, "group_size": 4}, {"prompts_per_step": 4, "group_size": 8}],
}


def test_every_seed_draws_its_own_axes_and_all_arms_share_them() -> None:
    study = studies.study(draws=DRAWS, seeds=list(range(24)), settings={"one": {}})
    runs = make_plan(study).shared
    assert make_plan(study).shared[5].config == runs[5].config
    by_seed: dict[int, set[tuple[Any, ...]]] = {}
    for run in runs:
        config = run.config
        drawn = (config.learning_rate, config.updates_per_step, config.prompts_per_step, config.group_size)
        by_seed.setdefault(run.seed, set()).add(drawn)
        assert run.drawn == (
            f"learning_rate={drawn[0]},updates_per_step={drawn[1]},prompts_per_step={drawn[2]},group_size={drawn[3]}"
        )
    assert all(len(drawn) == 1 for drawn in by_seed.values())  # paired on the block
    drawn = [next(iter(one)) for one in by_seed.values()]
    assert len({rate for rate, *_ in drawn}) == 24
    for place, values in ((1, (1, 2, 4)), (2, (8, 4))):  # evenly
        counts = [sum(one[place] == value for one in drawn) for value in values]
        assert max(counts) - min(counts) <= 3
    assert {prompts * group for _, _, prompts, group in drawn} == {32}
    more = studies.study(draws=DRAWS, seeds=list(range(30)), settings={"one": {}})
    assert [run.config for run in make_plan(more).shared][:48] == [run.config for run in runs]  # seeds may be added


def test_an_arm_may_have_fewer_seeds_and_shared_runs_may_be_left_out() -> None:
    arms = {"drpo": {**DRPO, "tries": {"objective.delta": [0.1]}}, "dppo": {**DPPO, "seeds": 2}}
    study = studies.study(
        arms=arms, tuning=studies.TUNING, shared=False, settings={"one": {}}, hypotheses=[{**CLAIM, "at": "best"}]
    )
    plan = make_plan(study)
    assert plan.shared == [] and [(run.arm, run.seed) for run in plan.evaluated] == [
        ("drpo", 0), ("dppo", 0), ("drpo", 1), ("dppo", 1), ("drpo", 2)
    ]  # fmt: skip
    chosen = {("one", "drpo"): "learning_rate=5e-05,delta=0.1", ("one", "dppo"): "learning_rate=5e-05"}
    assert {str(run.path.parent) for run in plan.best(chosen)} == {"best/one/drpo", "best/one/dppo"}
    assert len(plan.most()) == len(plan.tuning) + 5
    assert study.looks_of(study.hypotheses[0]) == [2]


def test_the_second_round_runs_the_finalists_again() -> None:
    tuning = {**RANGES, "confirm": {"best": 2, "seeds": [200, 201, 202]}}
    plan = make_plan(studies.study(tuning=tuning, settings={"one": {}}))
    names = [one.name for one in tries(plan.study, "drpo")]
    again = plan.confirming({("one", "drpo"): names[:2], ("one", "dppo"): names[2:]})
    assert len(again) == 3 * 2 * 2 and {run.phase for run in again} == {"tuning"}
    assert {run.config.seed for run in again} == {200, 201, 202}
    assert len(plan.most()) == 8 + 12 + 2 * len(plan.evaluated)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looks": [2, 1]}, r"looks must rise to the number of seeds, 3, got \[2, 1\]"),
        ({"looks": [1, 2]}, r"looks must rise to the number of seeds, 3"),
        ({"shared": False}, r"shared: false leaves no runs without tuning"),
        ({"draws": {"steps": [1, 2]}}, r"draws: 'steps' cannot be drawn"),
        ({"draws": {"learning_rate": {"log": [2, 1]}}}, r"log needs two rising values above 0"),
        ({"draws": {**DRAWS, "group_size": [2]}}, r"group_size is set by two axes"),
        ({"draws": DRAWS, "tuning": studies.TUNING}, r"draws and tuning exclude each other"),
        ({"tuning": {**studies.TUNING, "points": 3}}, r"range of learning_rates needs points"),
        ({"tuning": {**RANGES, "confirm": {"best": 1, "seeds": [0]}}}, r"seeds \[0\] are used for tuning and for eval"),
        ({"arms": {"drpo": {**DRPO, "tries": {"objective.delta": [0.1]}}, "dppo": DPPO}, "tuning": RANGES}, r"ranges"),
        ({"arms": {"drpo": {**DRPO, "seeds": 9}, "dppo": DPPO}}, r"arms.drpo: seeds=9 exceeds the study's 3 seeds"),
        ({"hypotheses": [{**CLAIM, "margin": -0.1}]}, r"margin: .*greater than 0"),
        ({"hypotheses": [{**CLAIM, "test": "equivalence"}]}, r"test: equivalence needs a margin"),
        ({"hypotheses": [{**CLAIM, "margin": 0.1, "test": "difference"}]}, r"margin would be ignored"),
        ({"hypotheses": [{**CLAIM, "compare": "variance", "one_sided": True}]}, r"are for compare: mean"),
    ],
)
def test_mistakes_in_a_design(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_study(studies.values(**changes), "test")
