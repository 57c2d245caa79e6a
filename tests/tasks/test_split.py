import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from drpo.tasks.split import HELDOUT_ONE_IN, SEED_LIMIT, heldout_prompts, is_heldout, item_seed, prompt_hash


def test_the_hash_is_the_same_on_every_machine() -> None:
    # Worked out once; a change would move examples from one side to the other between versions.
    assert prompt_hash("What is 2 + 3?") == 13987910735260171637
    assert item_seed("training", 0, 1, 2) == 1633527421


def test_one_prompt_in_eight_is_held_out() -> None:
    share = sum(is_heldout(f"prompt {i}") for i in range(8000)) / 8000
    assert abs(share - 1 / HELDOUT_ONE_IN) < 0.02


@given(st.lists(st.integers() | st.text(), max_size=4))
def test_item_seeds_fit_every_generator(stream: list[int | str]) -> None:
    assert 0 <= item_seed(*stream) < SEED_LIMIT


def test_coordinates_do_not_run_into_each_other() -> None:
    assert item_seed("training", 1, 23) != item_seed("training", 12, 3)


@given(st.sets(st.text(), min_size=2, max_size=60), st.floats(0.001, 0.999))
def test_a_finite_set_is_split_by_its_prompts_alone(prompts: set[str], fraction: float) -> None:
    heldout = heldout_prompts(prompts, fraction)
    assert heldout == heldout_prompts(sorted(prompts) + sorted(prompts), fraction)
    assert set(heldout) < prompts and len(set(heldout)) == len(heldout)
    assert len(heldout) == min(math.ceil(Fraction(str(fraction)) * len(prompts)), len(prompts) - 1)


def test_decimal_fractions_are_exact() -> None:
    assert len(heldout_prompts([str(i) for i in range(30)], 0.1)) == 3


def test_a_larger_fraction_only_adds_to_the_held_out_prompts() -> None:
    prompts = [str(i) for i in range(50)]
    small, large = heldout_prompts(prompts, 0.1), heldout_prompts(prompts, 0.3)
    assert large[: len(small)] == small
