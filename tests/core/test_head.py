"""`plain_head` on small models of transformers: only where logits are hidden · weightᵀ may they be left out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from drpo.kernels.head import plain_head

transformers = pytest.importorskip("transformers")

SIZE = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


def make(architecture: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**{**SIZE, **settings})
    return getattr(transformers, f"{architecture}ForCausalLM")(config).eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "Qwen3"},
        {"architecture": "Qwen3", "tie_word_embeddings": True},
        {"architecture": "Llama", "attention_dropout": 0.5},
        {"architecture": "Gemma2", "final_logit_softcapping": None},
        {"architecture": "Granite", "logits_scaling": 1.0},
        {"architecture": "GPTNeoX"},
    ],
    ids=str,
)
def test_a_plain_head(settings: dict[str, Any]) -> None:
    model = make(**settings).train()
    weight = plain_head(model)
    assert weight is not None and weight is model.get_output_embeddings().weight
    assert not any(module._forward_hooks for module in model.modules())
    ids = torch.tensor([[3, 1, 4]])
    model.eval()
    found = model.base_model(input_ids=ids).last_hidden_state @ weight.T
    torch.testing.assert_close(found, model(input_ids=ids).logits)


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "Gemma2", "final_logit_softcapping": 30.0},
        {"architecture": "Granite", "logits_scaling": 8.0},
        {"architecture": "Cohere", "logit_scale": 0.0625},
        {"architecture": "Phi"},  # a bias
    ],
    ids=str,
)
def test_a_head_that_does_more(settings: dict[str, Any]) -> None:
    assert plain_head(make(**settings)) is None


def test_a_scale_in_place_is_seen() -> None:
    model = make("Qwen3")
    usual = model.forward

    def scaled(*arguments: Any, **keywords: Any) -> Any:
        output = usual(*arguments, **keywords)
        output.logits.mul_(2.0)
        return output

    model.forward = scaled
    assert plain_head(model) is None


def test_a_scale_before_the_head_is_seen() -> None:
    model = make("Qwen3")
    model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 2,))
    assert plain_head(model) is None


def test_an_adapted_head_is_not_plain() -> None:
    class Adapted(torch.nn.Linear):
        pass

    model = make("Qwen3")
    model.lm_head = Adapted(16, 31, bias=False)
    assert plain_head(model) is None


def test_a_model_in_bfloat16_and_under_autocast() -> None:
    model = make("Qwen3")
    with torch.autocast("cpu", torch.bfloat16):
        assert plain_head(model) is model.lm_head.weight
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    assert plain_head(narrow) is narrow.lm_head.weight
