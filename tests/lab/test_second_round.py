"""What the files of the second round say of themselves: thresholds from records, powers and counts that follow."""

from __future__ import annotations

import pytest

from drpo.files import read_json
from drpo.lab.draws import draw
from drpo.lab.plan import make_plan
from drpo.lab.statistics import Spread, detectable
from drpo.lab.study import SHIPPED, load_study
from tools.measure.gradient_mass import BOUNDS, FOLDER

#: Arm of settle2-matched → its label in the record.
ARMS = {"drpo": "DRPO", "dppo_tv": "DPPO", "ipo": "IPO", "grpo": "GRPO", "spo": "SPO", "kl_k1": "k1"}


def test_matched_arms_have_the_thresholds_of_the_record() -> None:
    record = read_json(FOLDER / "settle2-matched-pilot.json")
    _, study = load_study("settle2-matched")
    for arm, label in ARMS.items():
        found = record["matched"]["objectives"][label]
        assert study.arms[arm].keys["objective"] == found["settings"]
        assert found["changed"] == pytest.approx(record["matched"]["share"], rel=0.01)
    text = (SHIPPED / "settle2-matched.yaml").read_text(encoding="utf-8")
    changed = {label: sum(record["objectives"][label]["changed"]) for label in ("DRPO", "DPPO")}
    assert f"DRPO changes {changed['DRPO']:.1%} of".replace("%", " %") in text
    assert f"DPPO {changed['DPPO']:.2%} at".replace("%", " %") in text
    assert record["objectives"]["DRPO"]["settings"] == BOUNDS["DRPO"]


def test_the_tokens_that_thresholds_are_matched_on_are_of_the_compared_area_and_of_other_blocks() -> None:
    _, pilot = load_study("settle2-matched-pilot")
    _, matched = load_study("settle2-matched")
    _, area = load_study("settle2-area")
    assert pilot.draws == matched.draws == area.draws and not set(pilot.seeds) & set(area.seeds)
    runs = read_json(FOLDER / "settle2-matched-pilot.json")["runs"]
    drawn = [draw(pilot.draws, seed) for seed in pilot.seeds]
    assert [run["learning_rate"] for run in runs] == [one["learning_rate"] for one in drawn]
    assert [run["updates_per_step"] for run in runs] == [one["updates_per_step"] for one in drawn]


@pytest.mark.filterwarnings("ignore:.*delta:drpo.errors.DrpoWarning")  # the paper's 12.5 is an arm on purpose
@pytest.mark.parametrize(
    ("name", "arms", "runs"),
    [("settle2-matched", ("surrogate", "drpo"), 140), ("rivals", ("grpo", "dppo_tv", "drpo"), 160)],
)
def test_blocks_that_the_area_has_run_are_the_same_runs(name: str, arms: tuple[str, ...], runs: int) -> None:
    """--reuse finds them by their configuration."""
    area = {(run.arm, run.seed): run.config.resolved() for run in make_plan(load_study("settle2-area")[1]).shared}
    plan = make_plan(load_study(name)[1])
    shared = [run for run in plan.shared if run.arm in arms]
    assert (len(plan.shared), len(shared)) == (runs, 20 * len(arms))
    assert all(area[run.arm, run.seed] == run.config.resolved() for run in shared)


def test_what_eight_blocks_find_is_what_the_file_says() -> None:
    _, study = load_study("settle2-pretrained")
    family = [claim for claim in study.hypotheses if not claim.secondary]
    assert (len(study.seeds), len(family)) == (8, 3) and study.metric == "late_reward"
    for spread, level in ((0.087, 0.05), (0.069, 0.05 / 3)):
        assert f"{spread}" in study.analysis
        assert detectable([Spread(spread, 7)], [8], 7, level).value == pytest.approx(0.10, abs=6e-4)


def test_stage_e_and_its_control_have_the_same_arms_and_log_tokens() -> None:
    pretrained, control = (make_plan(load_study(f"settle2-{name}")[1]) for name in ("pretrained", "small-vocabulary"))
    assert (len(pretrained.shared), len(control.shared)) == (32, 96)
    assert pretrained.study.arms == control.study.arms
    for run in (*pretrained.shared, *control.shared):
        assert run.config.log_tokens is True and (run.config.eval_every, run.config.updates_per_step) == (0, 4)
    assert {run.config.task.name for run in pretrained.shared} == {"sums"}


def test_the_card_runs_the_pretrained_study_with_twice_the_blocks_and_the_rehearsal_two_steps_of_each_arm() -> None:
    whole, gpu, rehearsal = (
        make_plan(load_study("settle2-pretrained", scale)[1]) for scale in (None, "gpu", "rehearsal")
    )
    first = {(run.arm, run.seed): run.config.resolved() for run in whole.shared}
    more = {(run.arm, run.seed): run.config.resolved() for run in gpu.shared}
    assert len(more) == 64 and {place: more[place] for place in first} == first
    assert [(run.arm, run.config.steps) for run in rehearsal.shared] == [(arm, 2) for arm in whole.study.arms]
