"""ms-swift's GRPO trainer with another loss: one method is overridden.

Shapes: ``B`` completions of a micro-batch, ``T`` positions.
"""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import torch
from swift.rl_core.data import GRPOBatch
from swift.rlhf_trainers.args_mixin import GRPOArgumentsMixin
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

from drpo.aggregation import Mode, Reduction
from drpo.errors import ConfigError
from drpo.integrations.ms_swift import HOST, settings
from drpo.integrations.padded import (
    PREFIX,
    check_first_mismatch,
    leave_out,
    loss_metrics,
    padded_loss,
    require_whole_update,
)

#: Arguments of ms-swift's own loss; a value other than the default would be ignored.
IGNORED = (
    "epsilon",
    "epsilon_high",
    "delta",
    "importance_sampling_level",
    "top_entropy_quantile",
    "log_entropy",
    "tau_pos",
    "tau_neg",
    "real_tau",
    "fipo_decay_rate",
    "fipo_clip_range",
    "fipo_clip_high_only",
    "fipo_safety_threshold",
    "rollout_importance_sampling_mode",
    "log_rollout_offpolicy_metrics",
    "off_policy_sequence_mask_delta",
    "sdar_loss_coef",
    "chord_sft_dataset",
)
#: Sampling arguments → the values that leave the distribution alone (None is ms-swift's "not set").
PLAIN_SAMPLING = {
    "top_p": (1.0, None),
    "top_k": (-1, 0, None),
    "min_p": (0.0, None),
    "repetition_penalty": (1.0, None),
}
#: ``--loss_type`` → ours.
MODES: dict[str, Mode] = {"dapo": "token_mean", "grpo": "sequence_mean", "dr_grpo": "sequence_sum"}


def check(args: Any) -> None:
    """Refuse arguments that the loss would ignore, or under which μ is missing or not that of π.

    Raises:
        ConfigError: what is wrong and how to fix it.
    """
    if not args.use_vllm:
        raise ConfigError("--use_vllm false: ms-swift then records no log μ. Set --use_vllm true.")
    if args.loss_type not in MODES:
        raise ConfigError(
            f"--loss_type {args.loss_type} is another loss, or a mean that depends on the micro-batches (bnpo). Set "
            "dapo (mean over tokens), grpo (over each completion) or dr_grpo (sum over each, divided by "
            "max_completion_length)."
        )
    if args.beta and not args.kl_in_reward:
        raise ConfigError(
            f"--beta {args.beta}: the KL loss beside the objective would be ignored (ms-swift's default is 0.04). Set "
            "--beta 0, or --kl_in_reward true."
        )
    if args.use_liger_kernel:
        raise ConfigError("--use_liger_kernel true computes ms-swift's own loss instead of this one. Set it to false.")
    if args.loss_type == "dapo" and args.steps_per_generation != args.gradient_accumulation_steps:
        raise ConfigError(
            f"--loss_type dapo divides by the tokens of --steps_per_generation {args.steps_per_generation} micro-"
            f"batches, and an update has {args.gradient_accumulation_steps}. Make both equal, or use grpo or dr_grpo."
        )
    defaults = GRPOArgumentsMixin.__dataclass_fields__
    for name in IGNORED:
        default = defaults[name].default
        if getattr(args, name) != ([] if default is MISSING else default):
            raise ConfigError(
                f"--{name} belongs to ms-swift's own loss and would be ignored. Remove it; the parameters of an "
                "objective go into drpo.integrations.ms_swift.use."
            )
    for name, plain in PLAIN_SAMPLING.items():
        if getattr(args, name) not in plain:
            raise ConfigError(
                f"--{name} {getattr(args, name)}: log μ would be that of a changed distribution, log π is not. Set it "
                f"to {plain[0]}."
            )


class DRPOTrainer(GRPOTrainer):
    """ms-swift's trainer under the objective of :func:`drpo.integrations.ms_swift.use`.

    Raises:
        ConfigError: arguments under which the loss would be another one or μ would be missing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check(kwargs["args"])
        super().__init__(*args, **kwargs)
        self.start()

    def start(self) -> None:
        """Take the settings; the trainer is complete otherwise."""
        self.drpo, self.compared = settings(), False
        if self.disable_rollout_importance_sampling:
            raise ConfigError("this vLLM reports log μ before the temperature. Install vLLM 0.10.2 or newer.")
        whole = (
            self.args.gradient_accumulation_steps == 1
            and self.args.steps_per_generation == 1
            and self.accelerator.num_processes == 1
        )
        require_whole_update(
            self.drpo.objective,
            whole,
            HOST,
            "Train in one process with --gradient_accumulation_steps 1 and --steps_per_generation 1, or use another "
            "objective.",
        )

    def _compute_loss_and_metrics(
        self, model: Any, model_inputs: dict[str, Any], grpo_batch: GRPOBatch
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """The loss of one micro-batch; ms-swift divides it by the micro-batches of the update."""
        behavior = grpo_batch.rollout_per_token_logps
        if behavior is None:
            raise ConfigError(
                "ms-swift handed over no rollout_per_token_logps: an engine reported none, or not as many as there are "
                "tokens in a completion. Use vLLM, and a template and scheduler that keep the sampled tokens."
            )
        if self.dynamic_num_samples:
            raise ConfigError(
                "this multi-turn rollout makes more samples than were asked for, and ms-swift weighs their parts by "
                "itself. Use a scheduler that returns one sample a request."
            )
        logprobs, _ = self._get_per_token_logps_and_entropies(model, model_inputs, grpo_batch)
        mask = grpo_batch.completion_mask.bool()
        if self.overlong_filter:
            mask = mask & ~grpo_batch.truncated_mask.unsqueeze(-1)
        kept, left_out = leave_out(mask, behavior, HOST)
        objective = self.drpo.objective
        proximal = grpo_batch.old_per_token_logps if "proximal_logprobs" in objective.needs else None
        advantages = grpo_batch.advantages
        assert advantages is not None  # ms-swift's own loss needs them too
        loss, batch = padded_loss(objective, logprobs, behavior, advantages, kept, proximal_logprobs=proximal)
        if not self.compared and len(batch):
            check_first_mismatch(HOST, batch, self.drpo.mismatch_limit, "mismatch_limit of use()")
            self.compared = True
        mode = "train" if self.model.training else "eval"
        for name, value in {**loss_metrics(batch, objective), PREFIX + "left_out_share": left_out}.items():
            self._metrics[mode][name].append(value)
        total = self._undo_gradient_accumulation_scaling(self._reduction(grpo_batch)(loss[kept], batch))
        tokens = mask.sum().clamp(min=1)
        return total, {"mode": mode, "entropy": {}, "completion_mask": mask, "completion_token_count": tokens}

    def _reduction(self, grpo_batch: GRPOBatch) -> Reduction:
        """As ms-swift's: over the tokens of the whole update, or the completions of the micro-batch."""
        mode = MODES[self.loss_type]
        if mode == "token_mean":
            assert grpo_batch.num_items_in_batch is not None
            return Reduction(mode, float(grpo_batch.num_items_in_batch) / self.accelerator.num_processes)
        horizon = self.max_completion_length if mode == "sequence_sum" else None
        return Reduction(mode, len(grpo_batch.completion_mask), horizon)
