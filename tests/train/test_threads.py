"""The number of threads of a run: chosen, recorded, kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from drpo import cpus
from drpo.errors import ConfigError
from drpo.run_directory import RunDirectory
from drpo.train import threads
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.threads import LoadWatch, choose_threads, computing_threads
from support.notes import Notes

pytestmark = pytest.mark.slow

SMALL = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=2",
    "group_size=2",
    "updates_per_step=1",
    "max_new_tokens=4",
    "steps=1",
    "eval_every=0",
    "eval_examples=1",
    "device=cpu",
]


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine of four CPUs where torch would take four threads, and nothing in the environment."""
    for name in threads.GIVEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpus, "allowed_cpus", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "allowed_cpus", lambda: {0, 1, 2, 3})
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def others(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(threads, "others_since_start", lambda: count)


@pytest.mark.parametrize(("busy", "expected"), [(0.0, 4), (0.2, 4), (1.0, 3), (2.1, 2), (9.0, 1)])
def test_auto_takes_what_is_free(monkeypatch: pytest.MonkeyPatch, busy: float, expected: int) -> None:
    others(monkeypatch, busy)
    chosen = choose_threads("auto")
    assert chosen.count == expected
    assert bool(chosen.note) == (expected < 4)


def test_auto_takes_no_more_than_torch_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, 0.0)
    torch.set_num_threads(2)
    assert choose_threads("auto").count == 2


@pytest.mark.parametrize("name", threads.GIVEN)
def test_what_the_user_gave_torch_wins_over_the_load(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    others(monkeypatch, 3.0)
    monkeypatch.setenv(name, "4")
    assert choose_threads("auto").count == 4


def test_a_number_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, 3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose_threads(3).count == 3
    assert "bits" in choose_threads(3, recorded=2).note
    assert not choose_threads(3, recorded=3).note
    assert "threads=4" in choose_threads(9).note


def test_a_resumed_run_takes_as_many_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, 3.0)
    assert choose_threads("auto", recorded=2) == threads.Threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    chosen = choose_threads("auto", recorded=2)
    assert chosen.count == 2 and "OMP_NUM_THREADS" in chosen.note and "threads=4" in chosen.note
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert choose_threads("auto", recorded=8).count == 8  # on a smaller machine: slower, and the same bits
    assert "threads=4" in choose_threads("auto", recorded=8).note


@pytest.mark.parametrize("recorded", [None, 0, -1, 10**9, "2", True, 2.0, []])
def test_a_manifest_without_a_number_is_no_number(monkeypatch: pytest.MonkeyPatch, recorded: object) -> None:
    others(monkeypatch, 1.0)
    assert choose_threads("auto", recorded).count == 3


def test_the_number_of_the_process_is_restored() -> None:
    with pytest.raises(KeyError), computing_threads(2):
        assert torch.get_num_threads() == 2
        raise KeyError
    assert torch.get_num_threads() == 4


def test_the_manifest_keeps_it_through_a_resume(copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, 2.0)
    run, seen = RunDirectory(tmp_path / "run"), Notes()
    train(load_config(None, [f"model={copyist}", *SMALL])[0], run, seen)
    assert run.read_manifest()["threads"] == 2
    assert run.read_config()["threads"] == "auto"
    assert any("2 threads" in note for note in seen.notes)
    others(monkeypatch, 0.0)
    train(load_config(run.config_file, ["steps=2"])[0], run, resume=True)
    assert run.read_manifest()["threads"] == 2
    changed = Notes()
    train(load_config(run.config_file, ["steps=3", "threads=1"])[0], run, changed, resume=True)
    assert run.read_manifest()["threads"] == 1
    assert any("1 thread where the run had 2" in note for note in changed.notes)
    train(load_config(run.config_file, ["steps=4"])[0], run, resume=True)
    assert run.read_manifest()["threads"] == 1


@pytest.mark.parametrize("value", ["0", "-2", "1.5", "true", "all", "4096", "null", "[2]"])
def test_what_is_no_number_of_threads_is_one_error(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^threads: must be auto or a whole number") as error:
        load_config(None, [f"threads={value}"])
    assert "\n" not in str(error.value)


class Clock:
    """The other programs, and the time, as told."""

    def __init__(self) -> None:
        self.now, self.others = 0.0, 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    told = Clock()

    class ToldLook:
        def __init__(self) -> None:
            self.at = told.now

        def age(self) -> float:
            return told.now - self.at

        def others(self) -> float:
            return told.others

    monkeypatch.setattr(threads, "Look", ToldLook)
    return told


def steps(watch: LoadWatch, clock: Clock, count: int, tokens: int) -> list[str]:
    notes = []
    for _ in range(count):
        clock.now += 1.0
        notes.append(watch.after_step(tokens))
    return [note for note in notes if note]


def test_a_machine_that_becomes_busy_is_told_of_once(clock: Clock) -> None:
    watch = LoadWatch(4)
    assert not steps(watch, clock, 20, 1000)
    clock.others = 2.0
    notes = steps(watch, clock, 60, 200)
    assert len(notes) == 1 and "tokens/s" in notes[0]
    assert watch.free == 2


@pytest.mark.parametrize(("others", "tokens", "count"), [(2.0, 900, 4), (0.0, 200, 4), (3.0, 200, 1)])
def test_neither_load_nor_slowness_alone_is(clock: Clock, others: float, tokens: int, count: int) -> None:
    watch = LoadWatch(count)
    assert not steps(watch, clock, 20, 1000)
    clock.others = others
    assert not steps(watch, clock, 60, tokens)


def test_a_short_burst_is_not(clock: Clock) -> None:
    watch = LoadWatch(4)
    steps(watch, clock, 20, 1000)
    clock.others = 3.0
    assert not steps(watch, clock, 5, 200)
    clock.others = 0.0
    assert not steps(watch, clock, 30, 1000)
