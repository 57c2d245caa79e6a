"""What a registered study does: looks, a second round of tuning, runs that are not reused elsewhere, its digest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drpo.code_version import training_code
from drpo.errors import ConfigError
from drpo.files import json_text
from drpo.lab.directory import StudyDirectory
from drpo.lab.metrics import reward_metrics
from drpo.lab.plan import Run, make_plan
from drpo.lab.registration import analysis_digest, check_registration, registration, study_digest
from drpo.lab.results import read_csv, write_csv
from drpo.lab.robustness import areas, basins, sensitivities
from drpo.lab.run import kept_results, read_results, run_study
from drpo.lab.runner import Watcher
from drpo.lab.study import Study, check_study, load_study
from drpo.lab.surface import fitted
from drpo.lab.tables import markdown
from drpo.lab.workers import LocalWorkers
from drpo.train.config_text import read_yaml
from support import stand_in, studies
from tools import keep_study

pytestmark = pytest.mark.slow

ONE: dict[str, Any] = {"one": {}}
FLAT = [0.4, 0.5, 0.5, 0.5, 0.5]


class Notes(Watcher):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_start(self, run: Run, resumed: bool) -> None:
        self.started.append(str(run.path))


def workers(folder: Path, study: Study, told: Callable[[Run], dict[str, Any]]) -> LocalWorkers:
    """Workers whose program is the stand-in; every run that the study may have behaves as ``told`` says."""
    plan = make_plan(study)
    runs = [*plan.tuning, *plan.evaluated]
    for run in plan.tuning:
        place = run.setting, run.arm
        runs += [*plan.confirming({place: [run.attempt]}), *plan.best({place: run.attempt})]
    behaviors = {str(run.path): {"config": run.config.resolved(), "accuracies": FLAT, **told(run)} for run in runs}
    file = folder / "behaviors.json"
    file.write_text(json.dumps(behaviors))
    return LocalWorkers(2, 1, program=(sys.executable, stand_in.__file__, str(file)))


def noisy(gap: Callable[[str], float]) -> Callable[[Run], dict[str, Any]]:
    """Runs that end at 0.5 + gap(arm), give or take 0.01 by seed."""

    def told(run: Run) -> dict[str, Any]:
        noise = np.random.default_rng([run.seed, *run.arm.encode()]).normal(0, 0.01)
        return {"accuracies": [0.4, *[0.5 + gap(run.arm) + float(noise)] * 4]}

    return told


ARMS = {**studies.VALUES["arms"], "grpo": {"objective": "grpo"}}
TWO = [
    {"claim": "DRPO ends higher than DPPO.", "ours": "drpo", "theirs": "dppo"},
    {"claim": "DRPO ends higher than GRPO.", "ours": "drpo", "theirs": "grpo"},
]
LOOKS: dict[str, Any] = {"settings": ONE, "arms": ARMS, "seeds": list(range(12)), "looks": [6, 12], "hypotheses": TWO}


def test_an_arm_stops_at_the_look_that_decides_its_claims(tmp_path: Path) -> None:
    study, watcher = studies.study(**LOOKS), Notes()
    gaps = {"dppo": -0.2}  # as good as GRPO, and far above DPPO
    told = noisy(lambda arm: gaps.get(arm, 0.0))
    results, stopped = run_study(study, tmp_path / "D", workers(tmp_path, study, told), watcher)
    assert not stopped and "look at 6 seeds: drpo, grpo go on" in watcher.notes
    ran = {arm: sum(f"/{arm}/" in path for path in watcher.started) for arm in ARMS}
    assert ran == {"drpo": 12, "grpo": 12, "dppo": 6}
    better, undecided = results.verdicts
    assert (better.answer, better.seeds, better.planned) == ("better", 6, 12)
    assert "6 of 12 seeds" in better.sentence and (undecided.answer, undecided.seeds) == ("undecided", 12)
    statuses = {row["status"] for row in results.rows if row["arm"] == "dppo" and row["seed"] > 5}
    assert statuses == {"skipped"} and results.count("missing") == 0
    again = Notes()
    run_study(study, tmp_path / "D", workers(tmp_path, study, told), again)
    assert not again.started
    assert [verdict.answer for verdict in read_results(study, tmp_path / "D").verdicts] == ["better", "undecided"]
    kept = kept_results(study, tmp_path / "D")
    assert [row["status"] for row in kept.rows] == [row["status"] for row in results.rows]


def test_a_study_ends_at_the_look_that_decides_everything(tmp_path: Path) -> None:
    study, watcher = studies.study(**LOOKS), Notes()
    told = noisy(lambda arm: 0.0 if arm == "drpo" else -0.2)
    results, _ = run_study(study, tmp_path / "D", workers(tmp_path, study, told), watcher)
    assert len(watcher.started) == 18 and "look at 6 seeds: every claim is decided" in watcher.notes
    assert {verdict.answer for verdict in results.verdicts} == {"better"} and results.count("skipped") == 18


def test_an_early_look_has_a_wider_interval(tmp_path: Path) -> None:
    """It covers the truth whenever the study stops."""
    study = studies.study(**LOOKS)
    told = noisy(lambda arm: 0.0 if arm == "drpo" else -0.2)
    early, _ = run_study(study, tmp_path / "D", workers(tmp_path, study, told), Notes())
    plain = studies.study(**{**LOOKS, "seeds": list(range(6)), "looks": []})
    once, _ = run_study(plain, tmp_path / "E", workers(tmp_path, plain, told), Notes())
    wide, narrow = early.verdicts[0].found, once.verdicts[0].found
    assert wide and narrow and wide.value == narrow.value and wide.low < narrow.low < narrow.high < wide.high


def test_the_second_round_alone_decides_among_the_finalists(tmp_path: Path) -> None:
    """In the first round δ near 0.1 looks best; of its finalists the one with the lowest rate is, by fresh seeds."""
    arms = {"drpo": {"objective": "drpo", "tries": {"objective.delta": {"log": [0.05, 0.5]}}},
            "surrogate": {"objective": "surrogate"}}  # fmt: skip
    tuning = {
        "seeds": [100], "points": 6, "learning_rates": {"log": [1e-5, 4e-4]},
        "confirm": {"best": 2, "seeds": [200, 201]},
    }  # fmt: skip
    claim = [{"claim": "It does.", "ours": "drpo", "theirs": "surrogate", "at": "best"}]
    study = studies.study(settings=ONE, arms=arms, tuning=tuning, shared=False, hypotheses=claim)

    def told(run: Run) -> dict[str, Any]:
        rate = np.log10(run.config.learning_rate)
        first = 0.6 - 0.1 * (rate + 4.2) ** 2
        return {"accuracies": [0.2, *[float(first if run.seed == 100 else 0.3 - 0.02 * (rate + 4))] * 4]}

    watcher = Notes()
    results, _ = run_study(study, tmp_path / "D", workers(tmp_path, study, told), watcher)
    choices = json.loads((tmp_path / "D" / "choices.json").read_text())["choices"]
    for choice in choices:
        assert len(choice["scores"]) == 6 and len(choice["confirmed"]) == 2
        rates = {name: float(name.split(",")[0].removeprefix("learning_rate=")) for name in choice["confirmed"]}
        assert choice["chosen"] == min(rates, key=lambda name: rates[name])
        assert all(2e-5 < rate < 2e-4 for rate in rates.values())  # about 6e-5
    phases = [path.split("/")[0] for path in watcher.started]
    assert phases == ["tuning"] * (12 + 8) + ["best"] * 6
    assert {row["status"] for row in results.rows} == {"finished"} and len(results.rows) == 26


def test_a_surface_passes_noise_on_to_its_neighbors() -> None:
    rates = [1e-5 * 1.5**step for step in range(9)]
    true = [0.5 - 0.02 * (step - 4) ** 2 for step in range(9)]
    generator = np.random.default_rng(0)
    nearer = 0
    for _ in range(200):
        noise = generator.normal(0, 0.05, 9)
        found = fitted([{"learning_rate": rate} for rate in rates], list(np.array(true) + noise))
        nearer += sum((np.array(found) - true) ** 2) < sum(noise**2)
    assert nearer > 150
    assert fitted([{"learning_rate": 1e-5}, {"learning_rate": 1e-4}], [0.1, 0.2]) == [0.1, 0.2]
    flat = fitted([{"learning_rate": rate} for rate in rates], [0.3] * 9)
    assert flat == [0.3] * 9


def test_runs_of_another_processor_are_not_reused(tmp_path: Path) -> None:
    study = studies.study(settings=ONE)
    told = noisy(lambda arm: 0.0)

    def elsewhere(run: Run) -> dict[str, Any]:
        return told(run) | ({"cpu": "Another"} if run.seed == 1 else {})

    run_study(study, tmp_path / "first", workers(tmp_path, study, elsewhere), Notes())
    old = tmp_path / "first/runs/one/drpo/seed-2/manifest.json"
    old.write_text(json.dumps({key: value for key, value in json.loads(old.read_text()).items() if key != "cpu"}))
    watcher = Notes()
    run_study(study, tmp_path / "D", workers(tmp_path, study, told), watcher, reuse=[tmp_path / "first"])
    assert sorted(watcher.started) == ["runs/one/dppo/seed-1", "runs/one/drpo/seed-1", "runs/one/drpo/seed-2"]
    assert "2 runs are not reused: another processor" in watcher.notes
    assert "1 runs are not reused: processor not recorded" in watcher.notes


def test_rows_of_another_processor_are_reused_by_whole_seeds(tmp_path: Path) -> None:
    study = studies.study(settings=ONE, seeds=[0, 1, 2])
    told = noisy(lambda arm: 0.01 if arm == "drpo" else 0.0)
    run_study(study, tmp_path / "whole", workers(tmp_path, study, told), Notes())
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = read_csv(tmp_path / "whole" / "results.csv")
    for row in rows:
        # Seed 0 ran here, seed 1 elsewhere, and of seed 2 one arm here and one elsewhere.
        if row["seed"] == 1 or (row["seed"], row["arm"]) == (2, "drpo"):
            row["cpu"] = "Another"
    write_csv(StudyDirectory(tables), rows)
    (tables / "curves.csv").write_bytes((tmp_path / "whole" / "curves.csv").read_bytes())
    watcher = Notes()
    results, _ = run_study(study, tmp_path / "on", workers(tmp_path, study, told), watcher, reuse=[tables])
    assert watcher.started == ["runs/one/drpo/seed-2"]
    assert any("3 runs are of another processor (Another): reused where every arm of" in note for note in watcher.notes)
    assert {(row["seed"], row["cpu"] == "Another") for row in results.rows} == {(0, False), (1, True), (2, False)}
    # A sitting that was killed while it took over a seed's rows takes over the rest of them.
    first = (tmp_path / "on" / "reused.jsonl").read_text().splitlines(keepends=True)
    for kept in range(len(first)):
        place = tmp_path / f"killed-{kept}"
        place.mkdir()
        (place / "reused.jsonl").write_text("".join(first[:kept]))
        again = Notes()
        run_study(study, place, workers(tmp_path, study, told), again, reuse=[tables])
        assert again.started == ["runs/one/drpo/seed-2"]


def test_rows_of_another_processor_are_reused_by_whole_arms_of_a_tuning(tmp_path: Path) -> None:
    tuning = {"seeds": [100], "learning_rates": [1e-5, 1e-4]}
    study = studies.study(settings=ONE, seeds=[0, 1], tuning=tuning, hypotheses=None)
    told = noisy(lambda arm: 0.01 if arm == "drpo" else 0.0)
    run_study(study, tmp_path / "whole", workers(tmp_path, study, told), Notes())
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = read_csv(tmp_path / "whole" / "results.csv")
    tuned = [row for row in rows if row["phase"] == "tuning"]
    for row in tuned:
        row["cpu"] = "Another"
    left = [row for row in tuned if row["arm"] == "dppo"][-1]
    left["status"] = "missing"  # the sitting ended before an arm's last try
    write_csv(StudyDirectory(tables), rows)
    (tables / "curves.csv").write_bytes((tmp_path / "whole" / "curves.csv").read_bytes())
    watcher = Notes()
    run_study(study, tmp_path / "on", workers(tmp_path, study, told), watcher, reuse=[tables])
    assert len(tuned) == 4 and {Path(run).parts[:3] for run in watcher.started} == {("tuning", "one", "dppo")}
    assert len(watcher.started) == 2


def test_a_study_is_registered_with_its_first_run(tmp_path: Path) -> None:
    study = studies.study(settings=ONE)
    at_work = workers(tmp_path, study, noisy(lambda arm: 0.0))
    run_study(study, tmp_path / "D", at_work, Notes())
    found = registration(tmp_path / "D")
    assert found and found["study"] == study_digest(study) and found["analysis"] == analysis_digest()
    assert check_registration(study, tmp_path / "D") == ""
    read = check_study(read_yaml(tmp_path / "D/study.yaml"), "study")
    assert study_digest(read) == study_digest(study) != study_digest(studies.study(settings=ONE, metric="area"))
    about = tmp_path / "D" / "about.json"
    about.write_text(json_text({"registration": {**found, "analysis": "0" * 16}}))
    watcher = Notes()
    run_study(study, tmp_path / "D", at_work, watcher)
    assert any("the analysis changed since the study was registered (0000" in note for note in watcher.notes)
    about.write_text(json_text({"registration": {**found, "study": "0" * 64}}))
    with pytest.raises(ConfigError, match="was registered as 0000000000000000, and is "):
        run_study(study, tmp_path / "D", at_work, Notes())
    about.unlink()
    assert check_registration(study, tmp_path / "D") == ""  # a study from before there were registrations


def test_what_is_kept_of_a_study_keeps_its_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.study(settings=ONE)
    run_study(study, tmp_path / "D", workers(tmp_path, study, noisy(lambda arm: 0.0)), Notes())
    monkeypatch.setattr(sys, "argv", ["keep_study", str(tmp_path / "D"), str(tmp_path / "kept")])
    keep_study.main()
    assert registration(tmp_path / "kept") == registration(tmp_path / "D") is not None
    assert check_registration(study, tmp_path / "kept") == ""
    assert len(kept_results(study, tmp_path / "kept").rows) == 6
    assert (tmp_path / "kept" / "verdicts.json").is_file()


def test_an_unfinished_study_is_kept_without_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = studies.study(settings={"one": {}, "two": {"learning_rate": 1e-4}})
    told = workers(tmp_path, study, noisy(lambda arm: 0.0))
    run_study(study, tmp_path / "D", told, Notes(), settings=["one"])
    monkeypatch.setattr(sys, "argv", ["keep_study", str(tmp_path / "D"), str(tmp_path / "kept")])
    keep_study.main()
    assert "6 of 12 runs are left" in capsys.readouterr().out
    assert not (tmp_path / "kept" / "verdicts.json").exists() and (tmp_path / "kept" / "curves.csv").is_file()
    run_study(study, tmp_path / "D", told, Notes())
    keep_study.main()
    assert (tmp_path / "kept" / "verdicts.json").is_file() and not capsys.readouterr().out


def test_what_is_kept_counts_the_runs_of_earlier_sittings_and_not_those_of_other_studies(tmp_path: Path) -> None:
    study = studies.study(settings=ONE)
    results, _ = run_study(study, tmp_path / "area", workers(tmp_path, study, noisy(lambda arm: 0.0)), Notes())
    directory = StudyDirectory(tmp_path / "area")
    rows = [row | {"seconds": 10.0} for row in results.rows]
    for run, source in zip(make_plan(study).shared, ("/lab/area", "/lab/area", "/lab/other"), strict=False):
        directory.write_entry("reused", run, source=f"drpo train --out {source}/{run.path}")
    before = {"began": "2020-01-02", "ended": "2020-01-03", "threads_a_run": [2], "reused": ["area", "third"]}
    found = keep_study.about(directory, [*rows, rows[-1] | {"phase": "best"}], before)
    assert (found["started"], found["seconds"]) == (len(rows) - 1, 10 * (len(rows) - 1))
    assert found["reused"] == ["other", "third"] and found["threads_a_run"] == [1, 2]
    assert found["began"] == "2020-01-02" and found["ended"] > "2026"


def test_what_is_kept_names_reused_studies_and_the_first_registration() -> None:
    """A run is taken over from a directory, or from a kept row, of which the command is left."""
    assert keep_study.study_of("/runs/lab/area/runs/dense/drpo/seed-3") == "area"
    assert keep_study.study_of("drpo train seed=3 --out runs/lab/area/runs/dense/drpo/seed-3") == "area"
    first = {"study": "a", "registered": "2026-11-30T16:30:06+00:00"}
    later = first | {"registered": "2026-12-01T09:00:00+00:00"}
    assert keep_study.first_registration({"registration": first}, {"registration": later}) == {"registration": first}
    assert keep_study.first_registration({"registration": later}, {"registration": first}) == {}
    assert keep_study.first_registration({"registration": first}, {"registration": later | {"study": "b"}}) == {}
    assert keep_study.first_registration({}, {"registration": later}) == {}


def test_a_digest_does_not_change_with_a_default_or_a_scale(tmp_path: Path) -> None:
    file = studies.write(tmp_path / "a.yaml")
    written = studies.write(tmp_path / "b.yaml", looks=[], shared=True, scales={"gpu": {"seeds": [0, 1]}})
    assert study_digest(load_study(str(file))[1]) == study_digest(load_study(str(written))[1])
    assert study_digest(load_study(str(written), "gpu")[1]) != study_digest(load_study(str(file))[1])


def test_the_training_reward_is_a_mean_over_steps(tmp_path: Path) -> None:
    """Whatever the responses' lengths; a step that a broken run did not reach counts as 0."""
    updates = [stand_in.update(step) | {"reward": reward, "sequences": 4} for step, reward in ((1, 0.2), (2, 0.6))]
    updates.append(stand_in.update(2) | {"reward": 0.2, "sequences": 12, "tokens": 1})
    assert reward_metrics(updates, 4, failed=False)["training_reward"] == pytest.approx((0.2 + 0.3) / 2)
    assert reward_metrics(updates, 4, failed=True)["training_reward"] == pytest.approx((0.2 + 0.3) / 4)
    assert reward_metrics([stand_in.update(1)], 4, failed=False) == {}
    study = studies.study(settings=ONE, seeds=[0])
    told = workers(tmp_path, study, lambda run: {"rewards": [0.1, 0.2, 0.3, 0.4]})
    results, _ = run_study(study, tmp_path / "D", told, Notes())
    assert [row["training_reward"] for row in results.rows] == pytest.approx([0.25, 0.25])
    assert "reward" in (tmp_path / "D/curves.csv").read_text().splitlines()[0]
    assert read_csv(tmp_path / "D/results.csv")[0]["training_reward"] == pytest.approx(0.25)


