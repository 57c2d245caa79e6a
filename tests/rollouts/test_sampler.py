"""The in-process sampler against the policy it samples from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from drpo.errors import ConfigError, DataError
from drpo.model.forward import Sequences
from drpo.model.policy import Policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from drpo.rollouts.in_process import inverse_cdf
from support import tiny

pytestmark = pytest.mark.slow


def requests(count: int = 4) -> list[Request]:
    return [Request([2 + (i + j) % 15 for j in range(3 + 2 * i)], count, seed=100 + i) for i in range(5)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(tiny.model(sharpness=4.0), tiny.tokenizer())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_behavior_logprobs_are_those_the_trainer_recomputes(policy: Policy, temperature: float) -> None:
    sampler = InProcessSampler(policy.model, {0, 3, 4})
    asked = requests()
    groups = sampler.sample(asked, SamplingParameters(temperature=temperature, max_new_tokens=24))
    sequences = [Sequences(r.prompt_ids, out.token_ids) for r, g in zip(asked, groups, strict=True) for out in g]
    with torch.no_grad():
        logprobs, entropy = policy.response_logprobs(sequences, temperature)
    behavior = torch.tensor([value for group in groups for out in group for value in out.behavior_logprobs])
    assert logprobs.shape == behavior.shape == entropy.shape
    assert (logprobs - behavior).abs().max() <= 1e-4
    assert len({out.stop_reason for group in groups for out in group}) == 2  # both kinds of ending were exercised


def test_responses_end_with_their_stop_token_or_at_the_limit(policy: Policy) -> None:
    stops = {0, 3, 4}
    groups = InProcessSampler(policy.model, stops).sample(requests(8), SamplingParameters(max_new_tokens=16))
    assert [len(group) for group in groups] == [8] * 5
    for out in (out for group in groups for out in group):
        assert len(out.token_ids) == len(out.behavior_logprobs) <= 16
        assert not stops & set(out.token_ids[:-1])
        assert (out.stop_reason == "stop") == (out.token_ids[-1] in stops)
        assert out.stop_reason == "stop" or len(out.token_ids) == 16


def test_a_request_draws_the_same_alone_and_in_company(policy: Policy) -> None:
    parameters = SamplingParameters(max_new_tokens=16)
    together = InProcessSampler(policy.model, {0, 3}).sample(requests(), parameters)
    again = InProcessSampler(policy.model, {0, 3}, max_rows=3).sample(requests(), parameters)
    alone = InProcessSampler(policy.model, {0, 3}).sample(requests()[2:3], parameters)
    tokens = [[out.token_ids for out in group] for group in together]
    assert tokens == [[out.token_ids for out in group] for group in again]
    assert tokens[2] == [out.token_ids for out in alone[0]]


def test_seeds_differ(policy: Policy) -> None:
    first, second = InProcessSampler(policy.model, {0}).sample(
        [Request([5, 6, 7], 4, seed=1), Request([5, 6, 7], 4, seed=2)], SamplingParameters(max_new_tokens=16)
    )
    assert [out.token_ids for out in first] != [out.token_ids for out in second]
    assert len({tuple(out.token_ids) for out in first}) > 1  # the responses of a group differ too


def test_sampling_follows_the_distribution(policy: Policy) -> None:
    """χ² of 20,000 first tokens against the model's own probabilities, at a temperature that is not 1."""
    draws, temperature = 20_000, 1.3
    sampler = InProcessSampler(policy.model, {0}, max_rows=draws)
    parameters = SamplingParameters(temperature=temperature, max_new_tokens=1)
    (group,) = sampler.sample([Request([5, 6], draws, 3)], parameters)
    counts = torch.bincount(torch.tensor([out.token_ids[0] for out in group]), minlength=20).double()
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[5, 6]])).logits[0, -1].double()
    expected = draws * (logits / temperature).softmax(-1)
    seen = expected >= 5
    chi2 = float(((counts - expected)[seen].square() / expected[seen]).sum())
    degrees = int(seen.sum()) - 1
    assert degrees >= 3
    assert chi2 < degrees + 5 * (2 * degrees) ** 0.5  # five standard deviations above the mean of χ²


def test_inverse_cdf_by_hand() -> None:
    logprobs = torch.tensor([[0.25, 0.0, 0.5, 0.25]]).log().expand(5, 4)
    uniforms = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.7501], dtype=torch.float64)
    assert inverse_cdf(logprobs, uniforms).tolist() == [0, 0, 2, 2, 3]  # token 1 has no probability: never drawn


def test_bad_requests_are_refused(policy: Policy) -> None:
    with pytest.raises(ConfigError, match=r"temperature must be a finite number > 0, got 0"):
        SamplingParameters(temperature=0)
    with pytest.raises(ConfigError, match=r"max_new_tokens must be ≥ 1"):
        SamplingParameters(max_new_tokens=0)
    with pytest.raises(DataError, match=r"at least one token"):
        Request([], 1, 0)
    with pytest.raises(DataError, match=r"count must be ≥ 1"):
        Request([1], 0, 0)
    with pytest.raises(DataError, match=r"exceed the model's 256 positions. Lower max_new_tokens to 246"):
        InProcessSampler(policy.model, {0}).sample([Request([1] * 10, 1, 0)], SamplingParameters(max_new_tokens=250))


