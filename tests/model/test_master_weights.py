"""What bfloat16 would lose: small updates, and small gradients of later micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from drpo.model.master_weights import MasterWeights
from drpo.model.policy import Policy, load_policy
from drpo.train.update import make_optimizer
from support import tiny

RATE = 1e-6


def slope(parameters: list[nn.Parameter]) -> None:
    """The same gradient for every weight, always."""
    torch.autograd.backward([parameter.sum() for parameter in parameters])


def test_a_rate_of_one_millionth_is_not_lost() -> None:
    """AdamW moves each weight by about the rate. Weights of bfloat16 never move; behind masters they arrive."""
    narrow = tiny.model().bfloat16()
    before = [parameter.detach().clone() for parameter in narrow.parameters()]
    plain: Any = make_optimizer(Policy(narrow, tiny.tokenizer()), RATE, 0.0)
    network = tiny.model()
    policy = Policy(network, tiny.tokenizer(), MasterWeights(network, "bf16"))
    optimizer = make_optimizer(policy, RATE, 0.0)
    started = [master.detach().clone() for master in policy.trained_parameters()]
    for step in range(400):
        for steps, parameters in ((plain, narrow), (optimizer, network)):
            slope(list(parameters.parameters()))
            steps.step()
            steps.zero_grad()
        if step == 0:
            for master, first in zip(policy.trained_parameters(), started, strict=True):
                assert torch.allclose(first - master, torch.tensor(RATE), rtol=0.1)
    large = [parameter.abs() > 0.01 for parameter in before]
    moved = [(a != b) & of for a, b, of in zip(narrow.parameters(), before, large, strict=True)]
    assert sum(int(of.sum()) for of in large) > 1000 and not any(bool(of.any()) for of in moved)
    for (_, parameter), master, first in zip(
        network.named_parameters(), policy.trained_parameters(), started, strict=True
    ):
        assert parameter.dtype == torch.bfloat16 and master.dtype == torch.float32
        assert torch.allclose(first - master, torch.tensor(400 * RATE), rtol=0.1)
        assert torch.equal(parameter, master.bfloat16())
    changed = [p != b for p, b in zip(network.parameters(), before, strict=True)]
    assert sum(int((of & c).sum()) for of, c in zip(large, changed, strict=True)) > 1000


def test_gradients_add_up_in_float32() -> None:
    """A thousandth added a hundred times to one is lost in bfloat16 each time."""
    layer = nn.Linear(1, 1, bias=False)
    masters = MasterWeights(layer, "bf16")
    for amount in (1.0, *[2.0**-10] * 100):
        layer(torch.tensor([[amount]], dtype=torch.bfloat16)).sum().backward()
        assert layer.weight.grad is None
    assert masters.parameters[0].grad is not None and masters.parameters[0].grad.dtype == torch.float32
    assert float(masters.parameters[0].grad) == 1 + 100 * 2.0**-10


def test_what_is_frozen_has_no_master_and_tied_weights_have_one() -> None:
    network = tiny.model()
    network.model.layers[0].requires_grad_(False)
    masters = MasterWeights(network, "bf16")
    assert len(masters.parameters) == len([p for p in network.parameters() if p.requires_grad])
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert network.lm_head.weight is network.model.embed_tokens.weight


def test_the_masters_are_what_is_saved(copyist: Path, tmp_path: Path) -> None:
    policy = load_policy(str(copyist), torch.device("cpu"), "bf16")
    with torch.no_grad():
        for master in policy.trained_parameters():
            master.add_(1e-6)
    held = [parameter.detach().clone() for parameter in policy.model.parameters()]
    with policy.saved_weights():
        policy.model.save_pretrained(tmp_path)
        policy.tokenizer.save_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), held, strict=True))
    again = load_policy(str(tmp_path), torch.device("cpu"))
    assert again.model.dtype == torch.float32
    for saved, master in zip(again.model.parameters(), policy.trained_parameters(), strict=True):
        assert torch.equal(saved, master)