def test_the_late_reward_is_that_of_the_second_half(tmp_path: Path) -> None:
    """Of five steps the last three; a step that a broken run did not reach counts as 0."""
    updates = [
        stand_in.update(step) | {"reward": reward, "sequences": 4}
        for step, reward in enumerate((0.9, 0.8, 0.1, 0.3, 0.2), start=1)
    ]
    assert reward_metrics(updates, 5, failed=False)["late_reward"] == pytest.approx((0.1 + 0.3 + 0.2) / 3)
    assert reward_metrics(updates[:3], 5, failed=True)["late_reward"] == pytest.approx(0.1 / 3)
    assert reward_metrics(updates[:2], 5, failed=True)["late_reward"] == 0.0
    assert reward_metrics(updates[:2], 5, failed=False)["late_reward"] is None
    assert reward_metrics(updates, 10, failed=False)["late_reward"] is None
    claim = {"claim": "DRPO is rewarded more.", "ours": "drpo", "theirs": "dppo", "metric": "late_reward"}
    study = studies.study(settings=ONE, seeds=list(range(6)), hypotheses=[claim])

    def told(run: Run) -> dict[str, Any]:
        gain = (0.2 if run.arm == "drpo" else 0.0) + 0.01 * (run.seed % 3 if run.arm == "drpo" else 0)
        return {"rewards": [0.9, 0.1, 0.3 + gain, 0.5 + gain]}

    results, _ = run_study(study, tmp_path / "D", workers(tmp_path, study, told), Notes())
    (verdict,) = results.verdicts
    assert verdict.found and verdict.found.value == pytest.approx(0.21) and verdict.answer == "better"
    assert "mean training reward of the second half" in verdict.sentence
    assert read_csv(tmp_path / "D/results.csv")[0]["late_reward"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("rewards", "collapsed"),
    [([0.2] * 10 + [0.8] * 10, False), ([0.8] * 10 + [0.1] * 10, True), ([0.8] * 15 + [0.3, 0.9] * 3, False)],
)
def test_a_fall_of_the_reward_is_a_collapse_where_nothing_is_evaluated_between(
    rewards: list[float], collapsed: bool
) -> None:
    updates = [stand_in.update(step) | {"reward": reward} for step, reward in enumerate(rewards, start=1)]
    assert reward_metrics(updates, len(rewards), failed=False)["reward_collapsed"] is collapsed


