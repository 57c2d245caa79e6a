"""What AsyncGRPOTrainer hands its loss: packed rows without padding between sequences, in two layouts.

TRL 1.14 and 1.15 lay the sequences of a row end to end. TRL 1.16 forwards a prefix that sequences share once, and lists
the loss terms beside it: which position predicts which token.

Shapes: ``P`` positions of a process's row, ``N`` trained tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

COMMON = frozenset(
    {
        "input_ids",
        "attention_mask",
        "position_ids",
        "old_log_probs",
        "advantages",
        "global_n_tokens",
        "global_n_forward_tokens",
        "mean_seq_len",
    }
)
ROWS = COMMON | {"completion_mask"}
TREE_KEYS = ("tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k")
TREE = COMMON | {"shift_labels", "token_index", "segment_id", "tree_max_seqlens", *TREE_KEYS}


@dataclass(frozen=True)
class PackedTokens:
    """The trained tokens of a process's row, in the order of their sequences.

    Args:
        model_inputs: of TRL's forward pass.
        index: ``[N]``, of the position among the log-probabilities of that pass.
        token_ids: ``[N]``.
        behavior_logprobs: ``[N]``, log μ; NaN or infinite where the engine gave none.
        advantages: ``[N]``.
        sequence_ids: ``[N]``.
    """

    model_inputs: dict[str, Any]
    index: torch.Tensor
    token_ids: torch.Tensor
    behavior_logprobs: torch.Tensor
    advantages: torch.Tensor
    sequence_ids: torch.Tensor


def unpack(inputs: Mapping[str, Any], head_takes_mask: bool) -> PackedTokens:
    """The tokens of ``inputs``, which have the keys of ``ROWS`` or ``TREE``.

    TRL's head computes log-probabilities where the mask or, from TRL 1.15 on, a label says so: ``head_takes_mask``.
    """
    return _of_tree(inputs) if "token_index" in inputs else _of_rows(inputs, head_takes_mask)


def tokens_and_sequences(inputs: Mapping[str, Any]) -> tuple[float, float]:
    """Trained tokens and sequences of a micro-batch, over all processes."""
    # The host gives sequences only as a mean length, in float32.
    sequences = round(float(inputs["global_n_forward_tokens"][0]) / float(inputs["mean_seq_len"][0]))
    return float(inputs["global_n_tokens"][0]), float(sequences)


def missing_tokens(inputs: Mapping[str, Any]) -> torch.Tensor:
    """How many trained tokens of this process have no log μ, and how many there are: ``[2]``."""
    if "token_index" in inputs:
        trained = inputs["token_index"] >= 0
    else:
        # The first position of a row is predicted by nothing; TRL's loss leaves it out.
        trained = (inputs["completion_mask"] * inputs["attention_mask"]).bool()
        trained = trained & (torch.arange(trained.shape[1], device=trained.device) > 0)
    missing = trained & ~inputs["old_log_probs"].isfinite()
    return torch.stack([missing.sum(), trained.sum()])


def _of_tree(inputs: Mapping[str, Any]) -> PackedTokens:
    row = inputs["attention_mask"].bool()
    terms = inputs["token_index"] >= 0
    labels = inputs["shift_labels"][row]
    index = inputs["token_index"][terms]
    longest = inputs["tree_max_seqlens"][0].tolist()
    return PackedTokens(
        {
            "input_ids": inputs["input_ids"][row].unsqueeze(0),
            "position_ids": inputs["position_ids"][row].unsqueeze(0),
            "shift_labels": labels.unsqueeze(0),
            **{key: inputs[key][inputs[key] >= 0] for key in TREE_KEYS},
            "tree_max_seqlen_q": longest[0],
            "tree_max_seqlen_k": longest[1],
        },
        index,
        labels[index],
        inputs["old_log_probs"][terms],
        inputs["advantages"][terms],
        inputs["segment_id"][terms],
    )


def _of_rows(inputs: Mapping[str, Any], head_takes_mask: bool) -> PackedTokens:
    row = inputs["attention_mask"].bool()
    input_ids, position_ids, mask = (inputs[name][row] for name in ("input_ids", "position_ids", "completion_mask"))
    trained = mask[1:].bool()
    where = {"labels": input_ids, "completion_mask": mask} if head_takes_mask else {}
    model_inputs = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "labels": input_ids.masked_fill(mask == 0, -100),
        **where,
    }
    return PackedTokens(
        {name: values.unsqueeze(0) for name, values in model_inputs.items()},
        trained.nonzero().squeeze(1),
        input_ids[1:][trained],
        inputs["old_log_probs"][row][1:][trained],
        inputs["advantages"][row][1:][trained],
        ((position_ids == 0).cumsum(0) - 1)[1:][trained],
    )
