import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import ConfigError, DataError, TaskError
from drpo.tasks import Example, Grade, Grader, make_task
from drpo.tasks.grading.grader import TIMEOUTS
from support.hostile_tasks import (
    CannotBeLoaded,
    CannotBePickled,
    CannotBePrepared,
    EndsWhileLoading,
    HostileTask,
    PreparedTask,
    SlowAnswers,
)
from support.process_checks import ends

pytestmark = pytest.mark.slow

LIMIT = 1.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Grader]:
    """One grader for all tests that leave its process as it was, or restarted."""
    with Grader(HostileTask(), time_limit=LIMIT) as grader:
        yield grader


def grade(grader: Grader, *texts: str) -> list[Grade]:
    return grader.grade([Example(prompt="", answer="")] * len(texts), texts)


def test_grades_in_order(shared: Grader) -> None:
    texts = ["w " * (i % 10 + 1) for i in range(300)]
    assert grade(shared, *texts) == [Grade((i % 10 + 1) / 10) for i in range(300)]
    assert grade(shared) == []


def test_every_example_is_graded_against_its_own_answer() -> None:
    task = make_task("copy")
    examples = [task.training_example(0, i) for i in range(20)]
    with Grader(task) as grader:
        assert all(g == Grade(1.0) for g in grader.grade(examples, [e.answer for e in examples]))
        assert all(g == Grade(0.0) for g in grader.grade(examples, ["...."] * 20))


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("raise", "ValueError: this response is odd"),
        ("unprintable", "Unprintable: (its text cannot be shown: RuntimeError)"),
        ("leave", "SystemExit: 3"),
        ("give nan", "the reward must be a number in [0, 1], got nan"),
        ("give infinity", "the reward must be a number in [0, 1], got inf"),
        ("give above", "the reward must be a number in [0, 1], got 1.5"),
        ("give below", "the reward must be a number in [0, 1], got -0.1"),
        ("give none", "the reward must be a number in [0, 1], got NoneType None"),
        ("give text", "the reward must be a number in [0, 1], got str 1.0"),
    ],
)
def test_a_failure_is_no_reward_and_the_rest_is_graded(shared: Grader, text: str, failure: str) -> None:
    restarts = shared.restarts
    assert grade(shared, "one", text, "one two") == [Grade(0.1), Grade(None, failure), Grade(0.2)]
    assert shared.restarts == restarts


@pytest.mark.parametrize("text", ["give true", "give whole"])
def test_whole_numbers_and_truth_values_are_rewards(shared: Grader, text: str) -> None:
    (result,) = grade(shared, text)
    assert result == Grade(1.0) and type(result.reward) is float


@pytest.mark.parametrize("text", ["sleep", "loop_ignoring_signals", "backtrack"])
def test_a_reward_that_hangs_is_killed(shared: Grader, text: str) -> None:
    restarts = shared.restarts
    before = time.monotonic()
    grades = grade(shared, "one", text, "one two")
    assert grades == [Grade(0.1), Grade(None, "no reward within 1 s; process ended"), Grade(0.2)]
    assert shared.restarts == restarts + 1
    assert time.monotonic() - before < 10


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("exit", "the grading process exited with status 7"),
        ("crash", "the grading process was ended by SIGSEGV"),
    ],
)
def test_a_reward_that_ends_its_process(shared: Grader, text: str, failure: str) -> None:
    assert grade(shared, "one", text, text, "one two") == [
        Grade(0.1),
        Grade(None, failure),
        Grade(None, failure),
        Grade(0.2),
    ]


def test_the_limit_is_for_each_response_and_not_for_all(shared: Grader) -> None:
    assert grade(shared, *["pause 0.1"] * 15) == [Grade(1.0)] * 15


