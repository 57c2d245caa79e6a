"""Gradient checkpointing: the same gradient, from fewer kept tensors, and sampling as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from drpo.errors import ConfigError
from drpo.model.forward import PACKED, PADDED, Sequences
from drpo.model.gradient_checkpointing import checkpoint_activations
from drpo.model.policy import Policy, load_policy
from drpo.rollouts import InProcessSampler, Request, SamplingParameters
from drpo.run_directory import RunDirectory
from drpo.train.config_layers import load_config
from drpo.train.loop import train
from support import tiny

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
#: Two prompts with two responses each, which share their prompt's pass where that is possible.
SEQUENCES = [
    Sequences([5, 6, 7, 9], [8, 9]),
    Sequences([5, 6, 7, 9], [3, 2, 7, 0]),
    Sequences([4, 4], [1, 2]),
    Sequences([4, 4], [6, 0, 9]),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "wide"
    tiny.model(sharpness=4.0, num_hidden_layers=6).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def differentiate(policy: Policy) -> tuple[dict[str, torch.Tensor], int]:
    """The gradient of Σ log π, and the bytes that autograd kept for it beside the parameters."""
    storages: dict[int, torch.UntypedStorage] = {}
    own = {parameter.untyped_storage()._cdata for parameter in policy.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = policy.response_logprobs(SEQUENCES, 0.8)[0].sum()
        kept = sum(storage.nbytes() for storage in storages.values())
    total.backward()
    return {name: parameter.grad for name, parameter in policy.model.named_parameters()}, kept  # pyright: ignore[reportReturnType]


def test_the_gradient_is_the_same_and_less_is_kept(directory: Path) -> None:
    plain, recomputed = load_policy(str(directory), CPU), load_policy(str(directory), CPU, recompute=True)
    assert plain.way == PACKED and recomputed.way == PADDED
    expected, kept = differentiate(plain)
    found, kept_recomputed = differentiate(recomputed)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name
    assert kept_recomputed < kept / 3
    # Padded both do the same operations.
    plain.way = PADDED
    plain.model.zero_grad()
    for name, gradient in differentiate(plain)[0].items():
        assert torch.equal(found[name], gradient), name


def test_sampling_keeps_its_cache_and_its_tokens(directory: Path) -> None:
    def sample(policy: Policy) -> list[Any]:
        parameters = SamplingParameters(max_new_tokens=12)
        return InProcessSampler(policy.model, policy.stop_ids).sample([Request([5, 6, 7], 4, 1)], parameters)

    plain, recomputed = load_policy(str(directory), CPU), load_policy(str(directory), CPU, recompute=True)
    differentiate(recomputed)
    assert sample(recomputed) == sample(plain)
    with torch.no_grad():
        out = recomputed.model.base_model(input_ids=torch.tensor([[1, 2]]), use_cache=True)
    assert out.past_key_values.get_seq_length() == 2
    assert not any(module.training for module in recomputed.model.modules())


def test_a_failed_pass_leaves_the_layers_in_evaluation_mode(directory: Path) -> None:
    policy = load_policy(str(directory), CPU, recompute=True)
    with pytest.raises(IndexError):
        policy.model.base_model(input_ids=torch.tensor([[10**6]]))
    assert not any(module.training for module in policy.model.modules())


def test_a_run_is_the_run_without_it(copyist: Path, tmp_path: Path) -> None:
    records = []
    for name in ("plain", "recomputed"):
        config, _ = load_config(
            None,
            [
                f"model={copyist}",
                "task=copy",
                "task.length=2",
                "prompts_per_step=4",
                "group_size=4",
                "steps=2",
                "updates_per_step=2",
                "max_new_tokens=4",
                "eval_every=0",
                "eval_examples=2",
                "device=cpu",
                "learning_rate=1e-3",
                f"gradient_checkpointing={name == 'recomputed'}".lower(),
            ],
        )
        run = RunDirectory(tmp_path / name)
        train(config, run)
        records.append([(r["loss"], r["gradient_norm"], r["reward"]) for r in run.read_metrics("update")])
    assert torch.allclose(torch.tensor(records[0]), torch.tensor(records[1]), rtol=1e-3, atol=1e-6)


class Dropping(GPT2LMHeadModel):
    """A layer that drops at random, in training mode."""

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        block: Any = self.transformer.h[0]
        forward = block.mlp.forward
        block.mlp.forward = lambda states: torch.dropout(forward(states), 0.5, block.training)


def test_dropout_inside_a_layer_stays_off_and_one_that_the_layer_applies_itself_is_refused() -> None:
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=30, resid_pdrop=0.5)
    torch.manual_seed(0)
    plain = GPT2LMHeadModel(config).eval()
    checkpoint_activations(plain)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(plain.base_model(input_ids=ids)[0], plain.base_model(input_ids=ids)[0])
    with pytest.raises(ConfigError, match=r"computes other hidden states in training mode"):
        checkpoint_activations(Dropping(config).eval())