def test_without_evaluations_between_the_last_one_alone_is_the_final_accuracy(tmp_path: Path) -> None:
    budget = {**studies.BUDGET, "eval_every": 0, "eval_final": {"examples": 64, "samples": 2}}
    study = studies.study(settings=ONE, seeds=[0], budget=budget)
    told = workers(tmp_path, study, lambda run: {"accuracies": [0.4, 0.1, 0.1, 0.1, 0.5]})
    results, _ = run_study(study, tmp_path / "D", told, Notes())
    assert [row["final_accuracy"] for row in results.rows] == [0.5, 0.5]


def test_basins_and_sensitivity_stand_in_the_results() -> None:
    """Gains 0, 0.1, …, 0.9: each twice: the reference is 0.9, and 0.72 must be kept."""
    study = studies.study(settings=ONE, draws={"updates_per_step": [1, 2]}, seeds=list(range(10)))
    rows = [
        {"phase": "shared", "setting": "one", "arm": arm, "seed": seed, "status": "finished", "collapsed": seed == 0,
         "accuracy_before": 0.1, "final_accuracy": 0.1 + 0.1 * seed}
        for arm in ("drpo", "dppo") for seed in range(10)
    ]  # fmt: skip
    found = basins(study, rows)
    assert [one[:3] for one in found] == [("one", "drpo", 10), ("one", "dppo", 10)]
    assert found[0].gain == pytest.approx(0.45) and found[0].kept == pytest.approx(0.8 * 0.9)
    assert found[0].width and found[0].width.value == pytest.approx(0.2) and found[0].collapsed.value == 0.1
    assert "| one | drpo | 10 | 0.45 | 0.72 | 20% (3% to 56%) | 10% (0% to 45%) |" in markdown(study, rows, [])
    assert basins(studies.study(), rows) == []
    tuned = studies.study(tuning={"seeds": [100], "learning_rates": [1e-5, 1e-4]}, hypotheses=None)
    best = {("one", "a"): 0.9, ("one", "b"): 0.1, ("two", "a"): 0.1, ("two", "b"): 0.9}
    rows = [
        {"phase": "tuning", "setting": setting, "arm": arm, "seed": 100, "attempt": name, "status": "finished",
         "final_accuracy": score if arm == "drpo" else best["one", name]}
        for arm in ("drpo", "dppo") for (setting, name), score in best.items()
    ]  # fmt: skip
    found = {line[0]: line[3] for line in sensitivities(tuned, rows)}
    assert found == {"drpo": pytest.approx(0.5), "dppo": pytest.approx(0.0)}


