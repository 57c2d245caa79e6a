"""The loss inside SkyRL's worker: parity, every reduction SkyRL has, metrics, a real model, the workers' processes."""

import importlib
import sys
from types import ModuleType

import cloudpickle
import pytest
import torch
from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch
from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry
from skyrl.backends.skyrl_train.workers.worker_utils import TokenBasedBatchIterator
from skyrl.train.config import AlgorithmConfig

import drpo
from drpo.errors import ConfigError, DataError
from drpo.integrations.parity import BEYOND_DEFAULTS, compare, difference, effect, fixed_batch, reference, tolerance
from drpo.integrations.skyrl import METRICS, NAME, DRPOAlgorithmConfig, drpo_policy_loss, register
from drpo.integrations.skyrl.parity import Logprobs, cpu_for_cuda, make_path, training_batch, worker

PATH = make_path()
#: ``[start, end)`` of the rows that share a prompt.
PROMPTS = [(0, 3), (3, 4), (4, 8)]


@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize("name", PATH.objectives)
def test_parity(name, mode):
    assert compare(PATH, {"name": name}, mode).worst <= tolerance(PATH)


def test_the_path_sees_every_homogeneous_objective():
    assert {"drpo", "grpo", "spo", "dppo_tv", "minirl", "gspo"} <= set(PATH.objectives)
    assert not {"mdpo", "kimi", "m2po"} & set(PATH.objectives)


@pytest.mark.parametrize("settings", BEYOND_DEFAULTS)
def test_parameters_and_modifiers_arrive(settings):
    assert compare(PATH, settings, "token_mean").worst <= tolerance(PATH)
    assert effect(settings) > 0.01


def test_an_objective_over_the_whole_update_in_one_micro_batch():
    expected = reference({"name": "m2po"}, fixed_batch(), "token_mean")
    assert difference(PATH.gradient({"name": "m2po"}, fixed_batch(), "token_mean"), expected) <= 1e-6


def weighted(padded, weight):
    """``[B, T]``: the gradient of Σ weight · loss, by us."""
    leaf = padded.logprobs.clone().requires_grad_(True)
    batch = drpo.TokenBatch.from_padded(leaf, padded.behavior_logprobs, padded.advantages, padded.mask)
    loss = drpo.make_objective("drpo")(batch).loss
    return torch.autograd.grad((loss * weight[padded.mask]).sum(), leaf)[0]


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_prompt_mean(micro_batches):
    padded = fixed_batch()
    weight = torch.zeros_like(padded.logprobs)
    for start, end in PROMPTS:
        weight[start:end] = 1 / (len(PROMPTS) * padded.mask[start:end].sum())
    found, _ = PATH.step({"name": "drpo"}, padded, "prompt_mean", micro_batches, prompt_boundaries=PROMPTS)
    assert difference(found, weighted(padded, weight)) <= 1e-6


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_token_mean_legacy_is_a_mean_of_the_micro_batches_means(micro_batches):
    padded = fixed_batch()
    weight = torch.zeros_like(padded.logprobs)
    size = len(padded.mask) // micro_batches
    for start in range(0, len(padded.mask), size):
        rows = slice(start, start + size)
        weight[rows] = 1 / (micro_batches * padded.mask[rows].sum())
    found, _ = PATH.step({"name": "drpo"}, padded, "token_mean_legacy", micro_batches)
    assert difference(found, weighted(padded, weight)) <= 1e-6


def test_micro_batches_by_tokens_and_those_of_padding_alone(monkeypatch):
    padded = fixed_batch()
    algorithm = DRPOAlgorithmConfig(temperature=1.0, use_kl_loss=False)
    # What a rank gets whose neighbor has more micro-batches than itself.
    monkeypatch.setattr(TokenBasedBatchIterator, "_sync_num_microbatches", lambda self: len(self._microbatches) + 2)
    model = Logprobs(torch.cat([padded.logprobs, torch.zeros(120 - 8, 24, dtype=torch.float64)]))
    with cpu_for_cuda():
        output = worker(model, algorithm, 8, max_tokens=60).forward_backward(training_batch(padded, algorithm, 8))
    assert output.metrics["num_padding_microbatches"] == 2
    expected = reference({"name": "drpo"}, padded, "token_mean")
    assert model.table.grad is not None
    assert difference(model.table.grad[:8], expected) <= 1e-6
    assert float(model.table.grad[8:].abs().max()) == 0.0


