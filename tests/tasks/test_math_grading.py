"""Right, wrong and unknown: what math-verify says of answers, hostile ones included, in the real grading processes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest

from drpo.errors import DataError
from drpo.tasks import Example, Grade, Grader
from drpo.tasks.grading.exhaustion import watch_exhaustion
from drpo.tasks.grading.grader import TIMEOUTS
from drpo.tasks.grading.math.answers import decide, form
from drpo.tasks.grading.math.extraction import boxed_answer
from drpo.tasks.grading.math.grade import ANSWER_LIMIT, answer_kind, grade
from drpo.tasks.kinds.math import MathTask

pytest.importorskip("math_verify", reason="pip install -e '.[math]'")

pytestmark = pytest.mark.slow

LIMIT = 3.0
HUNG = f"no reward within {LIMIT:g} s; process ended"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} and then \boxed{ 2 }", "2"),
        (r"\boxed{\frac{1}{2}} }", r"\frac{1}{2}"),
        (r"\boxed {\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \\} b}", r"a \\"),
        (r"\boxed{}", ""),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed 5", None),
        (r"\boxed", None),
        ("42", None),
        ("", None),
    ],
)
def test_boxed_answer(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "right", "same"),
    [
        ("18", "18", True),
        ("18.0", "18", True),
        (r"\$18", "18", True),
        ("1,000", "1000", True),
        (r"18 \text{ dollars}", "18", True),
        (r"\frac{1}{2}", "0.5", True),
        (r"\dfrac12", r"\frac{1}{2}", True),
        ("x^2+2x+1", "(x+1)^2", True),
        (r"\frac{3}{2\sqrt{2}}", r"\frac{3\sqrt{2}}{4}", True),
        ("x = 5", "5", True),
        (r"\{2, 1\}", r"\{1, 2\}", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", True),
        (r"\text{Evelyn}", "Evelyn", True),
        ("17", "18", False),
        ("81", "18", False),
        ("-18", "18", False),
        (r"\text{eighteen}", "18", False),
        ("18 or 19", "18", False),
        ("(1, 2)", "(2, 1)", False),
        ("x^2", "x^3", False),
        (r"\frac{1}{0}", "18", False),
    ],
)
def test_answers(answer: str, right: str, same: bool) -> None:
    assert grade(rf"Thus \boxed{{{answer}}}.", right, require_box=True) is same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "18",
        "The answer is 18.",
        r"\boxed{18",
        r"\boxed{}",
        r"\boxed{\foo{{}}}",
        r"\boxed{]]$$\\}",
        r"\boxed{I do not know}",
        r"\boxed{\nope(}",
        "\\boxed{\u2603}",
    ],
)
def test_a_response_without_a_readable_answer_is_wrong_and_no_failure(text: str) -> None:
    assert grade(text, "18", require_box=True) is False


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The answer is 18.", True),
        ("so we get $x = 18$", True),
        (r"18, no: \boxed{17}", False),
        ("nothing", False),
        ("The answer is 17.", False),
    ],
)
def test_without_the_need_for_a_box(text: str, same: bool) -> None:
    assert grade(text, "18", require_box=False) is same


def test_a_right_answer_that_cannot_be_read_is_a_failure() -> None:
    with pytest.raises(DataError, match="math-verify cannot read the right answer ''"):
        grade(r"\boxed{18}", "", require_box=True)


def test_swallowed_errors_are_seen() -> None:
    def endless(depth: int = 0) -> int:
        return endless(depth + 1) + 1

    seen = []
    for action in (endless, lambda: bytearray(1 << 62), lambda: int("x")):
        with watch_exhaustion() as exhausted, contextlib.suppress(Exception):
            action()
        seen.append(exhausted)
    assert seen == [{"RecursionError"}, {"MemoryError"}, set()]
    with pytest.raises(ZeroDivisionError), watch_exhaustion():
        _ = 1 / 0


# ---- in the grading processes


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> MathTask:
    file = tmp_path_factory.mktemp("math") / "problems.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "answer": str(i)}) + "\n" for i in range(10)))
    return MathTask(path=file)


@pytest.fixture(scope="module")
def shared(task: MathTask) -> Iterator[Grader]:
    with Grader(task, time_limit=LIMIT) as grader:
        yield grader


def graded(grader: Grader, *answers: str) -> list[Grade]:
    return grader.grade([Example(prompt="", answer="3")] * len(answers), [f"\\boxed{{{answer}}}" for answer in answers])


# How deep a parse gets within the limit depends on the machine and the Python.
DEEP = (HUNG, "RecursionError: math-verify ran out of stack on the answer '")
HOSTILE = {
    "a sum": (r"\sum_{n=1}^{100000000} n^n", HUNG),
    "a tower that may cancel": (r"9^{9^{9^9}} - 9^{9^{9^9}} + 3", HUNG),
    "deep brackets": ("(" * 60 + "x" + ")" * 60, DEEP),
    "deep roots": (r"\sqrt{" * 200 + "2" + "}" * 200, DEEP),
    "deep signs": ("-" * 300 + "x", DEEP),
    "a megabyte of braces": ("{" * 500_000 + "}" * 500_000, "DataError: the answer has 1,000,000 characters"),
    "many digits": ("9" * 5000, "DataError: the answer has 5,000 characters; at most 2,000 are graded"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_no_more_than_its_limit(shared: Grader, name: str) -> None:
    hostile, failure = HOSTILE[name]
    graded(shared, "3")  # a process that was started again has loaded by now
    before = time.monotonic()
    (result,) = graded(shared, hostile)
    seconds = time.monotonic() - before
    if result.timeout is None:
        assert result.reward is None and result.failure is not None and result.failure.startswith(failure)
    else:
        assert result.reward == 0.0 and result.timeout == HUNG and HUNG in failure
    assert seconds < LIMIT + 0.5
    assert graded(shared, "3", "4") == [Grade(1.0), Grade(0.0)]


#: Read without being computed: no longer than any other answer.
HUGE = [
    r"9^{9^{9^9}}",
    r"-9^{9^{9^9}}",
    r"10^{10^{100}}",
    "100000000!",
    "(9!)^{9!!!}",
    "1e999999",
    r"2 \cdot 9^{9^{9^9}} + 1",
    r"9^{-9^{9^9}}",
    r"\frac{1}{100000000!}",
    "9" * 1999,
    "(" * 60 + "2" + ")" * 60,
    "-" * 300 + "2",
    r"9^{9^{9^9}} \text{ dollars}",
    r"9^{9^{9^9}}\%",
    r"(3, 9^{9^{9^9}})",
]


@pytest.mark.parametrize("answer", HUGE)
@pytest.mark.parametrize("right", ["3", "0", r"\frac{1}{3}", "3 dollars", "(3, 4)", r"\sqrt{2}"])
def test_numbers_too_large_to_be_computed_are_wrong_at_once(answer: str, right: str) -> None:
    verdict = decide(form(right), form(answer))
    assert verdict is False or (verdict is None and r"\sqrt" in right and "(" in answer)


def test_braces_that_are_never_closed_are_no_answer(shared: Grader) -> None:
    before = time.monotonic()
    assert graded(shared, "{" * 1_000_000, "3") == [Grade(0.0), Grade(1.0)]
    assert time.monotonic() - before < LIMIT


def test_an_answer_that_takes_all_memory_is_a_failure_and_its_process_is_replaced(task: MathTask) -> None:
    small = MathTask(path=task.paths, memory_gib=0.5)
    with Grader(small, time_limit=60) as grader:
        results = graded(grader, "3", r"\lceil 2^{2^{34}} \rceil", "3", "4")
        assert grader.restarts == 1
    assert [result.reward for result in results] == [1.0, None, 1.0, 0.0]
    assert (results[1].failure or "").startswith("MemoryError: math-verify ran out of memory on the answer '")


def test_a_thousand_gradings_with_two_workers(task: MathTask) -> None:
    hostile = {100: r"\sum_{n=1}^{100000000} n^n", 101: "(" * 60 + "x" + ")" * 60, 500: "{" * 500_000 + "}" * 500_000}
    answers = [hostile.get(i, rf"\frac{{{i}}}{{100}}") for i in range(1000)]
    with Grader(task, time_limit=LIMIT, workers=2) as grader:
        before = time.monotonic()
        results = graded(grader, *answers)
        seconds = time.monotonic() - before
        assert grader.restarts == 2
    assert [i for i, result in enumerate(results) if result.failure or result.timeout] == [100, 101, 500]
    assert results[100].reward == 0.0 and results[500].reward is None
    assert [i for i, result in enumerate(results) if result.reward == 1.0] == [300]
    assert seconds < 2 * LIMIT + 40


def test_answers_up_to_the_limit_are_graded() -> None:
    padded = " " * 10 + "3" + "+0" * 20
    assert grade(f"\\boxed{{{padded}}}", "3", require_box=True)
    long = "0" * (ANSWER_LIMIT - 1) + "3"
    assert grade(f"\\boxed{{{long}}}", "3", require_box=True)
    with pytest.raises(DataError, match="2,001 characters"):
        grade(f"\\boxed{{0{long}}}", "3", require_box=True)


def test_a_library_that_grades_wrongly_is_found_before_it_grades(
    task: MathTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.tasks.grading.math.grade.equal", lambda *answers: False)
    monkeypatch.setattr("resource.setrlimit", lambda *limits: None)
    with pytest.raises(Exception, match=r"does not find 1/2 equal to 0\.5, .*antlr4-python3-runtime==4"):
        task.prepare_grading()


def test_a_right_answer_that_takes_too_long_is_a_failure_and_no_wrong_response(task: MathTask) -> None:
    hangs = Example(prompt="", answer=r"\sum_{n=1}^{100000000} n^n")
    with Grader(task, time_limit=1.5) as grader:
        results = grader.grade([hangs, Example("", "3")], [r"\boxed{x}", r"\boxed{3}"])
    assert results == [Grade(None, "no reward within 1.5 s; process ended"), Grade(1.0)]


def test_many_slow_answers_of_one_kind_are_not_all_tried(task: MathTask) -> None:
    answers = [rf"9^{{9^{{9^{i}}}}} - 9^{{9^{{9^{i}}}}} + 3" for i in range(20, 40)]
    with Grader(task, time_limit=0.5) as grader:
        results = graded(grader, *answers, "3", r"\frac{6}{2}", "4")
        assert grader.restarts == TIMEOUTS
    assert [result.reward for result in results] == [*[0.0] * 20, 1.0, 1.0, 0.0]
    assert sum("not tried" in str(result.timeout) for result in results) == 20 - TIMEOUTS
    assert not any(result.failure for result in results)


def test_kinds_of_answers() -> None:
    answers = (r"9^{9^{9^9}} - x", r"7^{8^{9^9}}-x", r"7^{8^{9^9}}-y", "12 cm")
    kinds = [answer_kind(rf"so \boxed{{{answer}}}") for answer in answers]
    assert kinds[0] == kinds[1] != kinds[2] and kinds[0] is not None and kinds[3] is None
    assert answer_kind("\\boxed{" * 200_000) is not None
