"""A study survives torn and damaged files and a full disk, and says nothing where there is nothing to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_runner import SETTINGS, Recorder, workers

from drpo.cli.lab import run_plan
from drpo.errors import CheckpointError, DataError, DrpoError, WriteError
from drpo.lab.directory import StudyDirectory
from drpo.lab.doubts import doubts
from drpo.lab.judge import judge
from drpo.lab.metrics import accuracy_metrics
from drpo.lab.plan import make_plan
from drpo.lab.run import read_results, run_study
from drpo.lab.workers import LocalWorkers
from drpo.run_directory import RunDirectory
from support import studies

pytestmark = pytest.mark.slow

#: `drpo` whose files cannot grow beyond 20 kB, as on a disk that is full before the first checkpoint.
ON_A_FULL_DISK = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    "sys.argv[0] = 'drpo'\nfrom drpo.cli import main; main()"
)


@pytest.mark.parametrize("torn", [b"{", b'{"event": "started", "run": "runs/one/drpo/see', b'{"event": "\xce'])
def test_a_torn_journal_is_cut_and_said_and_the_study_goes_on(tmp_path: Path, torn: bytes) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0, 1])
    program = workers(tmp_path, study)
    run_study(study, tmp_path / "D", program, Recorder())
    directory = StudyDirectory(tmp_path / "D")
    whole = directory.journal()
    with directory.journal_file.open("ab") as stream:
        stream.write(torn)
    assert directory.journal() == whole
    for _ in range(2):
        watcher = Recorder()
        more = studies.study(settings=SETTINGS, seeds=[0, 1])
        results, stopped = run_study(more, tmp_path / "D", workers(tmp_path, more), watcher)
        assert not stopped and results.count("finished") == 4
    assert directory.journal_file.read_bytes().endswith(b"\n") and directory.journal()[: len(whole)] == whole


def test_the_cut_is_said_once_and_what_is_appended_then_is_read(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    crash = workers(tmp_path, study, lambda run: {"crash_after": 1} if run.arm == "drpo" else {})
    run_study(study, tmp_path / "D", crash, Recorder())
    with StudyDirectory(tmp_path / "D").journal_file.open("ab") as stream:
        stream.write(b'{"event": "ended", "ru')
    notes = []
    for _ in range(2):
        watcher = Recorder()
        run_study(study, tmp_path / "D", workers(tmp_path, study), watcher, retry_failed=True)
        notes.append([note for note in watcher.notes if "journal.jsonl: the last line" in note])
    assert len(notes[0]) == 1 and notes[1] == []


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"event": "ended"}', '{"event": "ended", "run": 3}', "not JSON", "9" * 5000]
)
def test_a_damaged_line_of_the_journal_is_named(tmp_path: Path, line: str) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())
    file = StudyDirectory(tmp_path / "D").journal_file
    file.write_text(line + "\n" + file.read_text())
    with pytest.raises(DataError, match=r"journal\.jsonl, line 1"):
        run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("study.yaml", ""),
        ("study.yaml", "[" * 2_000),
        ("study.yaml", "title: 3\n"),
        ("runs/one/drpo/seed-0/config.yaml", "- 1\n"),
        ("runs/one/drpo/seed-0/manifest.json", "{"),
        ("runs/one/drpo/seed-0/metrics.jsonl", '{"kind": "update", "step": 1}\n'),
        ("runs/one/drpo/seed-0/metrics.jsonl", '{"kind": "evaluation", "step": 1, "accuracy": "high"}\n'),
        ("runs/one/drpo/seed-0/metrics.jsonl", '{"kind": "evaluation", "step": -1}\n'),
    ],
)
def test_a_damaged_file_of_a_study_is_named(tmp_path: Path, name: str, text: str) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())
    (tmp_path / "D" / name).write_text(text)
    with pytest.raises(DrpoError, match=Path(name).name.replace(".", r"\.")):
        run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())


def test_damaged_choices_are_named(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0], tuning=studies.TUNING)
    directory = StudyDirectory(tmp_path)
    for text in ("{}", '[{"setting": "one"}]', "["):
        directory.choices_file.write_text(text)
        with pytest.raises(DataError, match=r"choices\.json"):
            read_results(study, tmp_path)


def test_a_key_that_studies_or_runs_gain_stops_no_study(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())
    file = tmp_path / "D" / "study.yaml"
    values = yaml.safe_load(file.read_text())
    del values["metric"]
    file.write_text(yaml.safe_dump(values))
    config = tmp_path / "D" / "runs/one/drpo/seed-0/config.yaml"
    values = yaml.safe_load(config.read_text())
    del values["mismatch_limit"]
    config.write_text(yaml.safe_dump(values))
    watcher = Recorder()
    results, _ = run_study(study, tmp_path / "D", workers(tmp_path, study), watcher)
    assert results.count("finished") == 2 and watcher.started == []


def test_a_full_disk_stops_the_study_and_the_same_command_goes_on(copyist: Path, tmp_path: Path) -> None:
    keys = {
        "model": str(copyist),
        "task": {"name": "copy", "length": 2},
        "group_size": 4,
        "max_new_tokens": 4,
        "device": "cpu",
    }
    study = studies.study(settings={"one": keys}, seeds=[0, 1])
    watcher = Recorder()
    full = LocalWorkers(1, 1, program=(sys.executable, "-c", ON_A_FULL_DISK))
    with pytest.raises(WriteError, match=r"cannot write.*(?s:.)*the same command"):
        run_study(study, tmp_path / "D", full, watcher)
    assert [path for path, _ in watcher.started] == ["runs/one/drpo/seed-0"]
    assert watcher.ended["runs/one/drpo/seed-0"].status == "interrupted"
    assert RunDirectory(tmp_path / "D/runs/one/drpo/seed-0").read_manifest()["status"] == "interrupted"
    watcher = Recorder()
    results, stopped = run_study(study, tmp_path / "D", LocalWorkers(1, 1), watcher)
    assert not stopped and results.count("finished") == 4
    assert watcher.started[0] == ("runs/one/drpo/seed-0", True)


def test_a_journal_that_cannot_be_written_stops_the_study(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    directory = StudyDirectory(tmp_path / "D")
    directory.create(study)
    directory.journal_file.mkdir()
    with pytest.raises(CheckpointError, match="cannot write to"):
        run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())


# ---- what is not judged


def rows(study: Any, drpo: list[float], dppo: list[float], problems: int | None) -> list[dict[str, Any]]:
    return [
        {
            "phase": "shared",
            "setting": "one",
            "arm": arm,
            "seed": seed,
            "status": "finished",
            "final_accuracy": value,
            "entropy": value,
            "heldout_problems": problems,
        }
        for arm, values in (("drpo", drpo), ("dppo", dppo))
        for seed, value in zip(study.seeds, values, strict=True)
    ]


def test_identical_arms_are_not_judged() -> None:
    study = studies.study(settings=SETTINGS)
    (verdict,) = judge(study, rows(study, [0.5, 0.6, 0.4], [0.5, 0.6, 0.4], 256))
    assert verdict.answer == "not judged" and "same value for every seed" in verdict.sentence
    assert "detectable" not in verdict.sentence and verdict.found is None
    (verdict,) = judge(study, rows(study, [0.5, 0.6, 0.4], [0.5, 0.6, 0.41], 256))
    assert verdict.found is not None


@pytest.mark.parametrize(("problems", "judged"), [(1, False), (2, False), (3, True), (None, True)])
def test_a_tiny_held_out_set_is_not_judged(problems: int | None, judged: bool) -> None:
    study = studies.study(settings=SETTINGS)
    (verdict,) = judge(study, rows(study, [0.5, 1.0, 0.0], [0.0, 0.5, 0.5], problems))
    assert (verdict.answer != "not judged") == judged
    assert judged or f"{problems} held-out problem" in verdict.sentence
    other = study.model_copy(update={"metric": "entropy"})
    assert judge(other, rows(study, [0.5, 1.0, 0.0], [0.0, 0.5, 0.5], problems))[0].answer != "not judged"


def test_the_number_of_held_out_problems_comes_from_the_run(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder())
    file = tmp_path / "D/runs/one/drpo/seed-0/metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(
        "".join(json.dumps(line | ({"examples": 2} if line["kind"] == "evaluation" else {})) + "\n" for line in lines)
    )
    found = {row["arm"]: row["heldout_problems"] for row in read_results(study, tmp_path / "D").rows}
    assert found == {"drpo": 2, "dppo": None}


def test_a_plan_doubts_identical_arms_and_few_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(f'{{"prompt": "{n}", "answer": "{n}"}}\n' for n in range(20)))
    arms = {**studies.VALUES["arms"], "again": {"objective": {"name": "drpo", "delta": 0.15}}}
    budget = {**studies.BUDGET, "eval_examples": 256}
    settings = {"one": {"task": {"name": "jsonl", "path": str(data)}}, "two": {}}
    study = studies.study(settings=settings, arms=arms, budget=budget)
    said = doubts(make_plan(study))
    assert "no verdict from 3 seeds, as a sign-flip test cannot go below 0.25; six seeds or more can" in said[0]
    assert len(said) == 4 and sum("drpo and again have the same settings" in one for one in said) == 2
    assert any("in one, accuracy is measured on " in one and "held-out problem" in one for one in said)
    file = studies.write(tmp_path / "study.yaml", settings=settings, arms=arms, budget=budget)
    run_plan(str(file), None, 1, False)
    assert "have the same settings" in capsys.readouterr().out
    assert doubts(make_plan(studies.study(budget=budget, seeds=list(range(6))))) == []


@pytest.mark.parametrize(
    ("values", "collapsed"),
    [
        ([0, 0, 0, 0.5], False),
        ([0, 0, 0.1, 0.9], False),
        ([0, 0, 0, 0], False),
        ([0.5, 0, 0, 0.5], False),  # it fell, and stands at its best again
        ([0.6, 0.9, 0.1, 0.1, 0.1], True),
        ([0.8, 0.3, 0.3, 0.3], True),
        ([0.8, 0.5, 0.5, 0.5], False),
        ([0.5, 0, 0, 0], True),
    ],
)
def test_collapse_needs_a_fall(values: list[float], collapsed: bool) -> None:
    assert accuracy_metrics(list(enumerate(values)))["collapsed"] is collapsed
