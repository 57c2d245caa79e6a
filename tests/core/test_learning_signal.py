"""What is said of rollout batches that hold nothing to learn from, and when."""

from __future__ import annotations

import pytest

from drpo.learning_signal import Hints, LearningSignal, RolloutFacts

USUAL = RolloutFacts(varies=True, cut_off=False, failed=False, reward=0.4)
CASES = {
    "no group's rewards vary (mean 0)": RolloutFacts(varies=False, cut_off=False, failed=False, reward=0.0),
    "no group's rewards vary (mean 1)": RolloutFacts(varies=False, reward=1.0),
    "no group's rewards vary, so": RolloutFacts(varies=False),
    "every response was cut off": RolloutFacts(varies=True, cut_off=True, reward=0.1),
    "every reward failed": RolloutFacts(varies=False, failed=True),
}


@pytest.mark.parametrize(("words", "facts"), CASES.items())
def test_each_kind_is_told_once_after_two_batches_in_a_row(words: str, facts: RolloutFacts):
    signal = LearningSignal()
    assert signal.add(facts) == []
    assert signal.add(USUAL) == []  # one batch may be chance
    assert signal.add(facts) == []
    (told,) = signal.add(facts)
    assert words in told and "\n" not in told
    assert signal.add(facts) == [] and signal.add(USUAL) == [] and signal.add(facts) == []


def test_several_kinds_at_once():
    signal = LearningSignal()
    both = RolloutFacts(varies=False, cut_off=True, failed=False, reward=0.0)
    assert signal.add(both) == []
    assert len(signal.add(both)) == 2


def test_what_a_host_does_not_say_is_not_guessed():
    signal = LearningSignal()
    assert [signal.add(RolloutFacts()) for _ in range(3)] == [[], [], []]


def test_the_hints_are_the_hosts():
    signal = LearningSignal(Hints(length="Raise max_new_tokens (now 8)."))
    facts = RolloutFacts(cut_off=True)
    signal.add(facts)
    assert "Raise max_new_tokens (now 8)." in signal.add(facts)[0]
