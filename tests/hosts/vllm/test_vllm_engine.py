"""vLLM itself as a sampler, on the CPU: `make test-vllm`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from drpo.errors import SamplerError
from drpo.model.forward import Sequences
from drpo.model.policy import Policy, load_policy
from drpo.rollouts import Request, Response, SamplingParameters, VllmOptions
from drpo.rollouts.truncation import kept_tokens
from drpo.rollouts.vllm.sampler import VllmSampler

#: |log π − log μ| in nats that two engines with the same weights differ by at most, in float32. Measured: 6e-5.
SAME_POLICY = 5e-4
#: Longer than a block of vLLM's cache (128 positions on a CPU), so that it would be found there again.
LONG = [5 + (7 * index) % 300 for index in range(300)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy("embedded:arithmetic", torch.device("cpu"))


@pytest.fixture(scope="module")
def sampler(policy: Policy) -> Iterator[VllmSampler]:
    made = VllmSampler(policy.model, policy.stop_ids, VllmOptions(cache_gib=0.25))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def newest(policy: Policy, sampler: VllmSampler) -> None:
    sampler.load_weights(policy.model.state_dict())


def prompt(policy: Policy, sum_: str) -> list[int]:
    return policy.encode(f"State the final answer to the following arithmetic problem: {sum_} =")


def distributions(policy: Policy, prompt_ids: Sequence[int], response: Response, temperature: float) -> torch.Tensor:
    """log π ``[T, V]`` at every token of the response, by the model itself on the whole sequence."""
    ids = torch.tensor([[*prompt_ids, *response.token_ids]])
    with torch.no_grad():
        logits = policy.model(ids).logits[0, len(prompt_ids) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def largest_mismatch(
    policy: Policy, requests: Sequence[Request], groups: list[list[Response]], temperature: float = 1.0
) -> float:
    worst = 0.0
    for request, group in zip(requests, groups, strict=True):
        for response in group:
            found = distributions(policy, request.prompt_ids, response, temperature)
            logprobs = found.gather(1, torch.tensor(response.token_ids).unsqueeze(1)).squeeze(1)
            worst = max(worst, float((logprobs - torch.tensor(response.behavior_logprobs)).abs().max()))
    return worst


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_behavior_logprobs_are_the_policys_at_the_sampling_temperature(
    policy: Policy, sampler: VllmSampler, temperature: float
):
    requests = [Request(prompt(policy, "1 + 2"), 4, seed=1), Request([9], 2, seed=2), Request(LONG, 2, seed=3)]
    groups = sampler.sample(requests, SamplingParameters(temperature=temperature, max_new_tokens=40))
    assert [len(group) for group in groups] == [4, 2, 2]
    assert largest_mismatch(policy, requests, groups, temperature) < SAME_POLICY
    assert largest_mismatch(policy, requests, groups, temperature + 0.3) > 0.05, "the check sees a temperature"


def test_a_response_ends_after_its_first_stop_token_or_its_length(
    policy: Policy, sampler: VllmSampler, monkeypatch: pytest.MonkeyPatch
):
    """More stop tokens than the model's own: high digits end a response as well."""
    stops = {*policy.stop_ids, *policy.tokenizer.convert_tokens_to_ids(list("456789"))}
    monkeypatch.setattr(sampler, "stop_ids", sorted(stops))
    requests = [Request(prompt(policy, "1 + 2 + 3"), 16, seed=1), Request([300, 301], 32, seed=2)]
    groups = sampler.sample(requests, SamplingParameters(max_new_tokens=8))
    reasons = Counter()
    for response in (response for group in groups for response in group):
        reasons[response.stop_reason] += 1
        assert not stops & set(response.token_ids[:-1])
        assert (response.token_ids[-1] in stops) == (response.stop_reason == "stop")
        assert len(response.token_ids) == 8 or response.stop_reason == "stop"
    assert set(reasons) == {"stop", "length"}


def test_seeds_reproduce_responses(policy: Policy, sampler: VllmSampler):
    requests = [Request(prompt(policy, f"{i} + 7"), 4, seed=100 + i) for i in range(6)]
    parameters = SamplingParameters(max_new_tokens=30)
    first = sampler.sample(requests, parameters)
    assert sampler.sample(requests, parameters) == first
    # In another batch at other places: the same tokens, the last bits of the log-probabilities aside.
    for index, group in enumerate(sampler.sample(requests[::-1][:4], parameters)):
        assert [response.token_ids for response in group] == [response.token_ids for response in first[5 - index]]
    same_prompt = [Request([300, 17, 250], 4, seed=seed) for seed in (1, 2)]
    wild = sampler.sample(same_prompt, SamplingParameters(temperature=2.0, max_new_tokens=30))
    assert len({tuple(response.token_ids) for group in wild for response in group}) == 8


def test_a_batch_larger_than_vllm_takes_at_once(policy: Policy, sampler: VllmSampler):
    """More prompt tokens than it prefills in a pass, more responses than it holds at a time."""
    requests = [Request([*LONG, 5 + index], 4, seed=index) for index in range(80)]
    groups = sampler.sample(requests, SamplingParameters(max_new_tokens=4))
    assert [len(group) for group in groups] == [4] * 80
    assert largest_mismatch(policy, requests[::16], groups[::16]) < SAME_POLICY


