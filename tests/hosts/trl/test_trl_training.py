"""Whole runs: what is logged, what is saved, what a second process changes, and what the sampler samples."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl_two_processes
from datasets import Dataset
from trl_runs import PROMPTS, make_config, make_trainer

import drpo
from drpo.errors import DrpoWarning
from drpo.integrations.trl import DRPOTrainer, InProcessRollouts, host
from drpo.model.policy import load_policy
from support.cpu import has_avx512

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OFF_POLICY = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
}


#: Responses of 8 tokens are all cut off, which is told.
CUT_OFF = pytest.mark.filterwarnings("ignore:step .* rollout batches in a row")


def logged(trainer: DRPOTrainer) -> list[dict[str, Any]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def keep_batches(trainer: DRPOTrainer) -> list[drpo.TokenBatch]:
    """Every batch that the loss is computed on, as it is made."""
    kept: list[drpo.TokenBatch] = []
    make = trainer._under

    def keep(*arguments: Any) -> drpo.TokenBatch:
        kept.append(make(*arguments))
        return kept[-1]

    trainer._under = keep  # pyright: ignore[reportAttributeAccessIssue]
    return kept


def test_what_is_logged_is_exact_over_micro_batches() -> None:
    """Two updates of two micro-batches of unlike length in each line of the log: not a mean of four means."""
    trainer = make_trainer(make_config(**OFF_POLICY, logging_steps=2, max_steps=8, learning_rate=1e-4))
    batches = keep_batches(trainer)
    trainer.train()
    lines = logged(trainer)
    assert len(lines) == 4 and len(batches) == 16
    assert len({len(batch) for batch in batches}) > 1
    for line, start in zip(lines, range(0, 16, 4), strict=True):
        part = batches[start : start + 4]
        pi = torch.cat([batch.logprobs.detach().double() for batch in part])
        mu = torch.cat([batch.behavior_logprobs.double() for batch in part])
        assert line["drpo/mismatch"] == pytest.approx(float((pi - mu).abs().mean()), rel=1e-4)
        assert line["drpo/ratio"] == pytest.approx(float((pi - mu).exp().mean()), rel=1e-4)
        assert line["drpo/ratio_max"] == pytest.approx(float((pi - mu).exp().max()), rel=1e-4)
        assert line["drpo/shift_max"] == pytest.approx(float((pi.exp() - mu.exp()).abs().max()), rel=1e-3)
        entropy = torch.cat([batch.entropy for batch in part if batch.entropy is not None])
        assert line["entropy"] == pytest.approx(float(entropy.mean()), rel=1e-4)


def test_a_rollout_batch_is_fresh_once_and_then_grows_stale() -> None:
    """Four updates a rollout batch: two shares of it, twice."""
    trainer = make_trainer(make_config(**OFF_POLICY, max_steps=8, learning_rate=1e-4))
    trainer.train()
    lines = logged(trainer)
    assert [line["drpo/staleness"] for line in lines] == [0, 1, 2, 3, 0, 1, 2, 3]
    fresh = [line["drpo/mismatch_max"] for line in lines if not line["drpo/staleness"]]
    stale = [line["drpo/mismatch_max"] for line in lines if line["drpo/staleness"]]
    assert max(fresh) < 1e-4 < 1e-2 < min(stale)


def test_where_mu_comes_from_is_in_the_log_and_in_the_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(make_config(output_dir=str(tmp_path), num_iterations=2, save_strategy="steps", save_steps=1))
    trainer.train()
    (statement,) = (entry for entry in trainer.state.log_history if "drpo/mu_source" in entry)
    assert statement["drpo/mu_source"] == "rollout_func InProcessRollouts"
    assert statement["drpo/start_mismatch_max"] < 1e-4
    assert logged(trainer)[0]["drpo/start_mismatch_max"] == statement["drpo/start_mismatch_max"]
    assert '"drpo/mu_source"' in (tmp_path / "checkpoint-1" / "trainer_state.json").read_text()


def test_one_update_a_rollout_batch_is_announced_as_inert() -> None:
    with pytest.warns(DrpoWarning, match=r"r ≡ 1 up to rounding.*steps_per_generation above gradient_accumulation_ste"):
        make_trainer(make_config())
    with warnings.catch_warnings():
        warnings.simplefilter("error", DrpoWarning)
        make_trainer(make_config(num_iterations=2))


@CUT_OFF
def test_a_mu_recomputed_from_the_current_weights_is_noticed() -> None:
    """As a rollout_func would give that is not: the ratio stays 1 although the weights move."""
    trainer = make_trainer(make_config(num_iterations=2, max_steps=6))
    make = trainer._under

    def recomputed(*arguments: Any) -> drpo.TokenBatch:
        batch = make(*arguments)
        return replace(batch, behavior_logprobs=batch.logprobs.detach())

    trainer._under = recomputed  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.warns(DrpoWarning, match=r"1 update\(s\) after sampling: the trust region is inert") as caught:
        trainer.train()
    assert len([w for w in caught if "inert" in str(w.message)]) == 1


def test_bf16_with_gradient_checkpointing_samples_what_it_trains() -> None:
    """TRL's defaults: autocast on both sides, and checkpointing off while the KV cache is in use."""
    trainer = make_trainer(make_config(bf16=True, gradient_checkpointing=True, num_iterations=2, max_steps=4))
    trainer.train()
    # 0.0051 if decoding alone were in float32. What is left, 0.0036, comes from the last product: μ's logits leave the
    # model in bfloat16 (2^-9 of their size), π's are kept as wide as they are summed. Without AVX-512 a CPU
    # sums bfloat16 products in another way: 0.0087 there.
    assert logged(trainer)[0]["drpo/start_mismatch"] < (4.5e-3 if has_avx512() else 1e-2)
    assert trainer.model.is_gradient_checkpointing and trainer.model.training


