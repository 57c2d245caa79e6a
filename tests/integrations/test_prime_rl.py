"""prime-rl's contract for a custom loss, on its documented types."""

import importlib
import math
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch

import drpo
from drpo.errors import ConfigError, DataError
from drpo.integrations.parity import compare, difference, fixed_batch, reference, tolerance
from drpo.integrations.prime_rl import METRICS, drpo_loss
from drpo.integrations.prime_rl import loss as prime_rl
from drpo.integrations.prime_rl.parity import LossInputs, NewerLossInputs, inputs, make_path, step

PATH = make_path()


@pytest.mark.parametrize("name", PATH.objectives)
def test_parity(name):
    assert compare(PATH, {"name": name}, "token_mean").worst <= tolerance(PATH)


def test_the_path_sees_whole_sequence_objectives_too():
    assert {"drpo", "mdpo", "kimi", "gspo", "gmpo"} <= set(PATH.objectives)


def test_parameters_arrive():
    settings = {"name": "drpo", "delta": 0.05}
    assert compare(PATH, settings, "token_mean").worst <= tolerance(PATH)
    assert (
        difference(
            reference(settings, fixed_batch(), "token_mean"), reference({"name": "drpo"}, fixed_batch(), "token_mean")
        )
        > 0.01
    )


def test_loss_weights_multiply_the_loss():
    padded = fixed_batch()
    weights = torch.rand(padded.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.where(padded.mask, weights, math.nan)
    leaf = padded.logprobs.clone().requires_grad_(True)
    total = sum(drpo_loss(inputs(padded, row, leaf[row], weights[row])).loss for row in range(len(leaf)))
    assert isinstance(total, torch.Tensor) and bool(torch.isfinite(total))
    (found,) = torch.autograd.grad(total, leaf)
    plain = step(padded, drpo_loss) * padded.mask.sum()
    assert difference(found, torch.where(padded.mask, plain * weights, 0.0)) <= 1e-9


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_a_step_is_divided_by_the_sum_of_its_weights(micro_batches):
    """Weights of 0 drop tokens, and whole sequences: prime-rl does not call the loss for those."""
    padded = fixed_batch()
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(padded.mask.shape, dtype=torch.float64, generator=generator)
    weights[weights < 0.3] = 0.0
    weights[1] = 0.0
    found = step(padded, drpo_loss, micro_batches, weights)
    plain = step(padded, drpo_loss) * padded.mask.sum()
    expected = torch.where(padded.mask, plain * weights, 0.0) / weights[padded.mask].sum()
    assert difference(found, expected) <= 1e-12


@pytest.mark.parametrize("name", ["drpo", "gspo", "mdpo"])
def test_the_fields_of_either_version_are_taken(name):
    older, newer = (
        step(fixed_batch(), lambda one: drpo_loss(one, objective=name), made=made)
        for made in (LossInputs, NewerLossInputs)
    )
    assert torch.equal(older, newer)


def test_score_centering_reads_the_tokens_that_sampling_left():
    """Three tokens of a state, and of another two beside padding: the gradient of the same batch here."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_(True)
    there = torch.tensor([[True] * 3, [True, False, True]] * 2)
    inside = logits.masked_fill(~there, -torch.inf).log_softmax(1)
    policy = torch.where(there, inside, 0.0)
    sampler = torch.randn(4, 3, generator=generator, dtype=torch.float64).masked_fill(~there, -torch.inf).log_softmax(1)
    advantages = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    given = NewerLossInputs(
        trainer_logprobs=policy[:, 0],
        inference_logprobs=sampler[:, 0],
        ref_logprobs=None,
        advantages=advantages,
        loss_mask=torch.tensor([False, True, True, True]),
        trainer_mask_logprobs=policy,
        inference_mask_logprobs=sampler,
    )
    settings = {"modifiers": ["score_centering"], "delta": 0.1}
    found = torch.autograd.grad(drpo_loss(given, parameters=settings).loss, logits, retain_graph=True)[0]
    batch = drpo.TokenBatch(
        policy[1:, 0],
        sampler[1:, 0],
        advantages[1:],
        topk_logprobs=policy[1:].masked_fill(~there[1:], -1e4),
        topk_behavior_logprobs=sampler[1:].clamp(min=-1e4),
    )
    wanted = torch.autograd.grad(drpo.make_objective("drpo", **settings)(batch).loss.sum(), logits)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert not found[0].any() and found[1:].abs().sum() > 0.1


def test_metrics_are_tensors_of_every_sequence():
    padded = fixed_batch()
    results = [drpo_loss(inputs(padded, row, padded.logprobs[row])) for row in range(len(padded.mask))]
    for result in results:
        assert list(result.metrics) == [f"drpo/{name}" for name in (*METRICS, "left_out_share")]
        assert all(value.dim() == 0 and bool(torch.isfinite(value)) for value in result.metrics.values())
    first = padded.rows(0, 1)
    batch = drpo.TokenBatch.from_padded(first.logprobs, first.behavior_logprobs, first.advantages, first.mask)
    expected = drpo.diagnose(batch, objective=drpo.make_objective("drpo"))
    for name in ("beyond_delta", "mismatch", "corrective_mass"):
        value = float(expected[name].sum / expected[name].count)
        assert float(results[0].metrics[f"drpo/{name}"]) == pytest.approx(value)


def test_a_sequence_without_tokens_has_a_loss_that_can_be_differentiated():
    padded = fixed_batch()
    padded.mask[0] = False
    leaf = padded.logprobs[0].clone().requires_grad_(True)
    result = drpo_loss(inputs(padded, 0, leaf))
    result.loss.backward()
    assert leaf.grad is not None
    assert result.loss.item() == 0.0 and float(leaf.grad.abs().max()) == 0.0
    assert all(bool(torch.isfinite(value)) for value in result.metrics.values())


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"delta": 0.1}, "has no delta"),
        ({"aggregation": "sequence_mean"}, "divides by the weights of the step"),
        ({"objective": "dpro"}, "Did you mean 'drpo'"),
        ({"parameters": {"dleta": 0.1}}, "no parameter 'dleta'"),
        ({"objective": "m2po"}, "once a sequence"),
        ({"objective": "minirl"}, "needs proximal_logprobs"),
        ({"objective": "troll"}, "needs topk_is_sampled"),
        ({"parameters": {"modifiers": ["score_centering"]}}, "no trainer_mask_logprobs"),
    ],
)
def test_settings_are_refused(kwargs, words):
    padded = fixed_batch()
    with pytest.raises(ConfigError, match=words):
        drpo_loss(inputs(padded, 0, padded.logprobs[0]), **kwargs)


def test_missing_log_probabilities_are_refused():
    padded = fixed_batch()
    padded.behavior_logprobs[0, :3] = math.nan
    with pytest.raises(DataError, match=r"prime-rl: \d of \d+ tokens have no log μ"):
        drpo_loss(inputs(padded, 0, padded.logprobs[0]))


def test_it_returns_prime_rls_own_type_where_that_is_installed(monkeypatch):
    @dataclass
    class LossOutputs:
        loss: torch.Tensor
        metrics: dict

    for name in ("prime_rl", "prime_rl.trainer", "prime_rl.trainer.rl", "prime_rl.trainer.rl.loss"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["prime_rl.trainer.rl.loss"], "LossOutputs", LossOutputs, raising=False)
    padded = fixed_batch()
    try:
        found = importlib.reload(prime_rl).drpo_loss(inputs(padded, 0, padded.logprobs[0]))
        assert type(found) is LossOutputs
    finally:
        monkeypatch.undo()
        importlib.reload(prime_rl)
