"""`drpo.start_check`: what rounding explains passes, every other source of μ is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import drpo
from drpo.errors import ConfigError, DataError, MismatchError


def sampled(
    temperature: float = 1.0, tokens: int = 4000, noise: float = 0.0, top_p: float = 1.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log π (temperature 1), log μ (``temperature``, ``top_p``, ``noise`` on the logits) and log max μ of the tokens
    that μ drew from a long-tailed policy, half of whose states are near certain; ``[N]`` each."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, 200, generator=generator) - 1.1 * torch.arange(1, 201).log()
    favorites = 4 + 3.5 * torch.randn(tokens, 1, generator=generator)
    logits[:, :3] += (favorites + 1.5 * torch.randn(tokens, 3, generator=generator)).clamp(min=0)
    mu = ((logits + noise * torch.randn(logits.shape, generator=generator)) / temperature).log_softmax(-1)
    if top_p < 1:
        ordered, order = mu.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        cut = torch.zeros_like(mu, dtype=torch.bool).scatter(1, order, before >= top_p)
        mu = mu.masked_fill(cut, -torch.inf).log_softmax(-1)
    drawn = torch.multinomial(mu.exp(), 1, generator=generator)
    return logits.log_softmax(-1).gather(1, drawn)[:, 0], mu.gather(1, drawn)[:, 0], mu.max(-1).values


def batch(pi: torch.Tensor, mu: torch.Tensor, length: int = 40, **more: Any) -> drpo.TokenBatch:
    return drpo.TokenBatch(pi, mu, torch.ones(len(pi)), sequence_ids=torch.arange(len(pi)) // length, **more)


@pytest.mark.parametrize(
    ("precision", "noise"), [("fp32", 1e-5), ("bf16", 0.005), ("bf16", 0.03), ("fp8", 0.03), ("fp8", 0.08)]
)
@pytest.mark.parametrize("tokens", [60, 700, 4000])
def test_what_rounding_explains_passes(precision: Any, noise: float, tokens: int):
    for seed in range(4):
        pi, mu, _ = sampled(noise=noise, tokens=tokens, seed=seed)
        found = drpo.start_check(batch(pi, mu), precision)
        assert found.cause is None and 0 < found.mean < found.limit and found.mean <= found.p95 <= found.max


@pytest.mark.parametrize(("temperature", "precision"), [(0.7, "bf16"), (0.7, "fp8"), (1.4, "bf16"), (0.8, "fp32")])
@pytest.mark.parametrize("tokens", [1000, 4000])
def test_another_temperature_is_found_below_the_limit_as_well(temperature: float, precision: Any, tokens: int):
    pi, mu, _ = sampled(temperature, tokens, noise=0.0 if precision == "fp32" else 0.01)
    with pytest.raises(MismatchError, match="different temperatures"):
        drpo.start_check(batch(pi, mu), precision, limit=10.0)
    with pytest.raises(MismatchError, match="different temperatures"):
        drpo.start_check(batch(pi, mu), precision)


def test_a_limit_of_ones_own_and_the_less_precise_side_decide():
    pi, mu, _ = sampled(noise=0.02)
    assert drpo.start_check(batch(pi, mu), "fp32", "fp8").limit == drpo.start_check(batch(pi, mu), "fp8").limit
    with pytest.raises(MismatchError, match="on average"):
        drpo.start_check(batch(pi, mu), "fp32")
    with pytest.raises(MismatchError, match=r"limit is 0\.001"):
        drpo.start_check(batch(pi, mu), limit=0.001)
    assert drpo.start_check(batch(pi, mu), "fp32", limit=0.5).cause is None


@pytest.mark.parametrize("value", [0.0, -9999.0, -100.0])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_placeholders_are_named(value: float, share: float):
    pi, mu, _ = sampled(noise=0.005)
    filled = torch.rand(len(mu), generator=torch.Generator().manual_seed(1)) < share
    mu[filled] = value
    with pytest.raises(MismatchError, match=rf"behavior_logprobs = {value:g} exactly: a placeholder"):
        drpo.start_check(batch(pi, mu))


def test_values_beside_the_wrong_token_are_named():
    pi, mu, most_likely = sampled(noise=0.005)
    with pytest.raises(MismatchError, match=r"shifted by one token.*next"):
        drpo.start_check(batch(pi, mu.roll(1)))
    with pytest.raises(MismatchError, match=r"shifted by one token.*previous"):
        drpo.start_check(batch(pi, mu.roll(-1)))
    with pytest.raises(MismatchError, match="another order"):
        drpo.start_check(batch(pi, mu.view(-1, 40).flip(0).flatten()))
    with pytest.raises(MismatchError, match="most likely token"):
        drpo.start_check(batch(pi, most_likely))
    _, other, _ = sampled(noise=0.005, seed=1)
    with pytest.raises(MismatchError, match="older or another model's"):
        drpo.start_check(batch(pi, other))


def test_a_cut_of_the_distribution_is_named():
    pi, mu, _ = sampled(top_p=0.7)
    with pytest.raises(MismatchError, match="top-p"):
        drpo.start_check(batch(pi, mu))


def test_what_cannot_be_checked_is_an_error():
    pi, mu, _ = sampled(tokens=80)
    with pytest.raises(ConfigError, match="precision must be one of fp32"):
        drpo.start_check(batch(pi, mu), "float32")  # pyright: ignore[reportArgumentType]
    for wrong in (0.0, float("nan"), -1.0):
        with pytest.raises(ConfigError, match="limit must be"):
            drpo.start_check(batch(pi, mu), limit=wrong)
    with pytest.raises(DataError, match="no tokens"):
        drpo.start_check(batch(pi[:0], mu[:0]))
    mu[3] = torch.nan
    with pytest.raises(DataError, match="1 of 80 tokens"):
        drpo.start_check(batch(pi, mu, validate=False))


def test_log_probabilities_with_gradient_and_in_low_precision_are_taken():
    pi, mu, _ = sampled(noise=0.005)
    leaf = pi.clone().requires_grad_()
    assert drpo.start_check(batch(leaf, mu)) == drpo.start_check(batch(pi, mu))
    assert drpo.start_check(batch(pi.bfloat16(), mu)).mean < 0.05
    assert leaf.grad is None
