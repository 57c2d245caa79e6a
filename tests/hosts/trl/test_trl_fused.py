"""The loss from hidden states against the loss from log-probabilities, on the parameters of a real model.

Shapes: ``B`` sequences, ``T`` completion positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOTrainer, __version__  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
from trl_runs import make_config, make_trainer

import drpo
from drpo.integrations.parity import HORIZON, difference, names
from drpo.integrations.trl import DRPOTrainer, fused, host
from drpo.integrations.trl.fused import why_not_fused
from support.cpu import has_avx512

V, TEMPERATURE = 37, 0.7
SIZE = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
PROMPTS, COMPLETIONS = (3, 5, 1, 4), (7, 1, 10, 4)
SIDES = ("_diverging", "_converging", "diverging_share", "diverging_share_positive", "diverging_share_negative")
MODES = ("token_mean", "sequence_mean", "sequence_sum")
OBJECTIVES = [
    *({"name": name} for name in names(("proximal_logprobs",))),
    {"name": "m2po"},
    {"name": "grpo", "anchor": "proximal", "modifiers": ["tis"]},
]


def tiny_model(**settings: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**{**SIZE, "tie_word_embeddings": True, **settings}))
    with torch.no_grad():
        model.lm_head.weight.mul_(20.0)  # distributions that differ
    return model


def trainer_of(model: Any, **settings: Any) -> DRPOTrainer:
    trainer = make_trainer(
        make_config(
            num_iterations=2, mismatch_limit=1e9, max_completion_length=HORIZON, temperature=TEMPERATURE, **settings
        ),
        model=model,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@functools.cache
def exact_trainer() -> DRPOTrainer:
    return trainer_of(tiny_model().double())


@functools.cache
def rollouts() -> dict[str, torch.Tensor]:
    """Ragged prompts on the left, ragged completions on the right; μ and π_old near π and far from it."""
    generator = torch.Generator().manual_seed(1)
    rows, prompt, width = len(PROMPTS), max(PROMPTS), max(COMPLETIONS)
    prompt_mask = torch.arange(prompt) >= prompt - torch.tensor(PROMPTS).unsqueeze(1)
    completion_mask = torch.arange(width) < torch.tensor(COMPLETIONS).unsqueeze(1)
    ids = torch.randint(3, V, (rows, prompt + width), generator=generator)
    inputs = {
        "prompt_ids": ids[:, :prompt] * prompt_mask,
        "prompt_mask": prompt_mask.long(),
        "completion_ids": ids[:, prompt:] * completion_mask,
        "completion_mask": completion_mask.long(),
        "advantages": torch.tensor([1.0, -0.5, 0.25, -2.0], dtype=torch.float64),
        "num_items_in_batch": completion_mask.sum().float(),
    }
    logprobs = whole_logprobs(exact_trainer().model, inputs).detach()

    def near(size: float) -> torch.Tensor:
        noise = size * torch.randn(logprobs.shape, generator=generator, dtype=torch.float64)
        return (logprobs + noise).clamp(max=-1e-3)

    return {**inputs, "sampling_per_token_logps": near(0.5), "old_per_token_logps": near(0.2)}


def whole_logprobs(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """``[B, T]`` from whole logits."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    width = inputs["completion_ids"].shape[1]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1] / TEMPERATURE
    return logits.log_softmax(-1).gather(2, inputs["completion_ids"].unsqueeze(2)).squeeze(2)