def test_tokens_are_drawn_from_the_distribution(policy: Policy, sampler: VllmSampler):
    draws = 4096
    request = Request([300, 17, 250], draws, seed=5)
    parameters = SamplingParameters(temperature=1.5, max_new_tokens=1)
    (group,) = sampler.sample([request], parameters)
    counts = torch.bincount(torch.tensor([response.token_ids[0] for response in group]), minlength=384).double()
    expected = distributions(policy, request.prompt_ids, group[0], 1.5)[0].double().exp() * draws
    common = expected >= 5
    observed = torch.cat([counts[common], counts[~common].sum(0, keepdim=True)])
    wanted = torch.cat([expected[common], expected[~common].sum(0, keepdim=True)])
    degrees = len(wanted) - 1
    assert degrees >= 5
    chi_square = float(((observed - wanted) ** 2 / wanted).sum())
    # Mean and deviation of a chi-square variable are n and sqrt(2n); five of them are never exceeded by chance.
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


def test_top_k_is_reported_and_changes_nothing(policy: Policy, sampler: VllmSampler):
    requests = [Request(prompt(policy, "4 + 2"), 3, seed=3)]
    plain = sampler.sample(requests, SamplingParameters(max_new_tokens=12))
    groups = sampler.sample(requests, SamplingParameters(max_new_tokens=12, report_topk=5))
    for before, response in zip(plain[0], groups[0], strict=True):
        assert response.token_ids == before.token_ids and before.topk_ids is None
        assert response.topk_ids is not None and response.topk_logprobs is not None
        found = distributions(policy, requests[0].prompt_ids, response, 1.0)
        top = found.topk(5, dim=1)
        assert (torch.tensor(response.topk_logprobs) - top.values).abs().max() < SAME_POLICY
        # Which of two tokens of nearly one probability comes first may differ.
        likely = found.gather(1, torch.tensor(response.topk_ids))
        assert (likely - top.values).abs().max() < SAME_POLICY


def test_new_weights_replace_all_of_the_old(policy: Policy, sampler: VllmSampler):
    """Above all the cached keys and values of a prompt that was sampled before."""
    requests = [Request(LONG, 4, seed=11), Request(prompt(policy, "3 + 3"), 4, seed=12)]
    parameters = SamplingParameters(max_new_tokens=24)
    before = sampler.sample(requests, parameters)
    generator = torch.Generator().manual_seed(0)
    original = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
    try:
        sampler.load_weights(dict(policy.model.named_parameters()))  # the tied head is not among them
        after = sampler.sample(requests, parameters)
        assert largest_mismatch(policy, requests, after) < SAME_POLICY
        assert largest_mismatch(policy, requests, before) > 0.05, "the check sees other weights"
    finally:
        policy.model.load_state_dict(original)
    sampler.load_weights(original)
    assert sampler.sample(requests, parameters) == before


def test_bfloat16_is_another_policy(policy: Policy, tmp_path: Path):
    made = VllmSampler(policy.model, policy.stop_ids, VllmOptions(cache_gib=0.25), tmp_path / "log", dtype="bfloat16")
    made.load_weights(policy.model.state_dict())
    requests = [Request(prompt(policy, "5 + 2"), 16, seed=1)]
    groups = made.sample(requests, SamplingParameters(max_new_tokens=30))
    made.close()
    assert 1e-3 < largest_mismatch(policy, requests, groups) < 0.5


def test_an_engine_that_does_not_fit_says_why(policy: Policy, tmp_path: Path):
    made = VllmSampler(policy.model, policy.stop_ids, VllmOptions(cache_gib=4096.0), tmp_path / "vllm.log")
    made.load_weights(policy.model.state_dict())
    with pytest.raises(SamplerError, match=r"(?s)could not start: it raised ValueError: .*memory.*sampler\.cache_gib"):
        made.sample([Request([1], 1, 0)], SamplingParameters())
    made.close()


# ---- truncated sampling


@pytest.fixture(scope="module")
def replaying(policy: Policy) -> Iterator[VllmSampler]:
    pytest.importorskip("triton.backends.cpu", reason="vLLM's model runner V2 needs Triton's CPU backend on a CPU")
    made = VllmSampler(policy.model, policy.stop_ids, VllmOptions(cache_gib=0.25), report_support=True)
    made.load_weights(policy.model.state_dict())
    yield made
    made.close()


@pytest.mark.parametrize(
    "cut", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.05}, {"top_p": 0.9, "top_k": 50, "min_p": 0.05}]
)
def test_mu_is_the_policy_renormalized_over_the_mask(policy: Policy, replaying: VllmSampler, cut: dict[str, Any]):
    """And the mask is what the in-process sampler's rules keep, but for the edge's rounding."""
    requests = [Request(prompt(policy, f"{i} + 2"), 4, seed=i) for i in range(4)]
    parameters = SamplingParameters(temperature=1.3, max_new_tokens=20, **cut)
    same = worst = count = 0
    for request, group in zip(requests, replaying.sample(requests, parameters), strict=True):
        for response in group:
            assert response.support is not None
            sequence = Sequences(request.prompt_ids, response.token_ids, support=response.support)
            with torch.no_grad():
                logprobs, _ = policy.response_logprobs([sequence], 1.3)
            worst = max(worst, float((logprobs - torch.tensor(response.behavior_logprobs)).abs().max()))
            kept = kept_tokens(distributions(policy, request.prompt_ids, response, 1.3), parameters)
            same += int((kept == response.support.mask(384)).all(1).sum())
            count += len(response.token_ids)
    assert worst < SAME_POLICY
    assert same > 0.98 * count


def test_an_evaluation_of_that_engine_reports_nothing(policy: Policy, replaying: VllmSampler):
    parameters = SamplingParameters(max_new_tokens=8)
    ((whole,),) = replaying.sample([Request([300, 17, 250], 1, seed=1)], parameters)
    assert whole.support is None
