"""What the runner does with its processes; they are stand-ins for `drpo train`, real processes that learn nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from drpo.cli.lab import run_run
from drpo.errors import CheckpointError, ConfigError
from drpo.lab.directory import State, StudyDirectory
from drpo.lab.hold import share_hold
from drpo.lab.plan import Run, make_plan
from drpo.lab.run import Results, run_study
from drpo.lab.runner import Progress, Watcher
from drpo.lab.study import Study
from drpo.lab.workers import LocalWorkers
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from support import command, studies

pytestmark = pytest.mark.slow

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in.py"
SETTINGS = {"one": {}}
FLAT = [0.5, 0.5, 0.5, 0.5, 0.5]


class Recorder(Watcher):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started: list[tuple[str, bool]] = []
        self.ended: dict[str, State] = {}
        self.progress: list[Progress] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_start(self, run: Run, resumed: bool) -> None:
        self.started.append((str(run.path), resumed))

    def on_end(self, run: Run, state: State) -> None:
        self.ended[str(run.path)] = state

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)


def workers(
    folder: Path, study: Study, told: Callable[[Run], dict[str, Any]] = lambda run: {}, jobs: int = 2, **more: Any
) -> LocalWorkers:
    """Workers whose program is the stand-in, behaving as ``told`` says of each run."""
    plan = make_plan(study)
    runs = [*plan.tuning, *plan.shared]
    runs += [
        Run("best", run.setting, run.arm, shared.seed, run.config.model_copy(update={"seed": shared.seed}))
        for run in plan.tuning
        for shared in plan.shared
    ]
    behaviors = {str(run.path): {"config": run.config.resolved(), "accuracies": FLAT, **told(run)} for run in runs}
    file = folder / "behaviors.json"
    file.write_text(json.dumps(behaviors))
    return LocalWorkers(jobs, 1, program=(sys.executable, str(STAND_IN), str(file)), **more)


def files_of(path: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_ino) for file in path.rglob("*") if file.is_file()}


def rows_by(results: Results) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["arm"], row["seed"]): row for row in results.rows if row["phase"] == "shared"}


def test_every_run_ends_as_a_row(tmp_path: Path) -> None:
    study, watcher = studies.study(), Recorder()
    results, stopped = run_study(study, tmp_path / "D", workers(tmp_path, study), watcher)
    assert not stopped and len(results.rows) == 12 and {row["status"] for row in results.rows} == {"finished"}
    assert len(watcher.started) == 12 and not any(resumed for _, resumed in watcher.started)
    assert max(len(progress.active) for progress in watcher.progress) <= 2
    assert watcher.progress[-1] == Progress(12, 12, 0, [], 0.0)
    for name in ("results.csv", "results.md", "verdicts.json", "study.yaml", "journal.jsonl"):
        assert (tmp_path / "D" / name).is_file()
    started = {
        entry["run"]: entry["command"] for entry in StudyDirectory(tmp_path / "D").journal() if "command" in entry
    }
    for run in make_plan(study).shared:
        drpo, train, file, *_ = started[str(run.path)]
        assert (drpo, train, file) == ("drpo", "train", f"{tmp_path}/D/{run.path}.yaml")
        assert load_config(file)[0] == run.config


def test_threads_and_devices_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.study(settings=SETTINGS)
    told = workers(tmp_path, study, lambda run: {"seconds": 0.1}, devices=("3", "5"))
    run_study(study, tmp_path / "D", told, Recorder())
    manifests = [RunDirectory(file.parent).read_manifest() for file in tmp_path.rglob("manifest.json")]
    assert {manifest["cuda"] for manifest in manifests} == {"3", "5"}
    assert {manifest["threads"] for manifest in manifests} == {1}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert (LocalWorkers.here(3).jobs, LocalWorkers.here(3).threads) == (3, 2)
    assert (LocalWorkers.here(20).jobs, LocalWorkers.here(20).threads) == (20, 1)


def test_a_crash_is_a_row_with_its_reason_and_is_not_tried_again_unasked(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS), tmp_path / "D"

    def told(run: Run) -> dict[str, Any]:
        return {"crash_after": 2} if (run.arm, run.seed) == ("drpo", 1) else {}

    results, _ = run_study(study, path, workers(tmp_path, study, told), Recorder())
    row = rows_by(results)["drpo", 1]
    assert row["status"] == "failed" and row["reason"] == "exit code 3: the reason of the crash"
    assert row["curves"]["accuracy"] == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.0), (4, 0.0)]
    assert results.count("finished") == 5
    sentence = results.verdicts[0].sentence
    assert "1 run failed (drpo seed 1)" in sentence
    assert "the reason of the crash" in (path / "results.csv").read_text()

    again = Recorder()
    run_study(study, path, workers(tmp_path, study), again)
    assert again.started == []
    asked = Recorder()
    results, _ = run_study(study, path, workers(tmp_path, study), asked, retry_failed=True)
    assert asked.started == [("runs/one/drpo/seed-1", True)]
    assert results.count("finished") == 6 and rows_by(results)["drpo", 1]["reason"] == ""


def test_a_run_that_cannot_even_start_is_a_row(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS)
    results, _ = run_study(
        study, tmp_path / "D", LocalWorkers(2, 1, program=(sys.executable, "-m", "no_such_module")), Recorder()
    )
    assert results.count("failed") == 6 and all("No module named no_such_module" in r["reason"] for r in results.rows)
    assert results.verdicts[0].answer == "not judged"
    assert "6 of 6 runs have not ended, or failed before" in results.verdicts[0].sentence


def test_a_killed_run_says_by_what(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS, seeds=[0]), tmp_path / "D"

    class Killer(Recorder):
        def on_progress(self, progress: Progress) -> None:
            for run, step in progress.active:
                if step and run.arm == "drpo":
                    os.kill(RunDirectory(path / run.path).read_manifest()["pid"], signal.SIGKILL)

    results, _ = run_study(study, path, workers(tmp_path, study, lambda run: {"seconds": 0.7}), Killer())
    assert rows_by(results)["drpo", 0]["reason"].startswith("killed by SIGKILL")
    assert rows_by(results)["dppo", 0]["status"] == "finished"


def start(folder: Path, study: Study, told: LocalWorkers) -> command.Process:
    """A runner in a process of its own."""
    (folder / "study.json").write_text(json.dumps(study.model_dump(exclude_none=True)))
    code = f"""