def test_metrics_keep_their_names_and_their_extremes():
    settings, padded = {"name": "drpo"}, fixed_batch()
    whole = PATH.step(settings, padded, "token_mean")[1]
    split = PATH.step(settings, padded, "token_mean", 4)[1]
    names = {f"loss_metrics/drpo/{name}" for name in (*METRICS, "left_out_share")}
    assert names == {name for name in whole if name.startswith("loss_metrics/")}
    for name in ("ratio_min", "ratio_max", "shift_max", "mismatch_max"):
        assert split[f"loss_metrics/drpo/{name}"] == whole[f"loss_metrics/drpo/{name}"]
    expected = drpo.diagnose(
        drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)
    )
    beyond = expected["beyond_delta"]
    assert whole["loss_metrics/drpo/beyond_delta"] == pytest.approx(float(beyond.sum / beyond.count))


def test_an_empty_micro_batch_reports_the_same_names():
    row = torch.full((2, 3), -1.0)
    empty, found = drpo_policy_loss(
        row.clone().requires_grad_(True), None, row, DRPOAlgorithmConfig(), torch.zeros(2, 3), row
    )
    full = drpo_policy_loss(row, None, row, DRPOAlgorithmConfig(), torch.ones(2, 3), row)[1]
    empty.backward()
    assert empty.item() == 0.0
    assert list(found) == list(full)


def test_missing_log_probabilities_stop_the_run():
    row = torch.full((2, 3), -1.0)
    with pytest.raises(ConfigError, match=r"rollout_logprobs.*logprobs=1"):
        drpo_policy_loss(row, row, row, DRPOAlgorithmConfig(), torch.ones(2, 3))
    with pytest.raises(ConfigError, match="needs old_log_probs"):
        drpo_policy_loss(row, None, row, DRPOAlgorithmConfig(objective="minirl"), torch.ones(2, 3), row)
    with pytest.raises(DataError, match="SkyRL: 6 of 6 tokens have no log μ"):
        drpo_policy_loss(row, row, row, DRPOAlgorithmConfig(), torch.ones(2, 3), row * float("nan"))
    with pytest.raises(ConfigError, match="DRPOAlgorithmConfig"):
        drpo_policy_loss(row, row, row, AlgorithmConfig(), torch.ones(2, 3), row)  # pyright: ignore


