"""The objectives as a policy loss of Trinity-RFT: ``policy_loss_fn: drpo.integrations.trinity.DRPOPolicyLoss``.

Trinity finds the class by its dotted path and hands a batch to it by the names in the signature of ``__call__``. With
verl as its trainer these may also be what verl counts over all ranks before it cuts an update into micro-batches, so
that the loss is divided by the whole update. With Tinker the loss sees one response a call, and Trinity averages over
the responses.

Shapes: ``B`` sequences, ``T`` positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from packaging.version import Version
from trinity.algorithm.policy_loss_fn.policy_loss_fn import PolicyLossFn

from drpo.aggregation import Reduction
from drpo.batch import TokenBatch
from drpo.checks import is_count, is_positive
from drpo.errors import ConfigError
from drpo.integrations.padded import (
    PREFIX,
    check_first_mismatch,
    leave_out,
    loss_metrics,
    make_host_objective,
    padded_loss,
    require_whole_update,
)
from drpo.integrations.row_signal import RowSignal, warn_of_no_signal

HOST = "Trinity-RFT"
#: ``algorithm.policy_loss_fn``.
NAME = "drpo.integrations.trinity.DRPOPolicyLoss"
#: Where a user sets the arguments of the loss.
SECTION = "algorithm.policy_loss_fn_args"
#: From this version on Trinity trains with verl's own workers; with an older one it has workers of its own.
FIRST_VERL = Version("0.8")
#: ``algorithm.loss_agg_mode`` → ours. ``seq-mean-token-sum`` is a sum over each sequence divided by 1.
MODES = {
    "token-mean": Reduction("token_mean"),
    "seq-mean-token-mean": Reduction("sequence_mean"),
    "seq-mean-token-sum": Reduction("sequence_sum", horizon=1),
    "seq-mean-token-sum-norm": Reduction("sequence_sum"),
}
#: Trinity's trainers → the optional fields of a batch that they can hand over.
GIVES: dict[str, tuple[str, ...]] = {"verl": ("proximal_logprobs",), "tinker": ()}


class DRPOPolicyLoss(PolicyLossFn):
    """Any objective of :data:`drpo.OBJECTIVES`; the arguments are ``algorithm.policy_loss_fn_args``.

    Args:
        backend: ``verl`` or ``tinker``; Trinity sets it.
        objective: a name of :data:`drpo.OBJECTIVES`.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``anchor`` and ``modifiers`` among them.
        loss_agg_mode: must be there; Trinity replaces it by ``algorithm.loss_agg_mode``, but does not add it.
        horizon: tokens, the maximum response length; for ``seq-mean-token-sum-norm`` only.
        mismatch_limit: nats; the run stops if the mean \\|log π − log μ\\| of the first micro-batch exceeds it.
        **unknown: arguments that this loss does not have; each is an error.

    Raises:
        ConfigError: an unknown argument, objective or parameter, one that Trinity cannot feed, or a way of summing up
            that this trainer cannot compute.
    """

    def __init__(
        self,
        backend: str = "verl",
        *,
        objective: str = "drpo",
        parameters: Mapping[str, Any] | None = None,
        loss_agg_mode: str | None = None,
        horizon: int | None = None,
        mismatch_limit: float = 0.1,
        **unknown: object,
    ) -> None:
        super().__init__(backend=backend)
        if unknown:
            raise ConfigError(
                f"{SECTION} has no {', '.join(sorted(unknown))}. Known: {', '.join(self.default_args())}. The settings "
                "of an objective go into parameters; those of Trinity's own losses (clip_range …) are not read."
            )
        if not is_positive(mismatch_limit):
            raise ConfigError(f"{SECTION}.mismatch_limit must be a finite number > 0 (nats), got {mismatch_limit!r}")
        if backend == "verl":
            _check_verl()
        self.reduction = _reduction(backend, loss_agg_mode, horizon)
        self.objective = make_host_objective(HOST, objective, parameters, gives=GIVES[backend])
        if backend == "tinker":
            require_whole_update(
                self.objective, False, HOST, "With Tinker it is called once a response; use another objective."
            )
        self.mismatch_limit = mismatch_limit
        self.signal = RowSignal()
        self.compared = False

    def __call__(
        self,
        logprob: torch.Tensor,
        old_logprob: torch.Tensor,
        action_mask: torch.Tensor,
        advantages: torch.Tensor,
        rollout_log_probs: torch.Tensor | None = None,
        batch_num_tokens: int | None = None,
        global_batch_size: int | None = None,
        dp_size: int = 1,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The objective on one micro-batch, divided by the whole update, and its metrics.

        verl hands over ``[B, T]``, Tinker the ``[T]`` of one response and none of the last four.

        Args:
            logprob: log π, with its gradient.
            old_logprob: with verl log π_old (log μ again unless ``algorithm.bypass_old_logprobs`` is false), read by
                objectives that need it; with Tinker log μ.
            action_mask: the tokens that the model wrote; what the other positions hold does not matter.
            advantages: one for each token.
            rollout_log_probs: log μ, from verl's batch.
            batch_num_tokens: tokens in the masks of the whole update, over all ranks; verl counts them.
            global_batch_size: sequences of the whole update, over all ranks.
            dp_size: ranks, over which verl averages the gradient.

        Raises:
            ConfigError: an objective over the whole update in parts, or log π_old that is log μ.
            MismatchError: the first micro-batch finds another policy's log-probabilities.
            DataError: values that are not finite or not log-probabilities.
        """
        behavior = old_logprob if rollout_log_probs is None else rollout_log_probs
        logprob, behavior, old, mask, advantages = map(
            torch.atleast_2d, (logprob, behavior, old_logprob, action_mask, advantages)
        )
        rows = len(logprob)
        if global_batch_size is not None:
            require_whole_update(
                self.objective,
                dp_size == 1 and rows == global_batch_size,
                HOST,
                "Train on one rank with a trainer.max_token_len_per_gpu that holds all of "
                "buffer.train_batch_size, or use another objective.",
            )
        kept, left_out = leave_out(mask, behavior, HOST)
        proximal = old if "proximal_logprobs" in self.objective.needs else None
        loss, batch = padded_loss(self.objective, logprob, behavior, advantages, kept, proximal_logprobs=proximal)
        if not self.compared and len(batch):
            self._check_first(batch)
            self.compared = True
        if global_batch_size is not None:
            warn_of_no_signal(self.signal, batch, rows, global_batch_size)
        # Trinity averages Tinker's responses itself, so that each of them is a whole update here.
        update = self.reduction.over(max(batch_num_tokens or 0, 1), global_batch_size or 1)
        metrics = loss_metrics(batch, self.objective, same_names=True)
        return update(loss[kept], batch) * dp_size, {**metrics, PREFIX + "left_out_share": left_out}

    def _check_first(self, batch: TokenBatch) -> None:
        """Refuse μ of another policy, and π_old that nobody recomputed."""
        check_first_mismatch(HOST, batch, self.mismatch_limit, f"{SECTION}.mismatch_limit")
        old, behavior = batch.proximal_logprobs, batch.behavior_logprobs
        if old is not None and bool((behavior < 0).any()) and torch.equal(old, behavior):
            raise ConfigError(
                f"objective {self.objective.name!r} needs log π_old, and Trinity handed over log μ in its place. Set "
                "algorithm.bypass_old_logprobs: false, or use an objective that needs only log μ."
            )

    @classmethod
    def default_args(cls) -> dict[str, Any]:
        """What Trinity takes where ``algorithm.policy_loss_fn_args`` is not set."""
        return {
            "objective": "drpo",
            "parameters": {},
            "loss_agg_mode": "token-mean",
            "horizon": None,
            "mismatch_limit": 0.1,
        }


