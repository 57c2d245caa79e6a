"""GRPOTrainer with an objective of ours: one method overridden, the loss, from hidden states where it can be.

Shapes: ``B`` sequences of a micro-batch, ``T`` completion positions, ``N`` kept tokens, ``P`` processes.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from trl import GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue]

from drpo.aggregation import aggregate
from drpo.batch import TokenBatch
from drpo.divergence import k3, log_ratio, ratio
from drpo.errors import ConfigError, DrpoWarning
from drpo.integrations.padded import PREFIX, measurements
from drpo.integrations.trl import fused, host
from drpo.integrations.trl.config import DRPOConfig
from drpo.integrations.trl.measured import PAPER, MeasuredLoss
from drpo.integrations.trl.rollouts import InProcessRollouts
from drpo.kernels.head import plain_head
from drpo.learning_signal import Hints, LearningSignal
from drpo.metrics import Metric

#: Weights that moved change some log-probability by more than this many nats.
INERT = 1e-6
HOW_TO_GET_MU = (
    "Set use_vllm=True, or pass rollout_func=drpo.integrations.trl.InProcessRollouts(), which needs no further package."
)


class DRPOTrainer(MeasuredLoss, GRPOTrainer):
    """GRPOTrainer whose loss is ``args.objective``, measured from the rollout's own log-probabilities μ.

    Takes what GRPOTrainer takes, with a :class:`DRPOConfig` as ``args``.

    Raises:
        ConfigError: μ cannot arrive, an option would be ignored, or the installed TRL is not the one this was written
            for.
    """

    _tag_names = ("trl", "drpo")
    _name = "DRPO"
    _paper = PAPER

    def __init__(self, *arguments: Any, **keywords: Any):
        host.check_trl()
        given = host.given(arguments, keywords)
        config = given.get("args")
        if not isinstance(config, DRPOConfig):
            raise ConfigError(f"DRPOTrainer needs args=DRPOConfig(…), got {type(config).__name__}")
        host.check_options(config)
        self.mu_source = name_mu_source(config, given)
        self.objective = config.make_objective()
        super().__init__(*arguments, **keywords)
        host.check_trainer(self)
        fused.hand_out_hidden(self.model)
        self.loss_path = ""
        self._signal = LearningSignal(
            Hints(
                length=f"Raise max_completion_length (now {self.max_completion_length}).",
                responses="Look at some responses (log_completions=True)",
                rewards="See what reward_funcs return: None is no reward.",
            )
        )
        self.start_measuring(self._tokenizer)
        self._sampled_at = 0
        self._warned = False
        self._say_what_to_expect()

    @functools.cached_property
    def head_is_plain(self) -> bool:
        """Whether logits are hidden states times the LM head, and no more; asked once the model is in its place."""
        return plain_head(self.model) is not None

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        host.leave_out_tokens(self, output, "train" if self.model.training else "eval")
        if self.model.training:
            facts = host.facts_of(self, output)
            for text in self._signal.add(facts) if self.accelerator.is_main_process else ():
                warnings.warn(f"step {self.state.global_step + 1}: {text}", DrpoWarning, stacklevel=2)
        return output

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        host.check_inputs(inputs)
        self.loss_path = fused.why_not_fused(self, inputs) or "fused"
        compute = self._fused_loss if self.loss_path == "fused" else self._loss_of_logprobs
        kept = (inputs["completion_mask"] * inputs.get("tool_mask", 1)).bool()
        return compute(model, inputs, kept, "train" if self.model.training else "eval")

    def _fused_loss(self, model: Any, inputs: Mapping[str, Any], kept: torch.Tensor, mode: str) -> torch.Tensor:
        """From hidden states, through no logits; what is measured comes out of the same pass."""
        given = self._token_batch(inputs, kept)
        loss, logprobs, entropy = fused.loss_from_hidden(
            self, model, inputs, kept, given, self._aggregation(inputs, mode)
        )
        batch = self._under(given, logprobs, entropy)
        measured = measurements(batch, self.objective)
        self._record({**measured, "entropy": Metric.of(entropy)}, mode)
        self._log_tokens(batch, inputs, kept, mode)
        return loss

    def _loss_of_logprobs(self, model: Any, inputs: Mapping[str, Any], kept: torch.Tensor, mode: str) -> torch.Tensor:
        """From the log-probabilities that TRL's forward pass gives."""
        given = self._token_batch(inputs, kept)
        logprobs, entropy, aux_loss = self._forward(model, inputs)
        batch = self._under(given, logprobs[kept], entropy[kept])

        loss = self.objective(batch).loss
        measured = {**measurements(batch, self.objective), "entropy": Metric.of(entropy[kept])}
        if self.beta != 0.0:
            kl = k3(log_ratio(inputs["ref_per_token_logps"][kept], batch.logprobs))
            measured["kl"] = Metric.of(kl)
            if self.args.use_bias_correction_kl:
                kl = kl * ratio(batch.logprobs, batch.behavior_logprobs)
            loss = loss + self.beta * kl
        self._record(measured, mode)
        self._log_tokens(batch, inputs, kept, mode)

        total = aggregate(loss, batch, **self._aggregation(inputs, mode))
        tokens, _, micro_batches = self._denominators(inputs, mode)
        if self.entropy_coef != 0.0:
            total = total - self.entropy_coef * entropy[kept].sum() / tokens
        if self.aux_loss_enabled:
            total = total + self.router_aux_loss_coef * aux_loss / micro_batches
            self._metrics[mode]["aux_loss"].append(self.accelerator.gather(aux_loss.detach()).mean().item())
        return total

    def _forward(self, model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """log π and entropy ``[B, T]``, and a mixture-of-experts model's auxiliary loss."""
        further = {name: inputs[name] for name in host.forward_parameters() & inputs.keys()}
        found = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].size(1),
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
            **further,
        )
        if len(found) != 3:
            raise host.unsupported(f"_get_per_token_logps_and_entropies returns {len(found)} values, not 3")
        return found

    def _token_batch(self, inputs: Mapping[str, Any], kept: torch.Tensor) -> TokenBatch:
        """The kept tokens as far as TRL hands them over: :meth:`_under` puts log π in, and checks them."""
        behavior = inputs.get("sampling_per_token_logps")
        if behavior is None:
            raise ConfigError(
                f"TRL hands over no sampling_per_token_logps: μ is missing, although {self.mu_source} "
                f"was to provide it. {HOW_TO_GET_MU}"
            )
        return TokenBatch.from_padded(
            torch.zeros_like(behavior),
            behavior,
            inputs["advantages"],
            kept,
            proximal_logprobs=inputs.get("old_per_token_logps"),
            validate=False,
        )

    def _under(self, given: TokenBatch, logprobs: torch.Tensor, entropy: torch.Tensor) -> TokenBatch:
        """``given`` with log π and entropy ``[N]``, checked."""
        # None: the weights have not changed since sampling (TRL computes it where they may have).
        proximal = logprobs.detach() if given.proximal_logprobs is None else given.proximal_logprobs
        return self.under_weights(
            given,
            "behavior_logprobs are TRL's sampling_per_token_logps, proximal_logprobs are old_per_token_logps",
            logprobs=logprobs,
            entropy=entropy,
            proximal_logprobs=proximal,
        )

    def _aggregation(self, inputs: Mapping[str, Any], mode: str) -> dict[str, Any]:
        """How the token losses are summed up, for :func:`drpo.aggregate`."""
        tokens, sequences, _ = self._denominators(inputs, mode)
        by_tokens = self.args.aggregation == "token_mean"
        return {
            "mode": self.args.aggregation,
            "denominator": tokens if by_tokens else sequences,
            "horizon": self.args.horizon,
        }

    def _denominators(self, inputs: Mapping[str, Any], mode: str) -> tuple[torch.Tensor, float, int]:
        """Tokens and sequences to divide by, and micro-batches of this optimizer step.

        Data-parallel training averages the processes' gradients, so each divides by its share, 1/P, of the whole.
        ``num_items_in_batch`` counts the tokens of the rollout batch over all processes: a step's share of them is
        what gives every token of a rollout batch one weight, however it is cut into steps and micro-batches.
        """
        micro_batches = self.current_gradient_accumulation_steps if mode == "train" else 1
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if mode == "train":
            tokens = tokens * micro_batches / self.args.steps_per_generation
        return tokens, float(len(inputs["completion_ids"]) * micro_batches), micro_batches

    def _record(self, measured: Mapping[str, Metric], mode: str) -> None:
        """Merge ``measured`` over processes and since the last log; check what can be told from it."""
        staleness = self._staleness() if mode == "train" else 0
        _, most = self.merge(measured, mode)
        self._metrics[mode].setdefault(PREFIX + "staleness", []).append(staleness)
        # The first update of a warm-up has rate 0.
        if staleness and most <= INERT and self.state.global_step > 1 and not self._warned:
            self._warned = True
            warnings.warn(
                f"log π equals log μ to {most:.0e} nats on every token, {staleness} update(s) after sampling: the "
                "trust region is inert. Either the learning rate is 0 or too small to move the weights in their "
                f"precision, or μ ({self.mu_source}) is recomputed from the current weights.",
                DrpoWarning,
                stacklevel=2,
            )

    def _log_tokens(self, batch: TokenBatch, inputs: Mapping[str, Any], kept: torch.Tensor, mode: str) -> None:
        if mode == "train" and self._token_log is not None:
            self._token_log.add(
                batch,
                inputs["completion_ids"][kept],
                step=self.state.global_step + 1,
                update=self.state.global_step - self._sampled_at,
            )

    def _staleness(self) -> int:
        """Updates made since the current rollout batch was sampled."""
        if host.begins_rollouts(self) or not self._checked:
            self._sampled_at = self.state.global_step
        return self.state.global_step - self._sampled_at

    def _say_what_to_expect(self) -> None:
        """Tell the user of a trust region that cannot act."""
        args = self.args
        updates = args.steps_per_generation * self.num_iterations / args.gradient_accumulation_steps
        if updates <= 1 and isinstance(self.rollout_func, InProcessRollouts):
            warnings.warn(
                "every response is trained once, at the weights that sampled it, so r ≡ 1 up to rounding and no trust "
                "region (of any objective) acts. For several updates a rollout batch raise steps_per_generation above "
                f"gradient_accumulation_steps={args.gradient_accumulation_steps}, or num_iterations above 1.",
                DrpoWarning,
                stacklevel=3,
            )


