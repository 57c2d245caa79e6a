"""Every tracker's own package: a run that loses its newest checkpoint, is resumed, and is read back.

Steps 3 and 4 are trained and logged twice. Nothing here needs a network.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from drpo.run_directory import RunDirectory
from drpo.trackers import TrackedRun, flat_scalars, updates_done
from drpo.trackers.base import RESPONSES
from drpo.trackers.tensorboard import TensorBoard

pytest.importorskip("tensorboard")
pytest.importorskip("trackio")
pytest.importorskip("wandb")

pytestmark = pytest.mark.slow

SETTINGS = [
    "trackers=[tensorboard,trackio,wandb]",
    "project=tested",
    "task=copy",
    "task.length=2",
    "prompts_per_step=8",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=4",
    "eval_every=2",
    "checkpoint_every=2",
    "eval_examples=2",
    "eval_samples=2",
    "device=cpu",
]
UPDATES = 2  # per step, as set above


class Tracked(NamedTuple):
    run: RunDirectory
    trackio: Path
    said: str


@pytest.fixture(scope="module")
def tracked(copyist: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    home = tmp_path_factory.mktemp("tracked")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKIO_"))},
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(home / "trackio"),
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }

    def drpo(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "drpo", "train", *arguments],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = drpo(f"model={copyist}", *SETTINGS, "--out", "run")
    shutil.rmtree(home / "run" / "checkpoints" / "step-000004")
    said += drpo("--resume", "run")
    return Tracked(RunDirectory(home / "run"), home / "trackio", said)


def expected(run: RunDirectory) -> list[tuple[int, dict[str, float]]]:
    """What metrics.jsonl holds: each record's step and figures, those of a clock left out."""
    rows = [(updates_done(record, UPDATES), timeless(flat_scalars(record))) for record in run.read_metrics()]
    assert [step for step, _ in rows] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    return rows


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "timing/" not in name and not name.startswith(RESPONSES)}


def test_tensorboard_shows_each_figure_once(tracked: Tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    events = EventAccumulator(str(tracked.run.path / "tensorboard")).Reload()
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    wanted: dict[str, list[tuple[int, float]]] = {}
    for record in tracked.run.read_metrics():
        for name, value in flat_scalars(record).items():
            wanted.setdefault(name, []).append((updates_done(record, UPDATES), value))
    assert set(found) == set(wanted)
    for name in wanted:
        assert [step for step, _ in found[name]] == [step for step, _ in wanted[name]], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in wanted[name]], rel=1e-6)
    (config,) = events.Tensors("config/text_summary")
    assert b"    group_size: 4\n" in config.tensor_proto.string_val[0]