def _check_verl() -> None:
    try:
        found = version("verl")
    except PackageNotFoundError:
        return
    if Version(found) < FIRST_VERL:
        raise ConfigError(
            f"verl {found}: before {FIRST_VERL} Trinity has workers of its own, which do not hand over the size of the "
            "whole update. pip install 'verl==0.9.*'"
        )


def _reduction(backend: str, mode: str | None, horizon: int | None) -> Reduction:
    """How token losses become one number.

    Raises:
        ConfigError: no mode or an unknown one, one that Tinker's calls cannot express, a horizon that is missing or
            would be ignored.
    """
    if mode is None:
        raise ConfigError(
            f"{SECTION} has no loss_agg_mode. Trinity hands algorithm.loss_agg_mode to a loss only if it is among its "
            f"arguments; add {SECTION}.loss_agg_mode: token-mean (the value of algorithm.loss_agg_mode replaces it)."
        )
    if mode not in MODES:
        raise ConfigError(f"algorithm.loss_agg_mode must be one of {', '.join(MODES)}, got {mode!r}")
    if backend == "tinker" and mode == "token-mean":
        raise ConfigError(
            "algorithm.loss_agg_mode: token-mean is a mean over the tokens of each response with Tinker, averaged over "
            "responses, because Trinity calls the loss once a response. Set seq-mean-token-mean, which says so, or one "
            "of seq-mean-token-sum and seq-mean-token-sum-norm."
        )
    if mode != "seq-mean-token-sum-norm":
        if horizon is not None:
            raise ConfigError(f"{SECTION}.horizon is for seq-mean-token-sum-norm; {mode} would ignore it. Remove it.")
        return MODES[mode]
    if not is_count(horizon):
        raise ConfigError(
            f"algorithm.loss_agg_mode: {mode} needs {SECTION}.horizon (tokens, the maximum response length): Trinity "
            f"divides by the longest response of a batch, which changes from step to step. Got {horizon!r}."
        )
    return Reduction("sequence_sum", horizon=horizon)


__all__ = ["HOST", "NAME", "DRPOPolicyLoss"]
