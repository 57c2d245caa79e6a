"""The number that an answer in GSM8K's layout ends with."""

from __future__ import annotations

import pytest

from drpo.tasks.grading.gsm8k import final_number, grade


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "7"),
        ("#### 1,000", "1000"),
        ("#### $1,234.50 dollars", "1234.5"),
        ("#### -5", "-5"),
        ("#### \N{MINUS SIGN}5", "-5"),
        ("#### 42.", "42"),
        ("#### 12 boys and 3 girls", "12"),
        ("#### 1 #### 2", "2"),
        ("first 3, then 8", "8"),
        ("5-3=2", "2"),
        ("9 - 12 = -3", "-3"),
        ("2*3=6", "6"),
        ("<answer>15</answer>", "15"),
        ("(5)-3", "3"),
        ("0.50", "0.5"),
        ("1,2,3", "3"),
        ("#### none", None),
        ("7 ####", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_final_number(text: str, number: str | None):
    assert final_number(text) == number


def test_grading():
    assert grade("… so #### 7.0", "3 + 4 = 7\n#### 7") == 1.0
    assert grade("I think 8", "#### 7") == 0.0
    assert grade("no number", "no number") == 0.0
    assert grade("the answer is 7", "7") == 1.0