def test_means_along_a_drawn_range_are_of_parts_of_equal_width_and_those_of_a_list_of_its_values() -> None:
    """Rates 1, 2, 4, …, 128 in two parts, [1, 16) and [16, 256]: of accuracies 0 to 7 means 1.5 and 5.5."""
    draws = {"learning_rate": {"log": [1.0, 256.0]}, "rollout_lag": [0, 4], "precision": ["fp32", "bf16"]}
    study = studies.study(settings={"one": {}, "two": {}}, draws=draws, seeds=list(range(8)))
    shapes = [(2.0**seed, 4 * (seed % 2)) for seed in range(8)]
    rows = [
        {"phase": "shared", "setting": "one", "arm": "drpo", "seed": seed, "status": "finished", "collapsed": False,
         "drawn": f"learning_rate={rate:g},rollout_lag={lag},precision=fp32", "accuracy_before": 0.0,
         "final_accuracy": float(seed)}
        for seed, (rate, lag) in enumerate(shapes)
    ]  # fmt: skip
    late = {"setting": "two", "arm": "dppo", "status": "missing", "final_accuracy": None}
    found = areas(study, [*rows[::-1], {**rows[0], **late}])
    assert list(found) == ["one"] and found["one"]["label"] == "final accuracy"
    along = found["one"]["along"]
    assert list(along) == ["learning_rate", "rollout_lag"]  # no mean along names
    course = along["learning_rate"]["drpo"]
    assert [at for at, _ in course.means] == pytest.approx([2**1.5, 2**5.5])
    assert [value for _, value in course.means] == [1.5, 5.5]
    assert course.blocks == [(rate, float(seed)) for seed, (rate, _) in enumerate(shapes)]
    assert along["rollout_lag"]["drpo"].means == [(0.0, 3.0), (4.0, 4.0)]
    assert along["rollout_lag"]["dppo"].means == []
    named = studies.study(settings=ONE, draws={"precision": ["fp32", "bf16"]}, seeds=list(range(8)))
    assert areas(named, rows)["one"]["along"] == {} and len(areas(named, rows)["one"]["basins"]) == 1
    assert areas(studies.study(), rows) == {}