def test_workers_share_the_responses_and_one_that_hangs_holds_up_none() -> None:
    texts = ["w " * (i % 10 + 1) for i in range(1000)]
    texts[3] = texts[500] = texts[501] = "sleep"
    texts[700] = "exit"
    with Grader(HostileTask(), time_limit=LIMIT, workers=2) as grader:
        before = time.monotonic()
        grades = grade(grader, *texts)
        assert time.monotonic() - before < 3 * LIMIT + 5
        assert grader.restarts == 4
        # While one process hung and the next was loaded, the other had graded the rest.
        before = time.monotonic()
        assert grade(grader, "sleep", *["one"] * 200) == [
            Grade(None, "no reward within 1 s; process ended"),
            *[Grade(0.1)] * 200,
        ]
        assert LIMIT <= time.monotonic() - before < LIMIT + 0.5
    hung, ended = "no reward within 1 s; process ended", "the grading process exited with status 7"
    failures = {3: hung, 500: hung, 501: hung, 700: ended}
    expected = [Grade(None, failures[i]) if i in failures else Grade((i % 10 + 1) / 10) for i in range(1000)]
    assert grades == expected


def test_a_slow_response_is_wrong_and_one_that_hangs_for_another_reason_is_a_failure() -> None:
    hung = "no reward within 0.5 s; process ended"
    examples = [Example("", answer) for answer in ("", "", "sleep", "")]
    with Grader(SlowAnswers(), time_limit=0.5) as grader:
        grades = grader.grade(examples, ["one", "sleep", "one", "loop_ignoring_signals"])
        assert grades == [Grade(0.1), Grade(0.0, timeout=hung), Grade(None, hung), Grade(None, hung)]
        assert grade(grader, "one") == [Grade(0.1)]
        assert grader.restarts == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_slow_responses_of_one_kind_cost_no_more_than_the_budget(workers: int) -> None:
    texts = ["one", *["sleep"] * 40, "one two", "backtrack", "one"]
    with Grader(SlowAnswers(), time_limit=0.3, workers=workers) as grader:
        grades = grade(grader, *texts)
        tried = [g for g in grades if g.timeout == "no reward within 0.3 s; process ended"]
        assert TIMEOUTS + 1 <= len(tried) <= TIMEOUTS + workers  # another kind is tried even then
        assert all(g.timeout and g.timeout.startswith("not tried") for g in grades[1 + TIMEOUTS + workers - 1 : 41])
        assert [grades[i].reward for i in (0, 41, 43)] == [0.1, 0.2, 0.1]
        assert grader.restarts == len(tried)
        # Every batch has a budget of its own.
        again = grade(grader, *["sleep"] * 10)
        assert TIMEOUTS <= sum(str(g.timeout).startswith("no reward") for g in again) < TIMEOUTS + workers


def test_workers_hang_side_by_side() -> None:
    with Grader(HostileTask(), time_limit=LIMIT, workers=3) as grader:
        before = time.monotonic()
        assert all(grade.failure for grade in grade(grader, *["sleep"] * 3))
        assert time.monotonic() - before < 2 * LIMIT


def test_a_hang_is_ended_in_time_while_another_one_has_longer_to_go() -> None:
    with Grader(HostileTask(), time_limit=2.0, workers=2) as grader:
        before = time.monotonic()
        grades = grade(grader, "sleep", "pause 1.6", "sleep", "pause 1.8")
        seconds = time.monotonic() - before
    assert [g.reward for g in grades] == [None, 1.0, None, 1.0]
    assert seconds < 5  # the first ends at 2, its successor begins there; from 3.6 on it would take 5.4


def test_a_process_is_prepared_before_it_grades() -> None:
    with Grader(PreparedTask(), workers=2) as grader:
        assert grade(grader, *["one"] * 10) == [Grade(1.0)] * 10
    with pytest.raises(TaskError, match="cannot load the task: RuntimeError: no library"), Grader(CannotBePrepared()):
        pass


def test_a_process_that_ends_between_batches_is_replaced(shared: Grader, tmp_path: Path) -> None:
    grade(shared, f"write_pid {tmp_path / 'pid'}")
    pid = int((tmp_path / "pid").read_text())
    restarts, process = shared.restarts, shared._seats[0].process
    os.kill(pid, 9)
    while process.running():  # its end is seen a moment later
        time.sleep(0.01)
    assert grade(shared, "one") == [Grade(0.1)]
    assert shared.restarts == restarts + 1


def test_what_a_task_prints_is_not_taken_for_a_grade(capfd: pytest.CaptureFixture[str]) -> None:
    with Grader(HostileTask()) as grader:
        assert grade(grader, "print", "one", "read") == [Grade(0.5), Grade(0.1), Grade(0.5)]
    written = capfd.readouterr()
    assert written.out == ""
    assert "to standard output" in written.err and "from a program" in written.err


