"""TRL's loss path for the parity table: a real DRPOTrainer's `_compute_loss`, on log-probabilities that are leaves.

Only the transformer is replaced, by a table that gives either what TRL's forward pass returns, log-probabilities, or
hidden states that have them, so that everything that TRL and the plug-in do between the model and the loss is as in a
run.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from trl import __version__  # pyright: ignore[reportAttributeAccessIssue]

from drpo.aggregation import Mode
from drpo.integrations.parity import HORIZON, LENGTHS, HostPath, Padded, names
from drpo.integrations.trl import DRPOConfig, DRPOTrainer, InProcessRollouts
from drpo.model.policy import load_policy

PROMPT_LENGTH = 3


class TRLPath:
    """A :class:`drpo.integrations.parity.HostPath`."""

    host = "TRL"
    version = __version__
    dtype = torch.float64
    modes: tuple[Mode, ...] = ("token_mean", "sequence_mean", "sequence_sum")
    objectives = tuple(names(("proximal_logprobs",)))

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        trainer = trainer_for(json.dumps(dict(settings)), mode)
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = micro_batches
        leaf = padded.logprobs.clone().requires_grad_(True)
        tokens = padded.mask.sum().to(torch.float32)
        size = len(padded.mask) // micro_batches
        for index, part in enumerate(padded.micro_batches(micro_batches)):
            rows = leaf[index * size : (index + 1) * size]
            trainer._compute_loss(table(rows), inputs_of(part, tokens)).backward()
        assert leaf.grad is not None
        return leaf.grad


@functools.cache
def trainer_for(settings: str, mode: Mode) -> DRPOTrainer:
    """A trainer of that objective, made once. The fixed batch is far off policy, hence no limit at the first loss."""
    parameters = json.loads(settings)
    config = DRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="drpo-parity-"),
        objective=parameters.pop("name"),
        objective_parameters=parameters,
        aggregation=mode,
        mismatch_limit=1e9,
        max_completion_length=HORIZON,
        num_iterations=2,
        per_device_train_batch_size=len(LENGTHS),
        num_generations=2,
        max_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
    )
    policy = load_policy("embedded:arithmetic", torch.device("cpu"))
    trainer = DRPOTrainer(
        args=config,
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "1 + 1\n"}] * len(LENGTHS)),
        rollout_func=InProcessRollouts(),
    )
    trainer.model.train()
    return trainer


#: The LM head of two tokens under which a hidden state of width 1 is the log-odds of the second.
HEAD = torch.tensor([[0.0], [1.0]], dtype=torch.float64)


def table(logprobs: torch.Tensor, entropy: torch.Tensor | None = None) -> Any:
    """A stand-in for the model: log-probabilities ``[B, T]`` for the completions, as TRL or the plug-in asks for them.

    ``entropy`` is for TRL's way; hidden states have their own.
    """
    outputs = SimpleNamespace(
        log_probs=after_prompt(logprobs),
        aux_loss=None,
        entropy=after_prompt(torch.ones_like(logprobs) if entropy is None else entropy),
    )

    def forward(*, of_hidden: Any = None, **_: Any) -> Any:
        possible = logprobs.where(logprobs < 0, -1.0)  # padding holds anything
        odds = possible - torch.log(-torch.expm1(possible))
        after = torch.nn.functional.pad(after_prompt(odds), (0, 1), value=torch.nan)  # nothing is predicted there
        if of_hidden is None:
            outputs.logits = after.unsqueeze(2) * HEAD.T.squeeze(0)  # what TRL 1.14 reads
            return outputs
        return of_hidden(after.unsqueeze(2), HEAD)

    return forward


def after_prompt(values: torch.Tensor) -> torch.Tensor:
    """``[B, T]`` → one for each position but the first: NaN within the prompt, where nothing may look."""
    return torch.nn.functional.pad(values, (PROMPT_LENGTH - 1, 0), value=torch.nan)


def inputs_of(part: Padded, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What TRL hands the loss for ``part`` of a rollout batch of that many ``tokens``."""
    rows, width = part.mask.shape
    return {
        "prompt_ids": torch.ones(rows, PROMPT_LENGTH, dtype=torch.int64),
        "prompt_mask": torch.ones(rows, PROMPT_LENGTH, dtype=torch.int64),
        "completion_ids": torch.ones(rows, width, dtype=torch.int64),
        "completion_mask": part.mask.long(),
        "advantages": part.advantages,
        "num_items_in_batch": tokens,
        "old_per_token_logps": part.proximal_logprobs,
        "sampling_per_token_logps": part.behavior_logprobs,
    }


def make_path() -> HostPath:
    """The path that the parity table measures."""
    return TRLPath()