import json
from pathlib import Path
from drpo.lab.run import run_study
from drpo.lab.runner import Watcher
from drpo.lab.study import check_study
from drpo.lab.workers import LocalWorkers
study = check_study(json.loads(Path({str(folder / "study.json")!r}).read_text()), "test")
workers = LocalWorkers(2, 1, program={tuple(told.program)!r})
_, stopped = run_study(study, Path({str(folder / "D")!r}), workers, Watcher())
raise SystemExit(7 if stopped else 0)
"""
    return command.Process(["-c", code], group=True)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def finished(path: Path) -> list[Path]:
    return [file.parent for file in path.rglob("manifest.json") if '"finished"' in file.read_text()]


def running(path: Path) -> list[int]:
    manifests = (json.loads(file.read_text()) for file in path.rglob("manifest.json"))
    return [manifest["pid"] for manifest in manifests if manifest["status"] == "running"]


def test_what_a_killed_runner_left_is_waited_for_and_not_started_beside_itself(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS), tmp_path / "D"
    told = workers(tmp_path, study, lambda run: {"seconds": 0.5})
    runner = start(tmp_path, study, told)
    wait_until(lambda: finished(path) and len(running(path)) == 2)
    orphans = running(path)
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    before = files_of(finished(path)[0])
    begun = [entry for entry in StudyDirectory(path).journal() if entry["event"] == "started"]
    watcher = Recorder()
    results, _ = run_study(study, path, told, watcher)
    assert "waiting for runs that an earlier runner left behind" in watcher.notes[0]
    assert all(f"(process {pid})" in watcher.notes[0] for pid in orphans)
    assert results.count("finished") == 6
    assert len(watcher.started) == 6 - len(begun) and not any(resumed for _, resumed in watcher.started)
    assert before == {name: seen for name, seen in files_of(path).items() if name in before}
    for run in make_plan(study).shared:  # every step once
        steps = [record["step"] for record in RunDirectory(path / run.path).read_metrics("update")]
        assert steps == [1, 2, 3, 4]


def test_runs_killed_with_the_runner_are_resumed(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS), tmp_path / "D"
    told = workers(tmp_path, study, lambda run: {"seconds": 0.3})
    runner = start(tmp_path, study, told)
    wait_until(
        lambda: (
            finished(path)
            and any(RunDirectory(file.parent).steps_sampled() == 1 for file in path.rglob("manifest.json"))
        )
    )
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    for pid in running(path):
        os.kill(pid, signal.SIGKILL)
    done = len(finished(path))
    before = {name: seen for run in finished(path) for name, seen in files_of(run).items()}
    watcher = Recorder()
    results, _ = run_study(study, path, told, watcher)
    assert results.count("finished") == 6
    assert len(watcher.started) == 6 - done and any(resumed for _, resumed in watcher.started)
    assert before == {name: seen for name, seen in files_of(path).items() if name in before}


def test_a_signal_stops_every_run_after_its_step_and_the_next_runner_goes_on(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS), tmp_path / "D"
    told = workers(tmp_path, study, lambda run: {"seconds": 0.3})
    runner = start(tmp_path, study, told)
    wait_until(lambda: len(list(path.rglob("step-000001.jsonl"))) >= 2)
    os.kill(runner.pid, signal.SIGINT)
    assert runner.wait(timeout=60) == 7
    statuses = [json.loads(file.read_text())["status"] for file in path.rglob("manifest.json")]
    assert set(statuses) <= {"interrupted", "finished"} and "interrupted" in statuses
    assert StudyDirectory(path).journal()[-1]["event"] == "stopped"
    watcher = Recorder()
    results, _ = run_study(study, path, told, watcher)
    assert results.count("finished") == 6 and any(resumed for _, resumed in watcher.started)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS), tmp_path / "D"
    runner = start(tmp_path, study, workers(tmp_path, study, lambda run: {"seconds": 60}))
    wait_until(lambda: len(running(path)) == 2)
    pids = running(path)
    os.kill(runner.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert runner.poll() is None  # its runs finish their step
    os.kill(runner.pid, signal.SIGTERM)
    assert runner.wait(timeout=30) == 7
    for pid in pids:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10)


def test_two_runners_do_not_share_a_directory(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS, seeds=[0]), tmp_path / "D"
    told = workers(tmp_path, study, lambda run: {"seconds": 0.5})
    errors: list[BaseException] = []

    class Second(Recorder):
        def on_start(self, run: Run, resumed: bool) -> None:
            with pytest.raises(CheckpointError, match="another runner is at work in") as caught:
                run_study(study, path, told, Recorder())
            errors.append(caught.value)

    run_study(study, path, told, Second())
    assert len(errors) == 2


def test_a_run_elsewhere_shares_the_hold_or_is_refused(tmp_path: Path) -> None:
    directory, notes = StudyDirectory(tmp_path), []
    with pytest.raises(CheckpointError, match=r"is not there or cannot be written to \(No such file or directory\)"):
        share_hold(directory.path, "a runner")
    with directory.locked(notes.append) as first:
        shared = share_hold(directory.path, first.runner)
        with pytest.raises(CheckpointError, match="is held by another runner"):
            share_hold(directory.path, "a runner")
    with pytest.raises(CheckpointError, match=r"is held by another runner|is not held by its runner"):
        share_hold(directory.path, "a runner")
    threading.Timer(0.3, os.close, (shared,)).start()
    with directory.locked(notes.append) as second:
        assert notes == ["waiting for runs that an earlier runner left behind"]
        with pytest.raises(CheckpointError, match="is held by another runner"):  # what the first had still to start
            share_hold(directory.path, first.runner)
        os.close(share_hold(directory.path, second.runner))
    with pytest.raises(CheckpointError, match="is not held by its runner"):
        share_hold(directory.path, second.runner)


def test_a_study_is_not_changed_once_it_runs(tmp_path: Path) -> None:
    study, path = studies.study(settings=SETTINGS), tmp_path / "D"
    told = workers(tmp_path, study)
    run_study(study, path, told, Recorder())
    changed = studies.study(settings=SETTINGS, hypotheses=None, metric="area")
    with pytest.raises(ConfigError, match=r"holds another study: hypotheses, metric differ"):
        run_study(changed, path, told, Recorder())
    (path / "runs/one/drpo/seed-0/config.yaml").write_text("steps: 5\n")
    with pytest.raises(ConfigError, match=r"drpo/seed-0 was run with another configuration"):
        run_study(study, path, told, Recorder())


def test_checkpoints_of_finished_runs_go(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, seeds=[0])
    for keep in (False, True):
        path = tmp_path / str(keep)
        run_study(study, path, workers(tmp_path, study), Recorder(), keep_checkpoints=keep)
        assert {run.name for run in path.rglob("checkpoints")} == ({"checkpoints"} if keep else set())


def test_tuning_comes_first_and_chooses_by_its_own_seeds(tmp_path: Path) -> None:
    """δ = 0.3 is best by tuning seeds; by evaluation seeds it would not be. The surrogate does best as it is."""
    arms = {
        "drpo": {"objective": {"name": "drpo", "delta": 0.1}, "tries": {"objective.delta": [0.1, 0.3]}},
        "surrogate": {"objective": "surrogate"},
    }
    claim = {"claim": "It does.", "ours": "drpo", "theirs": "surrogate", "at": "best"}
    study = studies.study(settings=SETTINGS, arms=arms, tuning=studies.TUNING, hypotheses=[claim])

    def told(run: Run) -> dict[str, Any]:
        wide, fast = run.config.make_objective().shift_bound == 0.3, run.config.learning_rate == 1e-4
        if run.phase != "tuning":
            return {"accuracies": [0.2, *[0.3 + 0.01 * run.seed + 0.1 * (run.arm == "surrogate")] * 4]}
        if run.arm == "drpo" and wide and not fast and run.seed == 101:
            return {"crash_after": 0}
        return {"accuracies": [0.2, *[0.5 + 0.2 * wide - 0.1 * fast] * 4]}

    watcher = Recorder()
    results, _ = run_study(study, tmp_path / "D", workers(tmp_path, study, told), watcher)
    choices = json.loads((tmp_path / "D" / "choices.json").read_text())["choices"]
    # Its try at the lower rate crashed on one of the two seeds before it was evaluated: the higher rate is better.
    assert [(choice["arm"], choice["chosen"]) for choice in choices] == [
        ("drpo", "learning_rate=0.0001,delta=0.3"),
        ("surrogate", "learning_rate=5e-05"),
    ]
    assert choices[0]["scores"]["learning_rate=5e-05,delta=0.3"] == [pytest.approx(0.7), None]
    phases = [path.split("/")[0] for path, _ in watcher.started]
    assert phases == ["tuning"] * 12 + ["runs"] * 6 + ["best"] * 3  # the surrogate's best are its shared runs
    best = [row for row in results.rows if row["phase"] == "best"]
    assert [row["final_accuracy"] for row in best if row["arm"] == "surrogate"] == pytest.approx([0.4, 0.41, 0.42])
    assert all("learning_rate=0.0001 " in row["command"] for row in best if row["arm"] == "drpo")
    (verdict,) = results.verdicts
    assert verdict.answer == "not judged" and "every seed has the same difference, -0.1," in verdict.sentence


def test_stopped_tuning_chooses_nothing(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS, tuning=studies.TUNING)

    class Stopper(Recorder):
        def on_start(self, run: Run, resumed: bool) -> None:
            super().on_start(run, resumed)
            if len(self.started) == 3:
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    watcher = Stopper()
    results, stopped = run_study(study, tmp_path / "D", workers(tmp_path, study, lambda run: {"seconds": 0.5}), watcher)
    assert stopped and not (tmp_path / "D" / "choices.json").exists()
    assert all(path.startswith("tuning") for path, _ in watcher.started)
    assert results.count("missing") > 0


def test_runs_of_another_study_are_taken_over(tmp_path: Path) -> None:
    """Finished ones of the same configuration, nothing else: the seed that crashed there and the new arm are run."""
    study = studies.study(settings=SETTINGS)
    crash = workers(tmp_path, study, lambda run: {"crash_after": 2} if (run.arm, run.seed) == ("drpo", 2) else {})
    run_study(study, tmp_path / "first", crash, Recorder())
    arms = {**studies.VALUES["arms"], "wide": {"objective": {"name": "drpo", "delta": 0.3}}}
    more, watcher = studies.study(settings=SETTINGS, arms=arms), Recorder()
    results, _ = run_study(more, tmp_path / "D", workers(tmp_path, more), watcher, reuse=[tmp_path / "first"])
    assert {row["status"] for row in results.rows} == {"finished"} and len(results.rows) == 9
    expected = {"runs/one/drpo/seed-2", *(f"runs/one/wide/seed-{seed}" for seed in range(3))}
    assert {path for path, _ in watcher.started} == expected
    assert len([note for note in watcher.notes if note.startswith("reused")]) == 5
    before, after = (files_of(path / "runs/one/dppo/seed-1") for path in (tmp_path / "first", tmp_path / "D"))
    assert {Path(name).name for name in before} == {Path(name).name for name in after}
    entries = [entry for entry in StudyDirectory(tmp_path / "D").journal() if entry["event"] == "reused"]
    assert {entry["source"] for entry in entries} == {
        str(tmp_path / "first" / "runs/one" / arm / f"seed-{seed}")
        for arm, seed in (("drpo", 0), ("drpo", 1), ("dppo", 0), ("dppo", 1), ("dppo", 2))
    }
    again = Recorder()
    run_study(more, tmp_path / "D", workers(tmp_path, more), again, reuse=[tmp_path / "first"])
    assert not again.started and not again.notes


def test_a_source_without_runs_is_an_error(tmp_path: Path) -> None:
    study = studies.study(settings=SETTINGS)
    with pytest.raises(CheckpointError, match="holds no runs to reuse"):
        run_study(study, tmp_path / "D", workers(tmp_path, study), Recorder(), reuse=[tmp_path / "nowhere"])


def test_one_setting_now_and_the_other_later(tmp_path: Path) -> None:
    """Each with its tuning, and with nothing done twice."""
    study = studies.study(tuning=studies.TUNING)
    first, second = Recorder(), Recorder()
    rising = [0.4, 0.5, 0.5, 0.5]
    at_work = workers(
        tmp_path, study, lambda run: {"accuracies": [*rising, 0.6 + 0.1 * (run.seed % 3) * (run.arm == "drpo")]}
    )
    results, stopped = run_study(study, tmp_path / "D", at_work, first, settings=["two"])
    assert not stopped and all("/two/" in path for path, _ in first.started)
    by_setting = {name: {row["status"] for row in results.rows if row["setting"] == name} for name in ("one", "two")}
    assert by_setting == {"one": {"missing"}, "two": {"finished"}}
    assert [verdict.answer != "not judged" for verdict in results.verdicts if verdict.setting in ("one", "two")] == [
        False,
        True,
    ]
    results, _ = run_study(study, tmp_path / "D", at_work, second)
    assert all("/one/" in path for path, _ in second.started)
    assert {row["status"] for row in results.rows} == {"finished"}
    with pytest.raises(ConfigError, match="no setting 'tow'"):
        run_study(study, tmp_path / "D", at_work, Recorder(), settings=["tow"])


def test_the_command_counts_and_tells_of_the_settings_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One setting that ended well is an end without complaint, though runs of the other are missing."""
    settings = {"one": {}, "two": {"learning_rate": 2e-4}, "three": {"learning_rate": 3e-4}}
    study, file = studies.study(settings=settings), studies.write(tmp_path / "some.yaml", settings=settings)

    def run(told: Callable[[Run], dict[str, Any]], *settings: str, retry: bool = False) -> str:
        at_work = workers(tmp_path, study, told)
        monkeypatch.setattr("drpo.cli.lab._workers", lambda where, jobs: nullcontext(at_work))
        run_run(str(file), tmp_path / "D", None, None, "local", retry, False, (), settings)
        return capsys.readouterr().out

    printed = run(lambda run: {}, "two")
    assert "runs    6 finished\n" in printed and "In two, " in printed and "lost" not in printed
    assert "In one, " not in printed and "Over all settings" not in printed
    page = (tmp_path / "D" / "report.html").read_text()
    assert "<h2>two<" in page and "Not run yet" in page and ": one, three.</p>" in page
    with pytest.raises(SystemExit) as ended:
        run(lambda run: {"crash_after": 2} if run.arm == "drpo" else {}, "one")
    assert ended.value.code == 2 and "3 finished, 3 failed" in capsys.readouterr().out
    assert "18 finished" in run(lambda run: {}, retry=True)
    # "one" leaves the learning rate to its default, and is placed by it.
    assert "Final accuracy against learning rate" in (tmp_path / "D" / "report.html").read_text()
