"""Trainer and sampler give what a plain pass of each sequence alone gives, or take a slower way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from drpo.errors import ConfigError, DataError, DrpoError, MismatchError
from drpo.model.forward import EQUAL, PACKED, PADDED, SHARED, Sequences
from drpo.model.policy import Policy, load_policy
from drpo.model.start_check import check_passes
from drpo.rollouts import CopySampler, InProcessSampler, Request, SamplingParameters
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from drpo.train.observer import Observer
from support import architectures, tiny

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def plain(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """log π of each response token, by a pass of this sequence alone without cache and padding."""
    ids = torch.tensor([[*prompt, *response]])
    logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return logprobs[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :].unsqueeze(1)).squeeze(1)


def ragged(*lengths: int, responses: int = 2, tokens: int = 6, vocabulary: int = 20) -> list[Sequences]:
    """Sequences with prompts of these ``lengths``, several of each."""
    random = torch.Generator().manual_seed(3)
    found = []
    for length in lengths:
        prompt = torch.randint(3, vocabulary, (length,), generator=random).tolist()
        for more in range(responses):
            response = torch.randint(3, vocabulary, (tokens + more,), generator=random).tolist()
            found.append(Sequences(prompt, response))
    return found


def worst(policy: Policy, sequences: list[Sequences]) -> float:
    """The largest difference of log π from plain passes, in nats."""
    with torch.no_grad():
        found, _ = policy.response_logprobs(sequences, 1.0)
        right = torch.cat([plain(policy.model, list(s.prompt_ids), list(s.token_ids)) for s in sequences])
    return float((found - right).abs().max())


def gradient(policy: Policy, groups: list[list[Sequences]]) -> torch.Tensor:
    """Of the sum of log π over ``groups`` of sequences, with respect to all parameters."""
    policy.model.zero_grad()
    for group in groups:
        policy.response_logprobs(group, 1.0)[0].sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ["gpt_neo", "gpt_neo local", "mpt", "gemma3_text", "qwen2 sliding"])
def test_local_attention_and_ragged_prompts(name: str) -> None:
    policy = Policy(architectures.network(name), tiny.tokenizer())
    sequences = ragged(2, 23, 7)
    assert policy.way in (PADDED, EQUAL)
    assert worst(policy, sequences) <= 1e-5
    together, alone = gradient(policy, [sequences]), gradient(policy, [[sequence] for sequence in sequences])
    assert float((together - alone).abs().max()) <= 1e-4 * float(alone.abs().max())


@pytest.mark.parametrize("name", ["llama rope_type=longrope", "phi3 longrope"])
def test_longrope_beyond_its_original_length(name: str) -> None:
    policy = Policy(architectures.network(name), tiny.tokenizer())
    short, long = ragged(3, 9), ragged(20, 30, 40, tokens=10)  # 32 positions are the first regime
    for sequences in (short, long, short + long, long + short):
        assert worst(policy, sequences) <= 1e-5
    everything = short + long
    together, alone = gradient(policy, [everything]), gradient(policy, [[sequence] for sequence in everything])
    assert float((together - alone).abs().max()) <= 1e-4 * float(alone.abs().max())


def test_sampling_across_longropes_original_length_is_refused_and_on_either_side_is_right() -> None:
    policy = Policy(architectures.network("llama rope_type=longrope"), tiny.tokenizer())
    sampler = InProcessSampler(policy.model, {0})
    with pytest.raises(DataError, match=r"can cross 32 positions.*Lower max_new_tokens to"):
        sampler.sample([Request([5] * 20, 2, 0)], SamplingParameters(max_new_tokens=20))
    asked = [Request([5, 6, 7], 2, 0), Request([7, 8, 9] * 13, 2, 1), Request([4] * 20, 2, 2)]
    groups = sampler.sample(asked, SamplingParameters(max_new_tokens=12))
    with torch.no_grad():
        for request, group in zip(asked, groups, strict=True):
            for response in group:
                right = plain(policy.model, list(request.prompt_ids), response.token_ids)
                assert float((torch.tensor(response.behavior_logprobs) - right).abs().max()) <= 1e-5


def test_dynamic_rope_beyond_its_original_length_is_refused() -> None:
    policy = Policy(architectures.network("llama rope_type=dynamic"), tiny.tokenizer())
    assert worst(policy, ragged(3, 40)) <= 1e-5
    with pytest.raises(DataError, match="dynamic rope scaling"):
        policy.response_logprobs(ragged(70), 1.0)
    with pytest.raises(DataError, match="64 positions"):
        InProcessSampler(policy.model, {0}).sample([Request([5] * 60, 1, 0)], SamplingParameters(max_new_tokens=8))


UNUSUAL = ["mamba", "mamba2", "rwkv", "recurrent_gemma", "falcon alibi", "roberta", "openai-gpt"]


@pytest.mark.parametrize("name", UNUSUAL)
def test_architectures_without_a_usual_cache_are_sampled_and_trained_on(name: str) -> None:
    policy = Policy(architectures.network(name), tiny.tokenizer())
    asked = [Request(list(range(3, 3 + length)), 2, seed=length) for length in (2, 9, 5)]
    groups = InProcessSampler(policy.model, {0}).sample(asked, SamplingParameters(max_new_tokens=8))
    pairs = [(list(r.prompt_ids), out) for r, group in zip(asked, groups, strict=True) for out in group]
    with torch.no_grad():
        found, _ = policy.response_logprobs([Sequences(prompt, out.token_ids) for prompt, out in pairs], 1.0)
        right = torch.cat([plain(policy.model, prompt, out.token_ids) for prompt, out in pairs])
    behavior = torch.tensor([value for _, out in pairs for value in out.behavior_logprobs])
    assert float((found - right).abs().max()) <= 1e-5 and float((behavior - right).abs().max()) <= 1e-5


@pytest.mark.parametrize("name", ["bert bidirectional", "xlnet", "xlm"])
def test_what_is_no_causal_language_model_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"not causal|plain forward pass") as refusal:
        check_passes(architectures.network(name))
    assert "\n" not in str(refusal.value)


def test_a_model_whose_sequences_see_their_batch_is_refused() -> None:
    model = tiny.model()
    model.lm_head.register_forward_hook(lambda *given: given[2] * (1 + 0.1 * (len(given[2]) > 1)))
    with pytest.raises(ConfigError, match="batch of two"):
        check_passes(model)


def test_windows_too_large_to_try_keep_prompts_apart() -> None:
    config = transformers.GPTNeoConfig(
        vocab_size=20,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=2000,
        max_position_embeddings=4000,
        bos_token_id=None,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    passes = check_passes(transformers.AutoModelForCausalLM.from_config(config).eval())
    assert passes.trainer.way == PADDED
    assert all("2000 tokens" in passes.trainer.refused[way] for way in (PACKED, SHARED))
    config.window_size = 4000  # more than any sequence has
    assert check_passes(transformers.AutoModelForCausalLM.from_config(config).eval()).trainer.way in (PACKED, SHARED)


@pytest.fixture(scope="module")
def neo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("neo")
    letters = tiny.tokenizer()
    architectures.network("gpt_neo").save_pretrained(directory)
    letters.save_pretrained(directory)
    return directory


def test_low_precision_hides_no_difference(neo: Path) -> None:
    """The check is made in float32, before the model computes in less; a copy samples in the way of its original."""
    policy = load_policy(str(neo), CPU, "bf16")
    assert policy.model.dtype == torch.bfloat16 and policy.way == PADDED
    assert policy.passes.trainer.difference <= 1e-5
    exact = load_policy(str(neo), CPU)
    copied = CopySampler(exact.model, "bf16", {0})
    assert copied._forward.way == exact.passes.sampler.way


def test_the_check_leaves_random_state_and_modes_alone() -> None:
    model = tiny.model()
    model.train()
    model.model.layers[0].eval()
    torch.manual_seed(7)
    before, modes = torch.random.get_rng_state(), [module.training for module in model.modules()]
    check_passes(model)
    assert torch.equal(before, torch.random.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


def run(overrides: list[str], directory: Path) -> list[str]:
    """Train, and return the notes."""
    notes: list[str] = []

    class Notes(Observer):
        def on_note(self, text: str) -> None:
            notes.append(text)

    config, _ = load_config(None, [*overrides, "eval_examples=2", "eval_samples=1", "eval_every=0", "device=cpu"])
    train(config, RunDirectory(directory), Notes())
    return notes


TINY = ["task=copy", "steps=1", "prompts_per_step=2", "group_size=2", "updates_per_step=1", "max_new_tokens=4"]


def test_a_run_says_and_records_what_was_found(neo: Path, tmp_path: Path) -> None:
    notes = run([f"model={neo}", *TINY], tmp_path / "run")
    assert any(note.startswith("start check: the trainer (padded) is within") for note in notes)
    found = json.loads((tmp_path / "run" / "manifest.json").read_text())["start_check"]
    for side in ("trainer", "sampler"):
        assert found[side]["way"] == "padded" and found[side]["difference"] <= 1e-5
    assert "nats from a plain pass" in found["trainer"]["refused"][SHARED]


@pytest.mark.parametrize(
    ("name", "new_tokens", "word"), [("xlnet", 4, "not causal"), ("phi3 longrope", 40, "longrope")]
)
def test_a_run_that_cannot_be_right_starts_nothing(name: str, new_tokens: int, word: str, tmp_path: Path) -> None:
    architectures.network(name).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(DrpoError, match=word):
        run([f"model={tmp_path / 'model'}", *TINY, f"max_new_tokens={new_tokens}"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


BATCH = ["steps=1", "updates_per_step=1", "eval_every=0"]


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_sampler_at_another_temperature_stops_the_run(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's model: the mean |log π − log μ| is about 0.03 nats, which bf16 and fp8 would explain."""
    settings = [*BATCH, f"precision={precision}"]
    notes = run([*settings, "temperature=0.7"], tmp_path / "right")
    assert any(note.startswith("before training |log π − log μ| is") for note in notes)
    sample = InProcessSampler.sample

    def at_one(self: InProcessSampler, requests: Any, parameters: SamplingParameters) -> Any:
        return sample(self, requests, replace(parameters, temperature=1.0))

    monkeypatch.setattr(InProcessSampler, "sample", at_one)
    with pytest.raises(MismatchError, match="different temperatures"):
        run([*settings, "temperature=0.7"], tmp_path / "wrong")
    manifest = json.loads((tmp_path / "wrong" / "manifest.json").read_text())
    assert manifest["status"] == "failed" and "different temperatures" in manifest["failure"]


def test_the_limit_follows_the_precisions(copyist: Path, tmp_path: Path) -> None:
    settings = [f"model={copyist}", *TINY]
    assert any("at most 0.0002 on average" in note for note in run(settings, tmp_path / "exact"))
    assert any("at most 0.1 on average" in note for note in run([*settings, "rollout_precision=fp8"], tmp_path / "fp8"))
    with pytest.raises(MismatchError, match="above mismatch_limit=1e-07"):
        run([*settings, "rollout_precision=bf16", "mismatch_limit=1e-7"], tmp_path / "strict")