def test_the_process_holds_no_heavy_library(shared: Grader) -> None:
    modules = ("torch", "numpy", "transformers", "pytest")
    assert [g.reward for g in grade(shared, *(f"loaded {module}" for module in modules))] == [0.0] * 4


def test_programs_started_by_a_killed_reward_end_too(shared: Grader, tmp_path: Path) -> None:
    assert grade(shared, f"spawn {tmp_path / 'pid'}")[0].failure == "no reward within 1 s; process ended"
    assert ends(int((tmp_path / "pid").read_text()))


def test_long_responses_and_an_interrupted_batch(shared: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "word " * 400_000
    assert [g.failure for g in grade(shared, *["give true " + long] * 4)] == [
        "TypeError: HostileTask._give() takes 2 positional arguments but 400002 were given"
    ] * 4

    def interrupt(self: Any, line: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("drpo.tasks.grading.process.GradingProcess.reply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            grade(shared, "one", "one")
    # The replies of the interrupted batch are not those of the next.
    assert grade(shared, "one two three") == [Grade(0.3)]


def test_the_process_ends_with_the_context(tmp_path: Path) -> None:
    with Grader(HostileTask()) as grader:
        grade(grader, f"write_pid {tmp_path / 'pid'}")
    assert ends(int((tmp_path / "pid").read_text()))
    grader.close()


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan")])
def test_time_limits(limit: float) -> None:
    with pytest.raises(ConfigError, match=f"positive number of seconds, got {limit}"):
        Grader(HostileTask(), time_limit=limit)


def test_there_is_a_worker() -> None:
    with pytest.raises(ConfigError, match="number of grading processes, 1 or more; got 0"):
        Grader(HostileTask(), workers=0)


def test_one_response_for_each_example(shared: Grader) -> None:
    with pytest.raises(DataError, match="got 2 responses for 1 examples"):
        shared.grade([Example(prompt="", answer="")], ["a", "b"])


def test_an_example_that_cannot_be_sent(shared: Grader) -> None:
    bad = Example(prompt="", answer="", data={"check": lambda: None})
    with pytest.raises(TaskError, match="an example cannot be sent to the grading process"):
        shared.grade([bad], ["a"])


def test_a_task_that_cannot_be_sent() -> None:
    class Local(HostileTask):
        pass

    with pytest.raises(TaskError, match="Its class must be defined at the top level of a module"):
        Grader(Local())
    with pytest.raises(TaskError, match="TypeError: holds an open file"):
        Grader(CannotBePickled())


def test_a_task_of_the_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostileTask, "__module__", "__main__")
    with pytest.raises(TaskError, match="Move it to a module and import it from there"):
        Grader(HostileTask())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (CannotBeLoaded(), "cannot load the task: RuntimeError: the reward model is not there"),
        (EndsWhileLoading(), "ended while loading the task: the grading process exited with status 5"),
    ],
)
def test_a_task_that_cannot_be_loaded(task: HostileTask, message: str) -> None:
    with pytest.raises(TaskError, match=message), Grader(task):
        pass


def test_one_process_grades_a_batch_of_arithmetic() -> None:
    pytest.importorskip("reasoning_gym", reason="pip install -e '.[train]'")
    task = make_task("reasoning_gym:chain_sum")
    examples = [task.training_example(0, i) for i in range(128)]
    texts = [f"<answer>{example.answer}</answer>" for example in examples]
    texts[7] = "<answer>no number</answer>"
    with Grader(task) as grader:
        assert [i for i, grade in enumerate(grader.grade(examples, texts)) if grade != Grade(1.0)] == [7]
        assert grader.grade(examples[8:], texts[8:]) == [Grade(1.0)] * 120
        assert grader.restarts == 0


def test_processes_load_the_task_while_something_else_happens() -> None:
    grader = Grader(HostileTask(), time_limit=LIMIT)
    with grader.loading(), grader:
        assert grade(grader, "w w") == [Grade(0.2)]
        assert grader.restarts == 0  # the process that was loading is the one that graded
    with pytest.raises(TaskError, match="cannot load"), Grader(CannotBePrepared()).loading() as broken, broken:
        pass
