"""The kept verdicts, computed a second time without the package."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from drpo.lab.plan import make_plan
from drpo.lab.run import kept_results, run_study, write_results, write_verdicts
from drpo.lab.runner import Watcher
from drpo.lab.study import Study
from drpo.lab.workers import LocalWorkers
from support import stand_in, studies
from tools import RESULTS, recompute

KEPT = sorted(file.parent for file in RESULTS.glob("*/verdicts.json"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_every_kept_figure_comes_out_again(folder: Path) -> None:
    assert recompute.recompute(folder) == []


@pytest.mark.parametrize("key", ["value", "p", "low", "sign_flip", "adjusted_p", "answer"])
def test_a_figure_that_was_changed_is_named(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "delta"
    shutil.copytree(RESULTS / "delta", folder)
    kept = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    verdict = kept["verdicts"][0]
    place = verdict["found"] if key in verdict["found"] else verdict
    place[key] = "better" if key == "answer" else place[key] * 0.99 - 1e-3
    (folder / "verdicts.json").write_text(json.dumps(kept), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["recompute", str(folder)])
    with pytest.raises(SystemExit) as ended:
        recompute.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().out.splitlines()[1:]
    title = f"{verdict['hypothesis']['claim']} ({verdict['setting']})"
    assert line.strip().startswith(title) and (key in line or "better there" in line)


ARMS: dict[str, Any] = {
    **studies.VALUES["arms"],
    "grpo": {"objective": "grpo"},
    "ppo": {"objective": "ppo", "seeds": 9},
}
#: What each arm ends higher by; over seeds a run's end has a standard deviation of 0.01.
GAINS = {"drpo": 0.0, "dppo": -0.15, "grpo": 0.002, "ppo": 0.011}
SEEDS = list(range(12))


def claim(ours: str, theirs: str, **more: Any) -> dict[str, Any]:
    return {"claim": f"{ours} against {theirs} {more}", "ours": ours, "theirs": theirs, **more}


def looked(**changes: Any) -> Study:
    """Judged at 6 and 12 seeds; the difference of drpo and dppo shows at the first look, the others go on."""
    claims = [
        claim("drpo", "dppo", margin=0.02),
        claim("drpo", "grpo", margin=0.02),
        claim("ppo", "drpo", one_sided=True),
        claim("drpo", "grpo", margin=0.01, test="equivalence", secondary=True),
        claim("drpo", "grpo", compare="variance", secondary=True),
        claim("drpo", "ppo", metric="drawdown", secondary=True),
        claim("drpo", "dppo", metric="training_reward", margin=0.02, secondary=True),
    ]
    given = {"settings": {"one": {}}, "arms": ARMS, "seeds": SEEDS, "looks": [6, 12], "hypotheses": claims}
    return studies.study(**given | changes)


def run(study: Study, path: Path) -> None:
    """Its runs, of programs that end where GAINS and a random number say, with the files of every study."""
    behaviors = {}
    for one in make_plan(study).evaluated:
        rng = np.random.default_rng([one.seed, *one.arm.encode(), *one.setting.encode()])
        end, dip = 0.5 + GAINS[one.arm] + rng.normal(0, 0.01), rng.uniform(0, 0.1)
        accuracies, rewards = [0.4, end, end - dip, end, end], [0.3, 0.4, 0.5 + GAINS[one.arm], rng.uniform(0.5, 0.6)]
        behaviors[str(one.path)] = {
            "config": one.config.resolved(),
            "accuracies": list(map(float, accuracies)),
            "rewards": list(map(float, rewards)),
        }
    file = path.parent / f"{path.name}.json"
    file.write_text(json.dumps(behaviors))
    program = (sys.executable, stand_in.__file__, str(file))
    run_study(study, path, LocalWorkers(2, 1, program=program), Watcher())


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of one family beside each other: one with looks, and one that compares two settings."""
    folder = tmp_path_factory.mktemp("family")
    first = looked(family={"second": 3, "third": 2})
    claims = [claim("drpo", "dppo"), claim("drpo", "grpo", margin=0.02, secondary=True)]
    second = studies.study(arms=ARMS, seeds=SEEDS, hypotheses=claims, family={"first": 3, "third": 2})
    run(first, folder / "first")
    run(second, folder / "second")
    write_results(first, folder / "first")  # once more, now that the second is there
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "second"])
def test_looks_and_a_family_in_several_directories_come_out_again(family: Path, name: str) -> None:
    assert recompute.recompute(family / name) == []


@pytest.mark.slow
def test_the_simulated_family_has_what_it_is_for(family: Path) -> None:
    """A claim that is decided at the first look, an arm that stops there, and every kind of answer but "worse"."""
    kept = json.loads((family / "first" / "verdicts.json").read_text(encoding="utf-8"))["verdicts"]
    assert {verdict["seeds"] for verdict in kept} == {6, 9, 12}
    assert {"better", "equivalent", "undecided"} <= {verdict["answer"] for verdict in kept}
    rows = (family / "first" / "results.csv").read_text(encoding="utf-8")
    assert "skipped" in rows


@pytest.mark.slow
def test_a_family_s_study_that_is_not_there_counts_as_not_shown(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / "first", tmp_path / "first")
    assert any("adjusted_p" in line for line in recompute.recompute(tmp_path / "first"))  # judged with its family
    shutil.rmtree(tmp_path / "first" / "runs")
    study = looked(family={"second": 3, "third": 2})
    write_verdicts(kept_results(study, tmp_path / "first"), tmp_path / "first")
    assert recompute.recompute(tmp_path / "first") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "key", "factor"),
    [(0, "adjusted_p", 1.01), (1, "adjusted_equivalence", 1.01), (1, "low", 1.01), (1, "seeds", 0.5), (5, "p", 1.01)],
)
def test_a_changed_figure_of_a_study_with_looks_is_named(
    family: Path, tmp_path: Path, place: int, key: str, factor: float
) -> None:
    shutil.copytree(family, tmp_path / "family")
    file = tmp_path / "family" / "first" / "verdicts.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    verdict = kept["verdicts"][place]
    where = verdict["found"] if key in verdict["found"] else verdict
    where[key] *= factor
    file.write_text(json.dumps(kept), encoding="utf-8")
    lines = recompute.recompute(file.parent)
    assert lines and all(key in line for line in lines)


def test_the_level_that_looks_spend() -> None:
    """The bounds of three evenly spaced looks at 0.025, one-sided, as Lan's and DeMets' program prints them; and where
    nothing differs, the looks together reject as often as they may."""
    levels = recompute.nominal([1 / 3, 2 / 3, 1.0], 0.025)
    assert stats.norm.isf(levels) == pytest.approx([3.7103, 2.5114, 1.9930], abs=1e-4)
    assert recompute.over_looks([0.5, 0.5, levels[2]], [1 / 3, 2 / 3, 1.0]) == pytest.approx(0.025)
    shares = np.array([0.25, 0.5, 1.0])
    draws = np.random.default_rng(0).normal(size=(400_000, 3)) * np.sqrt(np.diff(shares, prepend=0.0))
    reached = draws.cumsum(axis=1) / np.sqrt(shares)
    beyond = (reached >= stats.norm.isf(recompute.nominal(shares.tolist(), 0.05))).any(axis=1)
    assert beyond.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400_000))


def test_nothing_of_the_package_is_used() -> None:
    text = Path(recompute.__file__).read_text(encoding="utf-8")
    assert "drpo." not in text and "import drpo" not in text
