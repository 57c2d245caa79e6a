"""Top-p, top-k and min-p: what is kept, what is drawn, and what is reported."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from drpo.errors import ConfigError
from drpo.model.policy import Policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters, truncation
from drpo.rollouts.truncation import kept_tokens
from drpo.support import OUTSIDE
from support import tiny

pytestmark = pytest.mark.slow

CUTS: list[dict[str, Any]] = [
    {"top_p": 0.9},
    {"top_k": 3},
    {"min_p": 0.2},
    {"top_p": 0.9, "top_k": 6, "min_p": 0.05},
]
REQUESTS = [Request([2 + (i + j) % 15 for j in range(3 + 2 * i)], 4, seed=100 + i) for i in range(4)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(tiny.model(sharpness=4.0), tiny.tokenizer())


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({"top_k": 1}, {2}),
        ({"top_k": 2}, {2, 0, 3}),  # 0 and 3 are equally likely: both or none
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"min_p": 0.49}, {2, 0, 3}),  # 0.2 ≥ 0.49 · 0.4
        ({"min_p": 0.51}, {2}),
        ({"top_p": 0.39}, {2}),
        ({"top_p": 0.41}, {2, 0, 3}),
        ({"top_p": 0.81}, {2, 0, 3, 4}),
        ({"top_p": 0.99}, {0, 1, 2, 3, 4}),
        ({"top_k": 3, "top_p": 0.49}, {2}),  # 0.4 / 0.8
        ({"min_p": 0.3, "top_p": 0.42}, {2}),  # 0.4 / 0.94
        ({"min_p": 0.3, "top_p": 0.89}, {2, 0, 3, 4}),
    ],
)
def test_kept_tokens_by_hand(cut: dict[str, Any], kept: set[int]) -> None:
    logits = torch.tensor([[0.2, 0.06, 0.4, 0.2, 0.14]], dtype=torch.float64).log().float() + 3
    found = kept_tokens(logits, SamplingParameters(**cut))
    assert set(found[0].nonzero().flatten().tolist()) == kept


@pytest.mark.parametrize("cut", CUTS)
def test_ids_do_not_matter(cut: dict[str, Any]) -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with many ties
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    found = kept_tokens(logits, SamplingParameters(**cut))
    assert torch.equal(kept_tokens(logits[:, order], SamplingParameters(**cut)), found[:, order])


def by_vllms_rules(logits: torch.Tensor, parameters: SamplingParameters) -> torch.Tensor:
    """min-p, then top-k, then top-p from the least likely token up, as vLLM applies them."""
    probabilities = logits.softmax(-1)
    logits = logits.masked_fill(probabilities < parameters.min_p * probabilities.amax(1, keepdim=True), -torch.inf)
    values, order = logits.sort(dim=1)
    if parameters.top_k > 0:
        values = values.masked_fill(values < values[:, -parameters.top_k, None], -torch.inf)
    gone = values.softmax(-1).cumsum(-1) <= 1 - parameters.top_p
    gone[:, -1] = False
    kept = values.masked_fill(gone, -torch.inf) > -torch.inf
    return torch.zeros_like(kept).scatter(1, order, kept)


@pytest.mark.parametrize("cut", CUTS)
def test_the_set_is_that_of_vllms_rules_where_nothing_ties(cut: dict[str, Any]) -> None:
    logits = 3 * torch.randn(300, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = SamplingParameters(**cut)
    found = kept_tokens(logits, parameters)
    assert torch.equal(found, by_vllms_rules(logits, parameters))
    assert 1 <= int(found.sum(1).min()) < int(found.sum(1).max()) or cut == {"top_k": 3}


def test_a_nucleus_beyond_the_head_is_found_in_the_whole_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(30, 60, generator=torch.Generator().manual_seed(0))
    whole = kept_tokens(logits, SamplingParameters(top_p=0.8))
    monkeypatch.setattr(truncation, "HEAD", 8)
    assert int(whole.sum(1).min()) > 8
    assert torch.equal(kept_tokens(logits, SamplingParameters(top_p=0.8)), whole)


@pytest.mark.parametrize("cut", CUTS)
def test_mu_is_renormalized_over_the_set_that_is_reported(policy: Policy, cut: dict[str, Any]) -> None:
    parameters = SamplingParameters(temperature=1.3, max_new_tokens=12, report_topk=7, **cut)
    groups = InProcessSampler(policy.model, {0, 3, 4}).sample(REQUESTS, parameters)
    sizes = []
    for request, group in zip(REQUESTS, groups, strict=True):
        for out in group:
            ids = torch.tensor([[*request.prompt_ids, *out.token_ids]])
            with torch.no_grad():
                logits = policy.model(input_ids=ids).logits[0, len(request.prompt_ids) - 1 : -1] / 1.3
            assert out.support is not None and len(out.support) == len(out.token_ids)
            kept = kept_tokens(logits, parameters)
            assert torch.equal(out.support.mask(20), kept)
            sizes += out.support.sizes.tolist()
            mu = logits.masked_fill(~kept, -torch.inf).log_softmax(-1)
            expected = mu.gather(1, torch.tensor(out.token_ids).unsqueeze(1)).squeeze(1)
            assert (torch.tensor(out.behavior_logprobs) - expected).abs().max() <= 1e-5
            top = torch.tensor(out.topk_logprobs)
            assert (top.exp() - mu.topk(7).values.exp()).abs().max() <= 1e-5
            assert torch.equal(top == OUTSIDE, mu.topk(7).values == -torch.inf)
    assert min(sizes) < 20 and math.exp(OUTSIDE) == 0


def test_it_is_the_same_in_company_and_whether_reported_or_not(policy: Policy) -> None:
    cut = SamplingParameters(max_new_tokens=12, top_p=0.8)
    together = InProcessSampler(policy.model, {0, 3}).sample(REQUESTS, cut)
    alone = InProcessSampler(policy.model, {0, 3}).sample(REQUESTS[2:3], cut)
    for out, same in zip(together[2], alone[0], strict=True):
        assert out.support is not None and same.support is not None
        assert out.support.tolists() == same.support.tolists()
    silent = SamplingParameters(max_new_tokens=12, top_p=0.8, report_support=False)
    quiet = InProcessSampler(policy.model, {0, 3}).sample(REQUESTS, silent)
    assert quiet == together and all(out.support is None for group in quiet for out in group)
    whole = InProcessSampler(policy.model, {0, 3}).sample(REQUESTS, SamplingParameters(max_new_tokens=12))
    assert all(out.support is None for group in whole for out in group) and whole != together


def test_sampling_follows_the_renormalized_distribution(policy: Policy) -> None:
    """χ² of 20,000 first tokens; none is drawn outside."""
    draws, parameters = 20_000, SamplingParameters(max_new_tokens=1, top_p=0.9)
    (group,) = InProcessSampler(policy.model, {0}, max_rows=draws).sample([Request([5, 6], draws, 3)], parameters)
    counts = torch.bincount(torch.tensor([out.token_ids[0] for out in group]), minlength=20).double()
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[5, 6]])).logits[:, -1]
    kept = kept_tokens(logits, parameters)
    expected = draws * logits.masked_fill(~kept, -torch.inf).double().softmax(-1)[0]
    assert float(counts[~kept[0]].sum()) == 0
    degrees = int(kept.sum()) - 1
    assert degrees >= 3 and not bool(kept.all())
    chi2 = float(((counts - expected)[kept[0]].square() / expected[kept[0]]).sum())
    assert chi2 < degrees + 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
        ({"top_p": math.nan}, r"top_p must be in"),
        ({"top_k": 0}, r"top_k must be ≥ 1, or -1 for the whole vocabulary, got 0"),
        ({"top_k": -2}, r"top_k must be ≥ 1"),
        ({"min_p": 1.0}, r"min_p must be in \[0, 1\), got 1"),
        ({"min_p": -0.1}, r"min_p must be in"),
    ],
)
def test_bad_values_are_refused(cut: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SamplingParameters(**cut)
