"""Training under top-p, top-k and min-p: π is renormalized over the tokens that μ was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from drpo.aggregation import Reduction
from drpo.errors import ConfigError, DataError
from drpo.files import read_jsonl
from drpo.inspection.inspect import inspect
from drpo.model.forward import ForwardSettings, Sequences
from drpo.model.policy import Policy
from drpo.objectives import make_objective
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from drpo.run_directory import RunDirectory
from drpo.support import OUTSIDE, Support
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grade
from drpo.train.config_layers import load_config
from drpo.train.gradient import accumulate_gradient, token_batch, with_proximal_logprobs
from drpo.train.loop import train
from drpo.train.resume import resumed_config
from drpo.train.rollout import Sample
from support import tiny
from support.notes import Notes
from tools.kill_and_resume import outcome

pytestmark = pytest.mark.slow

CUTS: list[dict[str, Any]] = [
    {"top_p": 0.9},
    {"top_k": 3},
    {"min_p": 0.2},
    {"top_p": 0.9, "top_k": 6, "min_p": 0.05},
]
TEMPERATURE = 0.8
REQUESTS = [Request([5, 6, 7, 8, 9], 3, seed=1), Request([4], 2, seed=2), Request([10, 11, 12], 3, seed=3)]
FORWARD = ForwardSettings(TEMPERATURE, 40)
ADVANTAGES = [0.7, -0.3, -0.4, 1.1, -1.1, 0.5, -1.0, 0.5]
RUN = [
    "task=copy",
    "task.length=2",
    "steps=4",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "learning_rate=1e-3",
    "max_new_tokens=4",
    "eval_every=2",
    "eval_examples=4",
    "checkpoint_every=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(tiny.model(sharpness=4.0), tiny.tokenizer())


def roll_out(policy: Policy, cut: dict[str, Any], topk: int = 0) -> list[Sample]:
    parameters = SamplingParameters(max_new_tokens=9, temperature=TEMPERATURE, report_topk=topk, **cut)
    groups = InProcessSampler(policy.model, {0}).sample(REQUESTS, parameters)
    return [
        Sample(Example("", "", {}), request.prompt_ids, response, "", Grade(1.0, None))
        for request, group in zip(REQUESTS, groups, strict=True)
        for response in group
    ]


def distributions(policy: Policy, samples: Sequence[Sample]) -> torch.Tensor:
    """``[N, V]``: log π over the support, from whole logits of one sequence after the other."""
    rows = []
    for sample in samples:
        ids = torch.tensor([[*sample.prompt_ids, *sample.response.token_ids]])
        logits = policy.model(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1] / TEMPERATURE
        assert sample.response.support is not None
        mask = sample.response.support.mask(logits.shape[1])
        rows.append(logits.masked_fill(~mask, -torch.inf).log_softmax(-1))
    return torch.cat(rows)


def sampled(samples: Sequence[Sample]) -> torch.Tensor:
    return torch.tensor([token for sample in samples for token in sample.response.token_ids])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("plain_head", [True, False])
def test_pi_is_mu_at_unchanged_weights(policy: Policy, cut: dict[str, Any], plain_head: bool) -> None:
    """Within 1e-5 on average, through the product with the head and through whole logits; 0.02 and more without."""
    samples = roll_out(policy, cut)
    mu = torch.tensor([value for sample in samples for value in sample.response.behavior_logprobs])
    sequences = [Sequences(s.prompt_ids, s.response.token_ids, support=s.response.support) for s in samples]
    twin = Policy(policy.model, policy.tokenizer)
    twin.head = twin.head if plain_head else None
    with torch.no_grad():
        logprobs, entropy = twin.response_logprobs(sequences, TEMPERATURE)
        without, _ = twin.response_logprobs([replace(each, support=None) for each in sequences], TEMPERATURE)
        right = distributions(policy, samples)
    assert float((logprobs - mu).abs().mean()) <= 1e-5
    assert float((without - mu).abs().mean()) >= 0.02 and bool((without <= mu + 1e-4).all())
    assert torch.allclose(entropy, -(right.exp() * right.clamp(min=-100)).sum(1), atol=1e-4)


@pytest.mark.parametrize("name", ["drpo", "gspo", "minirl", "dppo_topk_tv", "dppo_topk_kl", "troll"])
@pytest.mark.parametrize("cut", CUTS)
def test_the_gradient_is_that_of_whole_logits_over_the_support(name: str, cut: dict[str, Any]) -> None:
    policy = Policy(tiny.model(sharpness=4.0).double(), tiny.tokenizer())
    objective = make_objective(name)
    samples = with_proximal_logprobs(policy, roll_out(policy, cut, objective.topk), FORWARD)
    with torch.no_grad():
        for parameter in policy.model.parameters():  # ratios are no longer 1
            parameter.add_(0.01 * torch.sin(torch.arange(parameter.numel()).view_as(parameter).double()))
    loss, batch, order = accumulate_gradient(
        policy, objective, samples, ADVANTAGES, Reduction("token_mean", horizon=None), FORWARD
    )
    found = {key: p.grad.clone() for key, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    samples = [samples[row] for row in order]
    table = distributions(policy, samples)
    logprobs = table.gather(1, sampled(samples).unsqueeze(1)).squeeze(1)
    assert (logprobs - batch.logprobs).abs().max() <= 1e-5
    topk = {}
    if objective.topk:
        ids = torch.tensor([ids for sample in samples for ids in sample.response.topk_ids or []])
        topk = {"topk_logprobs": table.gather(1, ids).clamp(min=OUTSIDE)}
    plain = replace(batch, logprobs=logprobs, **topk)
    expected = objective(plain).loss.mean()
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    largest = max(float(p.grad.abs().max()) for p in policy.model.parameters() if p.grad is not None)
    for key, parameter in policy.model.named_parameters():
        assert parameter.grad is not None
        assert float((found[key] - parameter.grad).abs().max()) <= 1e-5 * largest + 1e-9, key


def test_a_topk_beyond_the_support_counts_nothing(policy: Policy) -> None:
    """The divergence over K tokens is that over the support where the support has fewer."""
    samples = roll_out(policy, {"top_k": 3}, topk=8)
    with torch.no_grad():
        batch = token_batch(policy, samples, ADVANTAGES, TEMPERATURE)
    assert batch.topk_logprobs is not None and batch.topk_behavior_logprobs is not None
    outside = batch.topk_behavior_logprobs == OUTSIDE
    assert bool((outside.sum(1) == 5).all()) and torch.equal(outside, batch.topk_logprobs == OUTSIDE)
    for name, bound in (("dppo_topk_tv", "delta"), ("dppo_topk_kl", "kl_max")):
        bounds: dict[str, Any] = {bound: 1e-4}
        objective = make_objective(name, **bounds)
        assert bool(
            (objective(batch).loss == -batch.advantages * (batch.logprobs - batch.behavior_logprobs).exp()).all()
        )


def test_a_token_outside_its_support_is_an_error(policy: Policy) -> None:
    (sample, *others) = roll_out(policy, {"top_p": 0.9})
    assert sample.response.support is not None
    shifted = Support.from_rows([[(token + 1) % 20] for token in sample.response.token_ids])
    wrong = replace(sample, response=replace(sample.response, support=shifted))
    with pytest.raises(DataError, match=r"outside their support.*another temperature, top-p"):
        with_proximal_logprobs(policy, [wrong], FORWARD)
    missing = replace(sample, response=replace(sample.response, support=None))
    with pytest.raises(DataError, match=r"has no supports. Truncated sampling must report one"):
        with_proximal_logprobs(policy, [missing, *others], FORWARD)


# ---- whole runs


def run(path: Path, model: Path, *changes: str) -> tuple[RunDirectory, list[str]]:
    config, _ = load_config(None, [f"model={model}", *RUN, *changes])
    observer = Notes()
    train(config, RunDirectory(path), observer)
    return RunDirectory(path), observer.notes


@pytest.mark.parametrize(
    "changes",
    [
        ("top_p=0.7",),
        ("top_p=0.9", "top_k=6", "min_p=0.05", "rollout_lag=1"),
        ("top_k=3", "lora={rank: 2, alpha: 4}"),
        ("min_p=0.3", "objective=dppo_topk_kl", "objective.k=4"),
        ("top_p=0.8", "objective=minirl", "precision=bf16"),
        ("top_p=0.8", "rollout_precision=fp8"),
    ],
)
def test_a_resumed_run_has_the_same_bits(copyist: Path, tmp_path: Path, changes: tuple[str, ...]) -> None:
    whole, notes = run(tmp_path / "whole", copyist, *changes)
    (checked,) = [note for note in notes if "before training |log π − log μ|" in note] or [""]
    if "rollout_lag=1" not in changes:
        assert "with π renormalized over the tokens kept" in checked and changes[0] in checked
    half, _ = run(tmp_path / "half", copyist, *changes, "steps=2")
    train(resumed_config(half, ["steps=4"]), half, resume=True)
    ours, right = outcome(half.path), outcome(whole.path)
    assert ours == right
    config = whole.read_manifest()["config"]
    assert all(f"{key}={config[key]:g}" in changes for key in ("top_p", "top_k", "min_p") if f"{key}=" in str(changes))


def test_without_replay_pi_is_that_of_the_whole_vocabulary(copyist: Path, tmp_path: Path) -> None:
    with_replay, _ = run(tmp_path / "with", copyist, "top_p=0.7", "steps=1")
    without, notes = run(tmp_path / "without", copyist, "top_p=0.7", "steps=1", "support_replay=false")
    assert any("support_replay=false: top_p=0.7 renormalizes μ" in note for note in notes)
    assert any("(support_replay=false), so that the check" in note for note in notes)
    exact, biased = (made.read_metrics("update")[0] for made in (with_replay, without))
    assert exact["mismatch"] <= 1e-5 < 1e-2 < biased["mismatch"]
    assert abs(exact["ratio"] - 1) <= 1e-5 and biased["ratio"] < 0.99


def test_a_support_of_the_whole_vocabulary_changes_no_bit(copyist: Path, tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain", copyist)
    whole, _ = run(tmp_path / "whole", copyist, "top_k=1000000")
    assert outcome(plain.path) == outcome(whole.path)


def test_a_sampler_without_supports_is_refused(copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = InProcessSampler.sample

    def silent(self: InProcessSampler, requests: Any, parameters: SamplingParameters) -> Any:
        return sample(self, requests, replace(parameters, report_support=False))

    monkeypatch.setattr(InProcessSampler, "sample", silent)
    with pytest.raises(ConfigError, match=r"did not report the tokens it drew from for 16 of 16 responses"):
        run(tmp_path / "run", copyist, "top_p=0.9")


def test_the_token_log_carries_supports_and_is_clean(copyist: Path, tmp_path: Path) -> None:
    made, _ = run(tmp_path / "run", copyist, "top_p=0.7", "log_tokens=true")
    for file in made.token_files():
        for record in read_jsonl(file):
            support = Support.from_packed(record["support_sizes"], record["support_ids"])
            assert bool(support.contains(torch.tensor(record["tokens"])).all())
            alone = [
                value for value, size in zip(record["logprobs"], record["support_sizes"], strict=True) if size == 1
            ]
            assert all(value == 0 for value in alone)
    assert not [finding for finding in inspect([made.path]).findings if finding.severity == "fault"]
