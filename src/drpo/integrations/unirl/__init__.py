"""The objectives in UniRL, the trainer of the paper's authors: an algorithm for a recipe's ``algorithm._target_``.

UniRL has DRPO, SPO, DPPO, CPPO, GRPO and GSPO of its own, one class each. This one runs any objective of
:data:`drpo.OBJECTIVES` between UniRL's forward pass and UniRL's own aggregation.

Shapes: ``B`` responses, ``L`` tokens of all responses of a micro-batch, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from unirl.algorithms.base import AlgorithmStepResult, aggregate_token_losses, typed_conditions
from unirl.algorithms.drpo import DRPO
from unirl.types.segments.text import TextSegment

from drpo.batch import TokenBatch
from drpo.checks import is_positive
from drpo.errors import ConfigError
from drpo.integrations.padded import (
    PREFIX,
    check_first_mismatch,
    leave_out,
    loss_metrics,
    make_host_objective,
    require_whole_update,
    scatter_loss,
)

HOST = "UniRL"
#: Where UniRL takes the anchor from → the optional fields of a batch that it can then hand over.
GIVES: dict[str, tuple[str, ...]] = {"rollout": (), "replay": ("proximal_logprobs",)}
#: What a step without tokens returns, as UniRL's own algorithms do.
NOTHING = AlgorithmStepResult(loss=0.0, metrics={}, num_steps_or_tokens=0, has_backward=False)


class DRPOAlgorithm(DRPO):
    """UniRL's DRPO with ``objective`` in place of its loss: one method is overridden.

    Args:
        sampling_temperature: of the rollout (``sampling.temperature``); UniRL divides the logits of π by it. It must be
            given: UniRL's default of 0.7 is that of its sampler, and a recipe that changes one would forget the other.
        objective: a name of :data:`drpo.OBJECTIVES`.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``anchor`` and ``modifiers`` among them.
        mismatch_limit: nats; the run stops if the mean \\|log π − log μ\\| of the first micro-batch exceeds it.
        old_logp_source: ``rollout``: nothing is recomputed. ``replay``: UniRL also computes π_old before the first
            update, for objectives that need ``proximal_logprobs``. μ is the rollout's in both cases.
        **keywords: ``pipeline``, ``stage_attr``, ``conditions_cls``, ``loss_agg_mode``, ``horizon``, as in UniRL.

    Raises:
        ConfigError: an unknown objective or parameter, one that UniRL cannot feed, or a setting that would be ignored.
    """

    def __init__(
        self,
        *,
        sampling_temperature: float | None = None,
        objective: str = "drpo",
        parameters: Mapping[str, Any] | None = None,
        mismatch_limit: float = 0.1,
        old_logp_source: str = "rollout",
        **keywords: Any,
    ) -> None:
        if sampling_temperature is None:
            raise ConfigError("algorithm.sampling_temperature is missing; set it to sampling.temperature of the recipe")
        if old_logp_source not in GIVES:
            raise ConfigError(f"algorithm.old_logp_source must be one of {', '.join(GIVES)}, got {old_logp_source!r}")
        if not is_positive(mismatch_limit):
            raise ConfigError(f"algorithm.mismatch_limit must be a finite number > 0 (nats), got {mismatch_limit!r}")
        for name in ("drpo_epsilon", "penalty_mu_weighted"):
            if name in keywords:
                raise ConfigError(
                    f"algorithm.{name} is a setting of UniRL's own DRPO. Use objective=drpo with parameters.delta, or "
                    "objective=spo, which is penalty_mu_weighted=false."
                )
        self.objective = make_host_objective(HOST, objective, parameters, gives=GIVES[old_logp_source])
        require_whole_update(self.objective, False, HOST, "Use another objective.")
        super().__init__(sampling_temperature=sampling_temperature, old_logp_source=old_logp_source, **keywords)
        self.mismatch_limit = mismatch_limit
        self._compared = False

    def compute_loss_and_backward(
        self,
        *,
        conditions: Mapping[str, Any],
        segment: TextSegment,
        advantages: torch.Tensor | None,
        training_progress: float,
        loss_scale: float,
    ) -> AlgorithmStepResult:
        """The loss of one micro-batch (advantages ``[B]``), its backward pass and its metrics.

        Raises:
            MismatchError: the first micro-batch finds another policy's log-probabilities.
            DataError: values that are not finite or not log-probabilities; too many tokens without a log μ.
        """
        if segment.tokens is None or segment.lengths is None or segment.log_probs is None or advantages is None:
            return NOTHING
        if len(segment.tokens) == 0:
            return NOTHING
        typed = typed_conditions(conditions, self.conditions_cls)
        logprobs = self.stage.replay(typed, segment=segment, temperature=self.sampling_temperature)
        batch, kept, left_out = self._pack(logprobs, segment, advantages)
        if not self._compared and len(batch):
            check_first_mismatch(HOST, batch, self.mismatch_limit, "algorithm.mismatch_limit")
            self._compared = True
        loss = aggregate_token_losses(
            scatter_loss(self.objective, batch, kept),
            lengths=segment.lengths,
            loss_mask=segment.loss_mask,
            loss_agg_mode=self.loss_agg_mode,
            horizon=self.horizon,
        )
        (loss * loss_scale).backward()
        found = float(loss.detach())
        metrics = {
            **loss_metrics(batch, self.objective),
            PREFIX + "left_out_share": left_out,
            "policy_loss": found,
        }
        return AlgorithmStepResult(found, metrics, num_steps_or_tokens=len(logprobs), has_backward=True)

    def _pack(
        self, logprobs: torch.Tensor, segment: Any, advantages: torch.Tensor
    ) -> tuple[TokenBatch, torch.Tensor, float]:
        """The kept tokens, which of the ``L`` they are, and the share that is left out for want of a log μ."""

        def here(values: torch.Tensor) -> torch.Tensor:
            return values.to(dtype=logprobs.dtype, device=logprobs.device)

        # `replay` moves the rollout's log-probabilities to rollout_log_probs and puts π_old in their place.
        behavior = here(segment.log_probs if segment.rollout_log_probs is None else segment.rollout_log_probs)
        mask = torch.ones_like(logprobs) if segment.loss_mask is None else segment.loss_mask.to(logprobs.device)
        kept, left_out = leave_out(mask, behavior, HOST)
        rows = torch.arange(len(advantages), device=logprobs.device)
        ids = rows.repeat_interleave(segment.lengths.to(logprobs.device), output_size=len(logprobs))
        proximal = here(segment.log_probs)[kept] if self.recomputes_anchor else None
        batch = TokenBatch(
            logprobs[kept],
            behavior[kept],
            here(advantages)[ids][kept],
            sequence_ids=ids[kept],
            proximal_logprobs=proximal,
        )
        return batch, kept, left_out
