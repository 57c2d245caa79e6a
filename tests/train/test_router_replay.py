"""The rollout's experts in the trainer: measured, and replayed."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import drpo
from drpo.errors import ConfigError, DataError
from drpo.model.forward import PACKED, ForwardSettings
from drpo.model.policy import Policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from drpo.run_directory import RunDirectory
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grade
from drpo.train import settings
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.gradient import accumulate_gradient, sequences_of, with_proximal_logprobs
from drpo.train.loop import train
from drpo.train.rollout import Sample
from drpo.train.router_replay import MEASURED, replay_routing, routing_mismatch
from support import mixtures, tiny

pytestmark = pytest.mark.slow

EXPERTS: dict[str, Any] = {"num_experts": 16, "num_experts_per_tok": 4}
#: Two groups, and a prompt that comes twice.
REQUESTS = [Request([5, 6, 7, 8, 9], 3, seed=1), Request([4], 2, seed=2), Request([10, 11, 12], 1, seed=3)]


def rounded(model: Any) -> Any:
    """The model with its weights in bfloat16: what a sampler of another precision has."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return twin


def roll_out(sampler: InProcessSampler, requests: Sequence[Request] = REQUESTS) -> list[Sample]:
    parameters = SamplingParameters(max_new_tokens=9, temperature=0.8, report_topk=4, report_experts=True)
    groups = sampler.sample(requests, parameters)
    return [
        Sample(Example("", "", {}), request.prompt_ids, response, "", Grade(1.0, None))
        for request, group in zip(requests, groups, strict=True)
        for response in group
    ]


def configuration(*changes: str) -> TrainConfig:
    return load_config(None, ["temperature=0.8", "max_new_tokens=9", *changes])[0]


def gradients(policy: Policy) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    return found


def close(ours: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    largest = max(float(value.abs().max()) for value in right.values())
    return ours.keys() == right.keys() and all(
        float((ours[key] - right[key]).abs().max()) <= 1e-5 * largest for key in right
    )


def forward(*overrides: str) -> ForwardSettings:
    """The forward passes of :func:`configuration`, on the CPU."""
    return settings.forward_settings(configuration(*overrides), torch.device("cpu"))


def gap(policy: Policy, samples: Sequence[Sample]) -> float:
    """Mean |log π − log μ|, nats."""
    differences = []
    for sample in with_proximal_logprobs(policy, samples, forward()):
        ours, theirs = torch.tensor(sample.proximal_logprobs), torch.tensor(sample.response.behavior_logprobs)
        differences.append((ours - theirs).abs())
    return float(torch.cat(differences).mean())


@pytest.mark.parametrize("name", ["Qwen3MoeConfig", "Qwen3_5MoeTextConfig"])
def test_replay_takes_routing_out_of_the_mismatch(name: str) -> None:
    policy = Policy(mixtures.model(name, num_experts=64, num_experts_per_tok=8), tiny.tokenizer())
    with torch.no_grad():
        for module in policy.model.modules():
            if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):
                module.down_proj.mul_(10)  # so that it matters which expert it is
    sampler = InProcessSampler(rounded(policy.model), {0})
    requests = [Request([3 + (i + j) % 15 for j in range(1 + i)], 6, seed=i) for i in range(10)]
    samples = roll_out(sampler, requests)
    before = routing_mismatch(policy, samples, forward())
    assert 0 < before["routing_mismatch"] < before["routing_mismatch_tokens"] < 0.5
    plain = gap(policy, samples)
    replay_routing(policy, sampler)
    assert routing_mismatch(policy, samples, forward()) == {"routing_mismatch": 0, "routing_mismatch_tokens": 0}
    assert 0 < gap(policy, samples) < 0.5 * plain  # docs/moe.md has the figures


def test_mismatch_counts_the_tokens_of_responses_alone() -> None:
    policy = Policy(mixtures.model(**EXPERTS), tiny.tokenizer())
    samples = roll_out(InProcessSampler(policy.model, {0}))
    assert routing_mismatch(policy, samples, forward()) == {"routing_mismatch": 0, "routing_mismatch_tokens": 0}
    lengths = [len(sample.response.token_ids) for sample in samples]
    given = copy.deepcopy(samples)
    experts = given[0].response.experts
    assert experts is not None
    experts[4, 0] = (experts[4, 0] + 1) % 16  # after the last token of the prompt, one router of two
    experts[5] = (experts[5] + 1) % 16
    experts[:4] = (experts[:4] + 1) % 16  # no token of the response comes from there
    experts[6] = experts[6].flip(-1)  # the same set
    found = routing_mismatch(policy, given, forward("micro_batch_tokens=12"))
    assert found["routing_mismatch"] == pytest.approx(3 / (2 * sum(lengths)))
    assert found["routing_mismatch_tokens"] == pytest.approx(2 / sum(lengths))
    many = [*samples, *samples, *samples, *samples, *samples, samples[0], samples[1], given[0]]
    assert len(many) == MEASURED + 1
    assert routing_mismatch(policy, many, forward())["routing_mismatch"] == 0
    bare = [replace(s, response=replace(s.response, experts=None)) for s in samples]
    assert routing_mismatch(policy, bare, forward()) == {}