@pytest.fixture
def model_wrapper(monkeypatch):
    """SkyRL's model wrapper; it imports flash-attn, which needs CUDA, for packed rows, which are not used here."""
    for name in ("flash_attn", "flash_attn.bert_padding"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    stub = sys.modules["flash_attn.bert_padding"]
    monkeypatch.setattr(stub, "pad_input", None, raising=False)
    monkeypatch.setattr(stub, "unpad_input", None, raising=False)
    return importlib.import_module("skyrl.backends.skyrl_train.workers.model_wrapper").HFModelWrapper


def small_transformer():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return Qwen2ForCausalLM(config)


def test_a_real_model_learns_in_the_real_worker(model_wrapper):
    """SkyRL's own model wrapper around a small transformer: what is rewarded becomes likelier, and π starts at μ."""
    model = model_wrapper(small_transformer(), bf16=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    algorithm = DRPOAlgorithmConfig(temperature=1.0, use_kl_loss=False)
    rows, width = 8, 5
    sequences = torch.randint(1, 32, (rows, 4 + width))
    attention = torch.ones_like(sequences)
    advantages = torch.tensor([1.0, -1.0] * 4).unsqueeze(1).expand(rows, width) / (rows * width)
    with torch.no_grad():
        mu = model(sequences, width, attention, temperature=1.0)
    data = TrainingInputBatch(
        {
            "sequences": sequences,
            "attention_mask": attention,
            "response_mask": torch.ones(rows, width).long(),
            "loss_mask": torch.ones(rows, width),
            "advantages": advantages,
            "rollout_logprobs": mu,
        }
    )
    data.metadata = {"response_length": width}
    made = worker(model, algorithm, 4)
    metrics = []
    with cpu_for_cuda():
        for _ in range(10):
            optimizer.zero_grad()
            metrics.append(made.forward_backward(data).metrics)
            optimizer.step()
    with torch.no_grad():
        moved = (model(sequences, width, attention, temperature=1.0).exp() - mu.exp()).mean(1)
    assert metrics[0]["loss_metrics/drpo/mismatch_max"] <= 1e-5
    assert metrics[-1]["loss_metrics/drpo/shift"] > 1e-3
    assert bool((moved[0::2] > 0).all()) and bool((moved[1::2] < 0).all())


@pytest.mark.skipif(
    not hasattr(AlgorithmConfig(), "enable_sample_support_replay"), reason="SkyRL has no replay before 0.4"
)
@pytest.mark.parametrize("replay", [True, False])
def test_replay_puts_truncated_sampling_into_pi(replay, model_wrapper):
    """Tokens of top-k, top-p and min-p sampling: π at fresh weights is μ with SkyRL's replay, and is not without."""
    from skyrl.backends.skyrl_train.utils.packed_tensor import PackedTensor

    rows, prompt, width, top_k = 6, 4, 5, 8
    transformer = small_transformer()
    with torch.no_grad():
        transformer.lm_head.weight.mul_(40)  # far from uniform, so that top-p and min-p remove tokens
    sequences = torch.randint(1, 32, (rows, prompt))
    mu, support = [], []
    for _ in range(width):
        with torch.no_grad():
            logits = transformer(sequences).logits[:, -1]
        values, tokens = logits.sort(descending=True)
        share = values.softmax(1)
        kept = (share.cumsum(1) - share < 0.9) & (share > 0.02 * share[:, :1]) & (torch.arange(32) < top_k)
        kept_values = values.where(kept, -torch.inf)
        chosen = torch.multinomial(kept_values.softmax(1), 1)
        mu.append(kept_values.log_softmax(1).gather(1, chosen))
        support.append(tokens.where(kept, -1)[:, :top_k].int())
        sequences = torch.cat([sequences, tokens.gather(1, chosen)], 1)
    sizes = (torch.stack(support) >= 0).sum(-1)
    assert int(sizes.min()) < int(sizes.max()) <= top_k
    segments = [torch.stack([step[row] for step in support]) for row in range(rows)]
    data = TrainingInputBatch(
        {
            "sequences": sequences,
            "attention_mask": torch.ones_like(sequences),
            "response_mask": torch.ones(rows, width).long(),
            "loss_mask": torch.ones(rows, width),
            "advantages": torch.ones(rows, width) / (rows * width),
            "rollout_logprobs": torch.cat(mu, 1),
            "rollout_sample_support": PackedTensor.from_segments(segments),
        }
    )
    data.metadata = {"response_length": width}
    algorithm = DRPOAlgorithmConfig(temperature=1.0, use_kl_loss=False, enable_sample_support_replay=replay)  # pyright: ignore
    made = worker(model_wrapper(transformer, bf16=False), algorithm, 3)
    with cpu_for_cuda():
        mismatch = made.forward_backward(data).metrics["loss_metrics/drpo/mismatch_max"]
    assert mismatch <= 1e-5 if replay else mismatch > 0.01


def test_the_loss_travels_by_cloudpickle():
    register()
    register()
    again = cloudpickle.loads(cloudpickle.dumps(PolicyLossRegistry.get(NAME)))
    row = torch.full((2, 3), -1.0)
    inputs = (row, None, row, DRPOAlgorithmConfig(), torch.ones(2, 3), row)
    assert torch.equal(again(*inputs)[0], drpo_policy_loss(*inputs)[0])