def gradients(model: Any, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Of all parameters, in one."""
    model.zero_grad()
    loss().backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])
    model.zero_grad()
    return found


def by_plugin(trainer: DRPOTrainer, settings: Mapping[str, Any], mode: Any, micro_batches: int = 1) -> torch.Tensor:
    """Of the update by the trainer's own loss, micro-batch after micro-batch."""
    trainer.objective, trainer.args.aggregation = drpo.make_objective(**settings), mode
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = micro_batches
    rows, whole = len(PROMPTS) // micro_batches, rollouts()
    parts = [{k: v[i : i + rows] if v.dim() else v for k, v in whole.items()} for i in range(0, len(PROMPTS), rows)]
    return gradients(trainer.model, lambda: sum(trainer._compute_loss(trainer.model, part) for part in parts))  # pyright: ignore


def by_hand(model: Any, settings: Mapping[str, Any], mode: Any) -> torch.Tensor:
    """The same from whole logits, by autograd."""
    inputs = rollouts()

    def loss() -> torch.Tensor:
        batch = drpo.TokenBatch.from_padded(
            whole_logprobs(model, inputs),
            inputs["sampling_per_token_logps"],
            inputs["advantages"],
            inputs["completion_mask"],
            proximal_logprobs=inputs["old_per_token_logps"],
        )
        horizon = HORIZON if mode == "sequence_sum" else None
        return drpo.aggregate(drpo.make_objective(**settings)(batch).loss, batch, mode, horizon=horizon)

    return gradients(model, loss)


@pytest.fixture
def through_logprobs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes the plug-in take TRL's log-probabilities from then on."""
    return lambda: monkeypatch.setattr(fused, "why_not_fused", lambda trainer, inputs: "a test")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The hidden states and LM heads that fused_loss is given."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    usual = fused.fused_loss

    def watched(hidden: torch.Tensor, weight: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        pairs.append((hidden, weight))
        return usual(hidden, weight, *arguments, **keywords)

    monkeypatch.setattr(fused, "fused_loss", watched)
    return pairs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("settings", OBJECTIVES, ids=str)
def test_parameters_get_one_gradient_on_every_path(
    settings: dict[str, Any], mode: str, through_logprobs: Callable[[], None]
) -> None:
    trainer = exact_trainer()
    counts = (1, 2) if drpo.make_objective(**settings).sequence_local else (1,)
    expected = by_hand(trainer.model, settings, mode)
    assert float(expected.abs().max()) > 0
    for count in counts:
        assert difference(by_plugin(trainer, settings, mode, count), expected) <= 1e-9
        assert trainer.loss_path == "fused"
    through_logprobs()
    # TRL's head computes in float32, whatever the model does.
    for count in counts:
        assert difference(by_plugin(trainer, settings, mode, count), expected) <= 1e-5
        assert trainer.loss_path == "a test"


def test_the_rest_of_a_run_is_the_same(through_logprobs: Callable[[], None]) -> None:
    """Loss, gradient norm and every metric of four updates of two micro-batches, with accelerate's own backward."""
    logs = []
    for _ in range(2):
        torch.manual_seed(0)
        trainer = make_trainer(
            make_config(
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                steps_per_generation=4,
                num_iterations=2,
                max_steps=4,
                learning_rate=1e-4,
                max_grad_norm=0.05,
                temperature=TEMPERATURE,
                aggregation="token_mean",
            )
        )
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
        through_logprobs()
    assert len(logs[0]) == 4
    for ours, theirs in zip(*logs, strict=True):
        assert ours.keys() == theirs.keys()
        for name in sorted(set(ours) - {"step_time"}):
            # Where π is μ up to rounding, so is the side that a token is on.
            if not ours["drpo/staleness"] and name.endswith(SIDES):
                continue
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4, abs=2e-6), name


def test_prompt_and_padding_never_enter_the_head(seen: list, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = exact_trainer()
    monkeypatch.setattr(trainer.model.lm_head, "forward", lambda states: pytest.fail("the LM head was called"))
    by_plugin(trainer, {"name": "drpo"}, "token_mean", 2)
    assert [len(hidden) for hidden, _ in seen] == [sum(COMPLETIONS[:2]), sum(COMPLETIONS[2:])]


def test_a_frozen_head_gets_no_gradient_and_the_rest_its_own() -> None:
    model = tiny_model(tie_word_embeddings=False).double()
    model.lm_head.weight.requires_grad_(False)
    trainer = trainer_of(model)
    found = by_plugin(trainer, {"name": "drpo"}, "sequence_mean")
    assert trainer.loss_path == "fused" and model.lm_head.weight.grad is None
    assert difference(found, by_hand(model, {"name": "drpo"}, "sequence_mean")) <= 1e-9


def test_evaluation_makes_no_gradient(seen: list) -> None:
    trainer = exact_trainer()
    with torch.no_grad():
        loss = trainer._compute_loss(trainer.model, rollouts())
    ((hidden, weight),) = seen
    assert not (hidden.requires_grad or weight.requires_grad or loss.requires_grad)


def test_a_micro_batch_without_tokens_trains_nothing() -> None:
    inputs = rollouts()
    nothing = {**inputs, "completion_mask": torch.zeros_like(inputs["completion_mask"])}
    trainer = exact_trainer()
    trainer.objective = drpo.make_objective("drpo")
    found = gradients(trainer.model, lambda: trainer._compute_loss(trainer.model, nothing))
    assert trainer.loss_path == "fused" and len(found) and float(found.abs().max()) == 0.0


@pytest.mark.parametrize("wide", [False, True])
def test_autocast(wide: bool, seen: list, through_logprobs: Callable[[], None]) -> None:
    """bfloat16 activations and float32 weights; also with a head that TRL keeps out of it."""
    trainer = trainer_of(tiny_model(tie_word_embeddings=False), bf16=True, cast_lm_head_to_fp32=wide)
    found = by_plugin(trainer, {"name": "surrogate"}, "token_mean")
    assert [x.dtype for x in seen[0]] == [torch.float32 if wide else torch.bfloat16] * 2
    if wide and hasattr(GRPOTrainer, host.FORWARD_METHOD_BEHIND):
        return  # TRL 1.14 casts its head to float32, and autocast casts it back
    through_logprobs()
    # Two roundings to bfloat16 (2^-8 each) apart; 0.0075 on a CPU without AVX-512, whose sums are narrower, and 0.0066
    # with TRL 1.15, whose head runs in Triton's interpreter here.
    narrow = 5e-3 if has_avx512() and not __version__.startswith("1.15.") else 1e-2
    assert difference(found, by_plugin(trainer, {"name": "surrogate"}, "token_mean")) <= (1e-5 if wide else narrow)


CAPPED = Gemma2Config(**{**SIZE, "final_logit_softcapping": 30.0})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 0.1}, "beta ≠ 0"),
        ({"entropy_coef": 0.1}, "entropy_coef ≠ 0"),
        (
            {"objective_parameters": {"modifiers": [{"name": "entropy_top", "fraction": 0.5}]}},
            "the entropy of this very",
        ),
        (
            {"objective": "grpo", "objective_parameters": {"anchor": "proximal", "modifiers": ["tis"]}},
            "anchored on π_old",
        ),
    ],
)
def test_why_a_setting_needs_logprobs(settings: dict[str, Any], says: str) -> None:
    trainer = make_trainer(make_config(num_iterations=2, **settings))
    assert says in str(why_not_fused(trainer, {}))


def test_why_a_model_needs_logprobs(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tiny_model())
    assert why_not_fused(trainer, rollouts()) is None
    assert "inputs beyond token ids" in str(why_not_fused(trainer, {"pixel_values": torch.ones(1)}))
    assert "soft cap" in str(why_not_fused(trainer_of(Gemma2ForCausalLM(CAPPED)), {}))
    assert "fp16" in str(why_not_fused(trainer_of(tiny_model().half()), {}))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "is_fsdp_enabled", True)
        assert "sharded or compiled" in str(why_not_fused(trainer, {}))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "model_wrapped", torch.compile(trainer.model))
        assert "sharded or compiled" in str(why_not_fused(trainer, {}))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "aux_loss_enabled", True)
        assert "mixture of experts" in str(why_not_fused(trainer, {}))