def test_a_head_with_extras_takes_the_whole_logits_path() -> None:
    """A model that scales its logits is recomputed right as well."""
    network = tiny.model(sharpness=4.0)
    plain = Policy(network, tiny.tokenizer())
    forward = type(network).forward

    class Scaled(type(network)):
        def forward(self, *args, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
            out = forward(self, *args, **kwargs)
            assert out.logits is not None
            out.logits = 0.5 * out.logits
            return out

    network.__class__ = Scaled
    scaled = Policy(network, tiny.tokenizer())
    assert plain.head is not None and scaled.head is None
    asked = requests(2)
    groups = InProcessSampler(network, {0}).sample(asked, SamplingParameters(max_new_tokens=8))
    sequences = [Sequences(r.prompt_ids, out.token_ids) for r, g in zip(asked, groups, strict=True) for out in g]
    with torch.no_grad():
        logprobs, _ = scaled.response_logprobs(sequences, 1.0)
    behavior = torch.tensor([value for group in groups for out in group for value in out.behavior_logprobs])
    assert (logprobs - behavior).abs().max() <= 1e-4


# ---- the top K


def test_the_topk_are_the_most_likely_tokens_and_change_nothing_else(policy: Policy) -> None:
    stops = {0, 3, 4}
    plain = InProcessSampler(policy.model, stops).sample(requests(), SamplingParameters(max_new_tokens=12))
    asked = SamplingParameters(max_new_tokens=12, report_topk=3)
    groups = InProcessSampler(policy.model, stops).sample(requests(), asked)
    assert all(out.topk_ids is None and out.topk_logprobs is None for group in plain for out in group)
    for request, group, other in zip(requests(), groups, plain, strict=True):
        for out, same in zip(group, other, strict=True):
            assert (out.token_ids, out.behavior_logprobs) == (same.token_ids, same.behavior_logprobs)
            assert out.topk_ids is not None and out.topk_logprobs is not None
            ids = torch.tensor([[*request.prompt_ids, *out.token_ids]])
            with torch.no_grad():
                table = policy.model(input_ids=ids).logits[0].log_softmax(-1)
            start = len(request.prompt_ids) - 1
            expected = table[start : start + len(out.token_ids)].topk(3)
            assert torch.allclose(torch.tensor(out.topk_logprobs), expected.values, atol=1e-4)
            assert out.topk_ids == expected.indices.tolist()


def test_a_topk_beyond_the_vocabulary_is_the_vocabulary(policy: Policy) -> None:
    asked = SamplingParameters(max_new_tokens=2, report_topk=1000)
    ((out,),) = InProcessSampler(policy.model, {0}).sample([Request([5, 6], 1, seed=0)], asked)
    assert out.topk_ids is not None and {len(ids) for ids in out.topk_ids} == {20}
    with pytest.raises(ConfigError, match=r"report_topk must be ≥ 0, got -1"):
        SamplingParameters(report_topk=-1)


# ---- compiled decoding


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traced as for any compiler, then run by PyTorch itself: no minutes of code generation."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, backend="aot_eager", dynamic=False))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("quick_compiler")
def test_compiled_decoding_draws_the_same_in_one_graph_for_each_shape(policy: Policy) -> None:
    asked = SamplingParameters(max_new_tokens=12, report_topk=2)
    plain, compiled = (InProcessSampler(policy.model, {0, 3, 4}, compiled=how) for how in (False, True))
    torch._dynamo.utils.counters.clear()
    for shift in range(2):  # prompts of other lengths, in the same room
        asking = [Request([5, 6, 7][shift:], 3, seed=1), Request([4] * (3 - shift), 2, seed=2)]
        for ours, right in zip(compiled.sample(asking, asked), plain.sample(asking, asked), strict=True):
            for out, expected in zip(ours, right, strict=True):
                assert (out.token_ids, out.stop_reason) == (expected.token_ids, expected.stop_reason)
                assert out.topk_ids == expected.topk_ids
                difference = torch.tensor(out.behavior_logprobs) - torch.tensor(expected.behavior_logprobs)
                assert float(difference.abs().max()) <= 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_compiled_decoding_refuses_what_its_mask_does_not_fit() -> None:
    settings: dict[str, Any] = {"vocab_size": 20, "n_layer": 1, "n_head": 2, "hidden_size": 32}
    network = transformers.BloomForCausalLM(transformers.BloomConfig(**settings)).eval()
    with pytest.raises(ConfigError, match=r"needs a model with rotary positions .* Leave compiled sampling off"):
        InProcessSampler(network, {0}, compiled=True).sample([Request([5], 1, seed=0)], SamplingParameters())