def test_studies_of_a_family_that_lie_beside_each_other_are_corrected_together(tmp_path: Path) -> None:
    claim = [studies.VALUES["hypotheses"][0]]
    seeds = list(range(6))
    one = studies.study(settings=ONE, seeds=seeds, hypotheses=claim, family={"second": 1})
    other = studies.study(settings={"one": {"learning_rate": 1e-4}}, seeds=seeds, hypotheses=claim, family={"first": 1})
    told = noisy(lambda arm: 0.0 if arm == "drpo" else -0.2)
    alone, _ = run_study(one, tmp_path / "first", workers(tmp_path, one, told), Notes())
    assert alone.verdicts[0].level == 0.025
    both, _ = run_study(other, tmp_path / "second", workers(tmp_path, other, told), Notes())
    assert both.verdicts[0].level == 0.05  # the first is shown, so that nothing else has to share the level
    assert read_results(one, tmp_path / "first").verdicts[0].level == 0.05


def test_a_study_goes_on_from_its_tables_alone(tmp_path: Path) -> None:
    study = studies.study(settings=ONE, seeds=[0, 1, 2])
    told = noisy(lambda arm: 0.01 if arm == "drpo" else 0.0)
    whole, _ = run_study(study, tmp_path / "whole", workers(tmp_path, study, told), Notes())
    tables = tmp_path / "tables"
    tables.mkdir()
    lines = (tmp_path / "whole" / "results.csv").read_text().splitlines(keepends=True)
    (tables / "results.csv").write_text("".join(lines[:-2]))  # two runs did not fit into the first sitting
    for name in ("curves.csv", "study.yaml", "about.json"):
        (tables / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    watcher = Notes()
    results, _ = run_study(study, tmp_path / "on", workers(tmp_path, study, told), watcher, reuse=[tables])
    assert len(watcher.started) == 2 and len(results.rows) == len(whole.rows) == len(lines) - 1
    for here, there in zip(results.rows, whole.rows, strict=True):
        # The two runs took their own time; an empty cell of text is the same as none.
        assert {key: here.get(key) or None for key in there if key not in ("command", "seconds")} == {
            key: value or None for key, value in there.items() if key not in ("command", "seconds")
        }
    assert (tmp_path / "on" / "curves.csv").read_text() == (tmp_path / "whole" / "curves.csv").read_text()
    assert [v.answer for v in results.verdicts] == [v.answer for v in whole.verdicts]
    again = Notes()
    run_study(study, tmp_path / "on", workers(tmp_path, study, told), again, reuse=[tables])
    assert not again.started and not [note for note in again.notes if note.startswith("reused")]
    with pytest.raises(ConfigError, match="Add --reuse"):
        run_study(study, tables, workers(tmp_path, study, told), Notes())
    file = tables / "results.csv"
    file.write_text(file.read_text().replace(training_code(), "0123456789abcdef"))
    other = Notes()
    run_study(study, tmp_path / "other", workers(tmp_path, study, told), other, reuse=[tables])
    assert len(other.started) == len(whole.rows)
    assert f"{len(lines) - 3} runs are not reused: another code of drpo" in other.notes