def test_tensorboard_has_a_figure_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    """A run that is killed after its checkpoint will not log what came before it again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    tracker = TensorBoard()
    tracker.start(TrackedRun(tmp_path, "id", "drpo", {"seed": 0}))
    tracker.log(3, {"train/loss": 0.5})
    (event,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert (event.step, event.value) == (3, 0.5)
    tracker.finish("finished")


def test_trackio_shows_each_row_once(tracked: Tracked) -> None:
    with sqlite3.connect(tracked.trackio / "tested.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
        configs = database.execute("select run_name, config from configs").fetchall()
    (name,) = {name for name, _, _ in rows}
    assert name == f"run-{tracked.run.read_manifest()['run_id']}"
    assert [(step, timeless(json.loads(figures))) for _, step, figures in rows] == expected(tracked.run)
    (config,) = [json.loads(config) for run, config in configs if run == name]
    assert config["group_size"] == 4


def test_wandb_goes_on_with_the_run(tracked: Tracked) -> None:
    """Offline, a resumed run is another file of the same run; online, wandb ignores the steps that it has."""
    from support.wandb_file import wandb_history, wandb_records  # pyright: ignore[reportMissingImports]

    files = sorted((tracked.run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    run_id = tracked.run.read_manifest()["run_id"]
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    merged: dict[int, dict[str, float]] = {}
    for step, figures in expected(tracked.run):
        merged.setdefault(step, {}).update(figures)
    first, second = ([(step, timeless(row)) for step, row in wandb_history(file)] for file in files)
    assert [row for row in first if row[1]] == list(merged.items())
    assert [row for row in second if timeless(row[1]).keys() - {"status"}] == [
        (step, figures) for step, figures in merged.items() if step > 4
    ]
    for file in files:
        records = {record.WhichOneof("record_type"): record for record in wandb_records(file)}
        assert (records["run"].run.project, records["run"].run.run_id) == ("tested", run_id)
        assert records["exit"].exit.exit_code == 0


def test_each_tracker_has_the_responses_and_the_report(tracked: Tracked) -> None:
    """Of both processes: the run, and the one that resumed it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    from support.wandb_file import wandb_records  # pyright: ignore[reportMissingImports]

    prompt = tracked.run.read_rollouts("evaluation")[0][0]["prompt"].splitlines()[0]
    events = EventAccumulator(str(tracked.run.path / "tensorboard")).Reload()
    texts = events.Tensors(f"{RESPONSES}/text_summary")
    assert sorted({event.step for event in texts}) == [0, 4, 8]  # it purges figures, and no texts
    assert all(prompt.encode() in text.tensor_proto.string_val[0] for text in texts[:1])
    assert events.Tensors("report/text_summary")

    with sqlite3.connect(tracked.trackio / "tested.db") as database:
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
    tables = [(step, json.loads(row)[RESPONSES]) for step, row in rows if RESPONSES in json.loads(row)]
    assert [step for step, _ in tables] == [0, 4, 8]
    assert any(tracked.trackio.rglob("report.html")) or any(
        b"<!DOCTYPE html>" in file.read_bytes()[:200] for file in tracked.trackio.rglob("*") if file.is_file()
    )

    for folder in sorted((tracked.run.path / "wandb").glob("offline-run-*")):
        assert list((folder / "files" / "media" / "table" / "evaluation").glob("responses_*.table.json"))
        (file,) = folder.glob("run-*.wandb")
        kinds = [
            record.artifact.type for record in wandb_records(file) if record.WhichOneof("record_type") == "artifact"
        ]
        assert "report" in kinds


def test_tensorboard_shows_an_alert_as_text(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    tracker = TensorBoard()
    tracker.start(TrackedRun(tmp_path, "id", "drpo", {}))
    tracker.alert(3, "The policy moves too far", "# no heading <script>")
    (event,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tensors("alerts/text_summary")
    assert event.step == 3 and b"    # no heading <script>\n" in event.tensor_proto.string_val[0]
    tracker.finish("finished")


ALERTING = """
import sys
from pathlib import Path
from drpo.trackers import TrackedRun, TRACKERS
name = sys.argv[1]
tracker = TRACKERS[name]()
tracker.start(TrackedRun(Path("run"), "abc", "alerted", {"seed": 0}))
tracker.log(3, {"train/loss": 0.5})
tracker.alert(3, "The policy moves too far", "Lower learning_rate.")
tracker.finish("finished")
"""


def alerting(name: str, home: Path) -> None:
    """In a process of its own: both packages keep state."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "TRACKIO_"))}
    environment |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(home / "trackio"), "HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ALERTING, name]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_trackio_keeps_an_alert(tmp_path: Path) -> None:
    alerting("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "alerted.db") as database:
        rows = database.execute("select step, title, text from alerts").fetchall()
    assert rows == [(3, "The policy moves too far", "Lower learning_rate.")]


def test_wandb_keeps_an_alert(tmp_path: Path) -> None:
    from support.wandb_file import wandb_records  # pyright: ignore[reportMissingImports]

    alerting("wandb", tmp_path)
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    alerts = [record.alert for record in wandb_records(file) if record.WhichOneof("record_type") == "alert"]
    assert [(alert.title, alert.text) for alert in alerts] == [
        ("The policy moves too far", "After 3 updates: Lower learning_rate.")
    ]


def test_the_user_is_told_where_to_look(tracked: Tracked) -> None:
    assert tracked.said.count("note: tensorboard: tensorboard --logdir run/tensorboard") == 2
    assert tracked.said.count("note: trackio: trackio show --project tested") == 2
    assert tracked.said.count("note: wandb: wandb sync run/wandb/offline-run-*") == 2


def test_wandb_without_a_key_is_told_and_leaves_nothing_behind(copyist: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-m", "drpo", "train", f"model={copyist}", *SETTINGS, "trackers=wandb", "--out", "run"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 2 and "wandb has no API key" in done.stderr, done.stderr
    assert "WANDB_MODE=offline" in done.stderr and not (tmp_path / "run").exists()