def name_mu_source(config: DRPOConfig, given: Mapping[str, Any]) -> str:
    """Where the log-probabilities of the sampled tokens will come from.

    Raises:
        ConfigError: from nowhere.
    """
    rollout_func = given.get("rollout_func")
    if inspect.isclass(rollout_func):
        raise ConfigError(
            f"rollout_func is the class {rollout_func.__name__}, which TRL would call with the prompts; "
            f"pass {rollout_func.__name__}()"
        )
    if rollout_func is not None and not callable(rollout_func):
        raise ConfigError(
            f"rollout_func must be callable with (prompts, trainer), got {type(rollout_func).__name__}. {HOW_TO_GET_MU}"
        )
    if config.use_transformers_continuous_batching:
        raise ConfigError(
            "use_transformers_continuous_batching=True gives no log-probabilities of the sampled tokens "
            f"(and a rollout_func replaces it). {HOW_TO_GET_MU}"
        )
    if not config.use_vllm and rollout_func is None:
        raise ConfigError(
            "no μ: TRL's own generate returns no log-probabilities of the sampled tokens, and without "
            f"them TRL's ratio is 1 and no trust region acts. {HOW_TO_GET_MU}"
        )
    if not config.use_vllm and (given.get("tools") or given.get("environment_factory")):
        raise ConfigError(
            "tools and environment_factory continue responses with TRL's own generate, which returns no "
            "log-probabilities. Use use_vllm=True with them."
        )
    if rollout_func is None:
        return f"vLLM ({config.vllm_mode})"
    return f"rollout_func {getattr(rollout_func, '__qualname__', type(rollout_func).__qualname__)}"