def test_a_model_by_its_path_is_sampled_from_in_bf16() -> None:
    """TRL's default precision. accelerate wraps the forward before anything was measured of the model."""
    path = Path(drpo.__file__).parent / "assets" / "arithmetic"
    trainer = make_trainer(
        make_config(bf16=True, num_iterations=2, max_steps=4), model=str(path), processing_class=None
    )
    trainer.train()
    assert 0 < logged(trainer)[0]["drpo/start_mismatch"] < 1e-2


def test_a_mixture_of_experts_keeps_its_balancing_loss() -> None:
    """The auxiliary loss is TRL's own; here only that it reaches the gradient, once a micro-batch's share."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(policy.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
        eos_token_id=policy.tokenizer.eos_token_id,
    )
    model = Qwen3MoeForCausalLM(config)
    trainer = make_trainer(
        make_config(num_iterations=2, scale_rewards="none"),
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
    )
    gates = {name: p.detach().clone() for name, p in model.named_parameters() if "gate.weight" in name}
    trainer.train()
    assert logged(trainer)[0]["aux_loss"] > 0
    assert gates and all(not torch.equal(p, dict(model.named_parameters())[name]) for name, p in gates.items())


def test_a_reference_model_and_evaluation_run_too() -> None:
    data = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS[:8]])
    trainer = make_trainer(
        make_config(
            beta=0.1,
            num_iterations=2,
            max_steps=4,
            eval_strategy="steps",
            eval_steps=2,
            eval_on_start=True,
            per_device_eval_batch_size=4,
            learning_rate=1e-4,
        ),
        eval_dataset=data,
    )
    trainer.train()
    assert logged(trainer)[0]["kl"] < 1e-4 < logged(trainer)[-1]["kl"]
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 3
    assert all(entry["eval_drpo/mismatch_max"] < 1e-4 for entry in evaluations)


@CUT_OFF
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    """Saved between two rollout batches (two updates each): the same weights, bit for bit."""
    settings = {"steps_per_generation": 2, "learning_rate": 1e-4, "save_strategy": "steps", "save_steps": 4}
    whole = make_trainer(make_config(output_dir=str(tmp_path / "whole"), max_steps=8, **settings))
    whole.train()
    again = make_trainer(make_config(output_dir=str(tmp_path / "again"), max_steps=8, **settings))
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert [line["reward"] for line in logged(again)[-4::2]] == [line["reward"] for line in logged(whole)[-4::2]]
    for (name, a), b in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def launch(script: Path, *arguments: str) -> None:
    """Two processes on the CPU (`accelerate launch --cpu` starts one, whatever --num_processes says)."""
    paths = [ROOT / "src", ROOT / "tests", ROOT / "tests" / "integrations", HERE]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
    }
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            str(script),
            *arguments,
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    """Two processes × two micro-batches of unlike length against one process × one, and against one × four."""
    launch(HERE / "trl_two_processes.py", str(tmp_path / "two.pt"), "2", "2")
    two, backend = torch.load(tmp_path / "two.pt", weights_only=True)
    assert backend == "gloo"
    for case, (gradient, metrics) in zip(trl_two_processes.CASES, two, strict=True):
        for per_device, accumulation in ((8, 1), (2, 4)):
            expected, same = trl_two_processes.update(case, per_device, accumulation)
            assert float((gradient - expected).abs().max()) <= 2e-6 * float(expected.abs().max()), case
            # The first loss sees the first micro-batch alone.
            kept = {name: value for name, value in same.items() if "start_mismatch" not in name}
            assert {name: metrics[name] for name in kept} == pytest.approx(kept, rel=1e-5, abs=1e-9), case


class Sampled:
    """What InProcessRollouts returned, call by call."""

    def __init__(self) -> None:
        self.rollouts, self.calls = InProcessRollouts(), []

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list]:
        self.calls.append((list(prompts), self.rollouts(prompts, trainer)))
        return self.calls[-1][1]


def test_what_the_sampler_hands_over() -> None:
    """One response a row, a stop token at its end or the limit reached, different within and between groups."""
    sampled = Sampled()
    trainer = make_trainer(
        make_config(
            num_iterations=2, max_steps=4, per_device_train_batch_size=16, num_generations=8, max_completion_length=6
        ),
        rollout_func=sampled,
    )
    trainer.train()
    assert len(sampled.calls) == 2
    seen = set()
    for prompts, out in sampled.calls:
        assert len(prompts) == 16 and all(len(column) == 16 for column in out.values())
        assert prompts == [prompt for prompt in dict.fromkeys(prompts) for _ in range(8)]
        for ids, logprobs in zip(out["completion_ids"], out["logprobs"], strict=True):
            assert len(ids) == len(logprobs) <= 6
            assert not set(ids[:-1]) & set(host.eos_token_ids(trainer))
            assert ids[-1] in host.eos_token_ids(trainer) or len(ids) == 6
        seen |= {tuple(logprobs) for logprobs in out["logprobs"]}
    assert len(seen) > 20


def test_a_conversation_goes_through_the_chat_template() -> None:
    sampled = Sampled()
    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    rows = [{"prompt": [{"role": "user", "content": prompt.strip()}]} for prompt in PROMPTS]
    trainer = make_trainer(
        make_config(num_iterations=2, chat_template_kwargs={}),
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list(rows),
        rollout_func=sampled,
        reward_funcs=lambda completions, **_: [float(len(c[0]["content"])) for c in completions],
    )
    trainer.train()
    prompts, out = sampled.calls[0]
    plain = policy.tokenizer(prompts[0][0]["content"] + "\n", add_special_tokens=False)["input_ids"]
    assert out["prompt_ids"][0][-len(plain) :] == plain


def test_no_two_rollouts_share_their_randomness() -> None:
    """Other steps, processes, evaluations and calls at one step draw other numbers; the same place draws the same."""
    seeds = []
    for seed, training, step, process in (
        (0, True, 0, 0),
        (1, True, 0, 0),
        (0, False, 0, 0),
        (0, True, 1, 0),
        (0, True, 0, 1),
    ):
        trainer = SimpleNamespace(
            model=SimpleNamespace(training=training),
            state=SimpleNamespace(global_step=step),
            args=SimpleNamespace(seed=seed),
            accelerator=SimpleNamespace(process_index=process),
        )
        rollouts, again = InProcessRollouts(), InProcessRollouts()
        for _ in range(2):  # two rollout batches within one update
            requests = rollouts._requests([[1], [1], [2], [1]], trainer)
            assert [(request.prompt_ids, request.count) for request in requests] == [([1], 2), ([2], 1), ([1], 1)]
            assert requests == again._requests([[1], [1], [2], [1]], trainer)
            seeds += [request.seed for request in requests]
    assert len(set(seeds)) == len(seeds) == 30
