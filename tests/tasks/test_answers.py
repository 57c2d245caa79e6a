import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.tasks.grading.answers import extract_answer, normalize_answer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 42 \n", "42"),
        ("<answer>1</answer> no: <answer> 2 </answer> then", "2"),
        ("<answer>a\nb</answer>", "a\nb"),
        ("<answer>a <answer>b</answer>", "b"),
        ("<answer>1</answer> or <answer>2", "1"),
        ("no opening</answer>", "no opening</answer>"),
        ("<answer>unfinished", "<answer>unfinished"),
        ("<answer></answer>", ""),
    ],
)
def test_extract_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "forms",
    [
        ["1000", "1,000", "+1000", "1000.0", "01000", " 1,000. ", "１０００", '"1000"', "**1,000.00**"],
        ["-5", "−5", "-5.0", "-05"],
        ["0", "-0", "0.0", "00"],
        ["0.5", ".5", "0.50", "+.5"],
        ["123456789012345678901234567890.1", "123,456,789,012,345,678,901,234,567,890.10"],
        ["paris", "Paris", "PARIS.", "“Paris”", "  paris\n", "`Paris`,"],
        ["new york", "New\n York", "new\u00a0york"],
        ["straße", "STRASSE"],
        ["é", "e\u0301"],
    ],
)
def test_equal_answers(forms: list[str]) -> None:
    assert {normalize_answer(form) for form in forms} == {normalize_answer(forms[0])}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "-5"),
        ("5", "5!"),
        ("5", "5%"),
        ("5", ".5"),
        ("102", "10²"),
        ("11/2", "1½"),
        ("1.5", "1,5"),
        ("1000.5", "1.000,5"),
        ("10", "1,0"),
        ("1000", "1e3"),
        ("1, 2", "(1, 2)"),
        ("0.1", "0.10000000000000001"),
        ("c", "c++"),
        ("a b", "ab"),
        ("12", "1 2"),
    ],
)
def test_different_answers(one: str, other: str) -> None:
    assert normalize_answer(one) != normalize_answer(other)


@given(st.text())
def test_normalizing_again_changes_nothing(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once


@given(st.integers())
def test_every_way_to_write_a_whole_number(number: int) -> None:
    assert normalize_answer(f"{number:,}") == normalize_answer(f"{number}.00") == str(number)
