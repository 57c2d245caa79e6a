"""A token without a log μ is left out and counted: the gradient is that of the batch that never had it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from drpo import aggregate, make_objective
from drpo.errors import DataError, DrpoWarning
from drpo.integrations.padded import leave_out, padded_loss
from drpo.integrations.parity import Padded, fixed_batch
from drpo.integrations.prime_rl import drpo_loss
from drpo.integrations.prime_rl.parity import inputs
from drpo.integrations.row_signal import RowSignal, warn_of_no_signal


def without_mu(padded: Padded, value: float, *places: tuple[int, int]) -> Padded:
    behavior = padded.behavior_logprobs.clone()
    for place in places:
        behavior[place] = value
    return replace(padded, behavior_logprobs=behavior)


def deleted(padded: Padded, *places: tuple[int, int]) -> Padded:
    mask = padded.mask.clone()
    for place in places:
        mask[place] = False
    return replace(padded, mask=mask)


def gradient(padded: Padded, host: str = "a host") -> torch.Tensor:
    leaf = padded.logprobs.clone().requires_grad_(True)
    mask, _ = leave_out(padded.mask, padded.behavior_logprobs, host)
    loss, batch = padded_loss(make_objective("drpo"), leaf, padded.behavior_logprobs, padded.advantages, mask)
    aggregate(loss[mask], batch).backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("places", [[(0, 3)], [(1, 0)], [(0, 0), (2, 5), (7, 19)]])
def test_the_gradient_is_that_without_the_token(value: float, places: list[tuple[int, int]]):
    padded = fixed_batch()
    found = gradient(without_mu(padded, value, *places))
    assert torch.equal(found, gradient(deleted(padded, *places)))
    assert bool(found.isfinite().all()) and bool(found.any())
    assert all(found[place] == 0 for place in places)
    _, share = leave_out(padded.mask, without_mu(padded, value, *places).behavior_logprobs, "a host")
    assert share == len(places) / int(padded.mask.sum())


def test_nothing_is_left_out_of_a_sound_batch_and_padding_does_not_count():
    padded = fixed_batch().filled(float("nan"))
    mask, share = leave_out(padded.mask.long(), padded.behavior_logprobs, "a host")
    assert torch.equal(mask, padded.mask) and share == 0.0


def test_beyond_the_limit_it_is_one_line():
    padded = fixed_batch()
    allowed = [(0, column) for column in range(5)]  # 5 of 110
    leave_out(padded.mask, without_mu(padded, float("nan"), *allowed).behavior_logprobs, "a host")
    for many in ([(0, column) for column in range(6)], [(row, 0) for row in range(8)]):
        with pytest.raises(DataError, match=r"a host: \d of 110 tokens have no log μ .*above the 5%") as caught:
            leave_out(padded.mask, without_mu(padded, float("nan"), *many).behavior_logprobs, "a host")
        assert "\n" not in str(caught.value)
    nothing = torch.full_like(padded.behavior_logprobs, float("nan"))
    with pytest.raises(DataError, match="110 of 110 tokens"):
        leave_out(padded.mask, nothing, "a host")


def test_prime_rl_leaves_it_out_and_counts_it():
    padded = fixed_batch()
    row = 0
    found, expected = (
        drpo_loss(inputs(batch, row, batch.logprobs[row]))
        for batch in (without_mu(padded, float("nan"), (row, 2)), deleted(padded, (row, 2)))
    )
    assert torch.equal(found.loss, expected.loss)
    assert found.metrics["drpo/left_out_share"] == pytest.approx(1 / 24)
    assert expected.metrics["drpo/left_out_share"] == 0.0


def test_rows_of_an_update_without_any_advantage_are_told_after_two_updates(recwarn: pytest.WarningsRecorder):
    padded = fixed_batch()
    _, idle = padded_loss(
        make_objective("drpo"),
        padded.logprobs,
        padded.behavior_logprobs,
        torch.zeros(8, dtype=torch.float64),
        padded.mask,
    )
    signal = RowSignal()
    for _ in range(3):
        warn_of_no_signal(signal, idle, 8, 16)
    assert not recwarn.list
    with pytest.warns(DrpoWarning, match="no group's rewards vary"):
        warn_of_no_signal(signal, idle, 8, 16)
