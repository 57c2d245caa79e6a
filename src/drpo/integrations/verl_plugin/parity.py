"""verl's own loss path for the parity tests: ``ppo_loss`` on the jagged TensorDicts that its workers hand over.

Micro-batches are cut by verl's ``prepare_micro_batches``, each is differentiated by itself, and data-parallel ranks
are averaged, which is what verl's FSDP engine does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.utils.losses import ppo_loss

from drpo.aggregation import MODES, Mode
from drpo.integrations.parity import HORIZON, PROMPTS, Padded, names
from drpo.integrations.verl_plugin.composition import composed, instantiated

#: Our aggregation → verl's.
VERL_MODES = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "sequence_sum": "seq-mean-token-sum-norm",
}


@functools.cache
def _composed(mode: Mode) -> Any:
    scale = [f"actor_rollout_ref.actor.loss_scale_factor={HORIZON}"] if mode == "sequence_sum" else []
    return composed([f"actor_rollout_ref.actor.loss_agg_mode={VERL_MODES[mode]}", *scale])


def config_for(settings: Mapping[str, Any], mode: Mode, **section: Any) -> Any:
    """verl's ActorConfig for an objective's settings. The batches here are far from on-policy on purpose."""
    parameters = {key: value for key, value in settings.items() if key != "name"}
    made = {"objective": settings["name"], "parameters": parameters, "mismatch_limit": 100.0, **section}
    return instantiated(_composed(mode).copy(), **made)


def jagged(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def to_tensordict(padded: Padded, **extra: torch.Tensor) -> TensorDict:
    """The rows of ``padded`` (and of ``extra``, ``[B, T]``) without their padding, as a worker receives them."""
    kept = padded.kept_lengths()
    prompts = [torch.zeros(PROMPTS[i % len(PROMPTS)], dtype=torch.int64) for i in range(len(kept))]

    def rows(values: torch.Tensor) -> torch.Tensor:
        return jagged([row[:length] for row, length in zip(values, kept, strict=True)])

    return tu.get_tensordict(
        {
            "prompts": jagged(prompts),
            "responses": rows(padded.mask.long()),
            "response_mask": rows(padded.mask.long()),
            "old_log_probs": rows(padded.behavior_logprobs),
            "advantages": rows(padded.advantages.unsqueeze(1).expand(padded.mask.shape)),
            **{key: rows(value) for key, value in extra.items()},
        }
    )


def model_output(data: TensorDict, leaf: torch.Tensor) -> torch.Tensor:
    """What the model returns for the rows of ``leaf`` ``[b, T]``: jagged, prompts included, one token early."""
    rows = []
    lengths = zip(data["prompts"].offsets().diff(), data["responses"].offsets().diff(), strict=True)
    for row, (prompt, response) in zip(leaf, lengths, strict=True):
        before, after = torch.full((int(prompt) - 1,), -3.0), torch.full((1,), -7.0)
        rows.append(torch.cat([before.to(leaf), row[: int(response)], after.to(leaf)]))
    return jagged(rows)


@dataclass
class VerlPath:
    """A :class:`drpo.integrations.parity.HostPath`.

    Args:
        ranks: the data-parallel ranks that the rows are dealt to.
    """

    host: str = "verl"
    version: str = version("verl")
    dtype: torch.dtype = torch.float64
    modes: tuple[Mode, ...] = MODES  # pyright: ignore[reportAssignmentType]
    objectives: tuple[str, ...] = tuple(names())
    ranks: int = 1

    def gradient(self, settings: Mapping[str, Any], padded: Padded, mode: Mode, micro_batches: int = 1) -> torch.Tensor:
        return self.gradient_with(config_for(settings, mode), padded, micro_batches)

    def gradient_with(self, config: Any, padded: Padded, micro_batches: int = 1) -> torch.Tensor:
        """The same with an ActorConfig of one's own."""
        leaf = padded.logprobs.clone().requires_grad_(True)
        size = len(padded.mask) // self.ranks
        for rank in range(self.ranks):
            start = rank * size
            data = to_tensordict(padded.rows(start, start + size))
            tu.assign_non_tensor(
                data,
                dp_size=self.ranks,
                batch_num_tokens=int(padded.mask.sum()),
                global_batch_size=len(padded.mask),
                use_dynamic_bsz=False,
                micro_batch_size_per_gpu=size // micro_batches,
            )
            parts, _ = prepare_micro_batches(data)
            assert len(parts) == micro_batches
            for part in parts:
                rows = leaf[start : start + len(part)]
                loss, _ = ppo_loss(config, {"log_probs": model_output(part, rows)}, part)
                (loss / self.ranks).backward()
                start += len(part)
        assert leaf.grad is not None
        return leaf.grad


def make_path() -> VerlPath:
    return VerlPath()