def by_hand(policy: Policy, samples: Sequence[Sample], advantages: Sequence[float]) -> dict[str, torch.Tensor]:
    """The gradient of the surrogate, each sequence alone, with gates that are told their experts."""
    gates = [module.gate for module in policy.model.modules() if hasattr(module, "gate")]

    def told(gate: Any, experts: torch.Tensor) -> Any:
        def forward(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            logits = states.reshape(-1, 32) @ gate.weight.T
            weights = logits.gather(1, experts).softmax(1)  # normalized over the chosen
            return logits, weights, experts

        return forward

    for sample, advantage in zip(samples, advantages, strict=True):
        response, length = sample.response, len(sample.response.token_ids)
        assert response.experts is not None
        for index, gate in enumerate(gates):
            gate.forward = told(gate, response.experts[:, index].long())
        ids = torch.tensor([[*sample.prompt_ids, *response.token_ids[:-1]]])
        logits = policy.model(input_ids=ids, use_cache=False).logits[0, -length:]
        logprobs = (logits / 0.8).log_softmax(-1)[torch.arange(length), response.token_ids]
        ratio = (logprobs - torch.tensor(response.behavior_logprobs)).exp()
        (-advantage * ratio.sum() / 9 / len(samples)).backward()
    for gate in gates:
        del gate.forward
    return gradients(policy)


ADVANTAGES = [0.7, -0.3, -0.4, 1.1, -1.1, 0.6]


def routed_at_random(sampler: InProcessSampler) -> list[Sample]:
    """Responses with experts that no router would choose."""
    samples = roll_out(sampler)
    generator = torch.Generator().manual_seed(0)
    for sample in samples:
        assert sample.response.experts is not None
        drawn = [torch.randperm(16, generator=generator)[:4] for _ in range(2 * len(sample.response.experts))]
        sample.response.experts.copy_(torch.stack(drawn).view(-1, 2, 4))
    assert len({len(sample.response.token_ids) for sample in samples}) >= 3
    return samples


@pytest.mark.parametrize("budget", [10_000, 20, 1])
def test_a_replayed_gradient_is_that_of_each_sequence_alone(budget: int) -> None:
    policy = Policy(mixtures.model(norm_topk_prob=True, **EXPERTS), tiny.tokenizer())
    assert policy.way == PACKED
    sampler = InProcessSampler(rounded(policy.model), {0, 6})
    samples = routed_at_random(sampler)
    expected = by_hand(policy, samples, ADVANTAGES)
    replay_routing(policy, sampler)
    config = configuration(f"micro_batch_tokens={budget}")
    accumulate_gradient(
        policy,
        drpo.make_objective("surrogate"),
        samples,
        ADVANTAGES,
        settings.reduction(config),
        settings.forward_settings(config, policy.device),
    )
    found = gradients(policy)
    assert close(found, expected)
    assert all(bool(value.any()) for key, value in found.items() if key.endswith(".gate.weight"))


def test_logits_that_are_no_plain_product_are_replayed_too() -> None:
    policy = Policy(mixtures.model(**EXPERTS), tiny.tokenizer())
    sampler = InProcessSampler(policy.model, {0, 6})
    replay_routing(policy, sampler)
    sequences = sequences_of(routed_at_random(sampler))
    expected, _ = policy.response_logprobs(sequences, 0.8)
    policy.head = None
    found, _ = policy.response_logprobs(sequences, 0.8)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dppo_topk_tv", "cppo", "{name: drpo, modifiers: [entropy_top]}"])
def test_micro_batches_do_not_change_it_on_the_other_ways(name: str) -> None:
    """Whole distributions, two passes, and log-probabilities with their entropy."""
    policy = Policy(mixtures.model(**EXPERTS), tiny.tokenizer())
    sampler = InProcessSampler(rounded(policy.model), {0, 6})
    replay_routing(policy, sampler)
    samples, found = routed_at_random(sampler), []
    for budget in (1, 20, 10_000):
        config = configuration(f"objective={name}", f"micro_batch_tokens={budget}")
        accumulate_gradient(
            policy,
            config.make_objective(),
            samples,
            ADVANTAGES,
            settings.reduction(config),
            settings.forward_settings(config, policy.device),
        )
        found.append(gradients(policy))
    assert close(found[1], found[0]) and close(found[2], found[0]) and any(bool(v.any()) for v in found[0].values())


def test_layers_that_run_again_on_the_way_back_replay_again() -> None:
    policy = Policy(mixtures.model(**EXPERTS), tiny.tokenizer())
    sampler = InProcessSampler(policy.model, {0, 6})
    samples, config = routed_at_random(sampler), configuration()
    replay_routing(policy, sampler)
    surrogate = drpo.make_objective("surrogate")
    accumulate_gradient(
        policy,
        surrogate,
        samples,
        ADVANTAGES,
        settings.reduction(config),
        settings.forward_settings(config, policy.device),
    )
    expected = gradients(policy)
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.replay_routing()
    policy.model.train()  # transformers checkpoints in this mode alone
    runs: list[int] = []
    hook = policy.routers.modules[0].register_forward_hook(lambda *_: runs.append(1))
    accumulate_gradient(
        policy,
        surrogate,
        samples,
        ADVANTAGES,
        settings.reduction(config),
        settings.forward_settings(config, policy.device),
    )
    hook.remove()
    assert len(runs) == 2 and close(gradients(policy), expected)


def test_replay_needs_the_experts_of_every_position() -> None:
    policy = Policy(mixtures.model(**EXPERTS), tiny.tokenizer())
    sampler = InProcessSampler(policy.model, {0})
    (sample, *_) = roll_out(sampler)
    replay_routing(policy, sampler)
    assert sample.response.experts is not None
    for experts, found in ((None, "got none"), (sample.response.experts[1:], "got those of")):
        broken = replace(sample, response=replace(sample.response, experts=experts))
        with pytest.raises(DataError, match=f"needs the experts of .* positions, {found}"):
            with_proximal_logprobs(policy, [broken], forward())


RUN = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=4",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=2",
    "eval_every=0",
    "eval_examples=2",
    "eval_samples=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixtures.save(tmp_path_factory.mktemp("models") / "mixture")


@pytest.mark.parametrize("replay", ["false", "true"])
def test_a_run_says_how_often_the_routing_differs(mixture: Path, tmp_path: Path, replay: str) -> None:
    run = RunDirectory(tmp_path / "run")
    train(load_config(None, [f"model={mixture}", *RUN, f"router_replay={replay}"])[0], run)
    records = run.read_metrics("update")
    assert [record["update"] for record in records] == [0, 1, 0, 1]
    shares = [[record[key] for key in sorted(record) if key.startswith("routing_")] for record in records]
    assert [len(found) for found in shares] == [2, 0, 2, 0]
    assert all(0 <= share <= (0 if replay == "true" else 0.05) for found in shares for share in found)
    (rollouts, *_) = sorted((tmp_path / "run" / "rollouts").iterdir())
    assert "experts" not in json.loads(rollouts.read_text().splitlines()[0])


def test_experts_and_supports_are_replayed_together(mixture: Path, tmp_path: Path) -> None:
    settings = [f"model={mixture}", *RUN, "steps=1", "top_p=0.7", "router_replay=true"]
    found = {}
    for name, changes in {"both": [], "experts alone": ["support_replay=false"]}.items():
        run = RunDirectory(tmp_path / name)
        train(load_config(None, [*settings, *changes])[0], run)
        found[name] = run.read_metrics("update")[0]
    assert found["both"]["mismatch_max"] < 1e-5 and found["both"]["routing_mismatch"] == 0
    assert found["experts alone"]["mismatch"] > 1e-2


def test_replay_is_refused_where_it_would_do_nothing(mixture: Path, copyist: Path, tmp_path: Path) -> None:
    for changes, why in (
        ([f"model={copyist}"], "Qwen3ForCausalLM is dense: it has no routers. Leave router_replay out"),
        ([f"model={mixture}", "sampler.compiled=true"], "InProcessSampler as configured does not report the experts"),
    ):
        with pytest.raises(ConfigError, match=f"router_replay=true: {why}"):
            train(load_config(None, [*RUN, *changes, "router_replay=true"])[0], RunDirectory(tmp_path / "run"))
        assert not (tmp_path / "run").exists()
    run = RunDirectory(tmp_path / "dense")
    train(load_config(None, [*RUN, f"model={copyist}", "steps=1"])[0], run)
    assert not any("routing" in key for record in run.read_metrics("update") for key in record)
