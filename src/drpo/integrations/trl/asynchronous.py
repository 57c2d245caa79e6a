"""AsyncGRPOTrainer of TRL (experimental) with an objective of ours: its loss is replaced.

Its samples are older than the weights by construction, and π/μ is its only ratio: PPO's clip leaves that unbounded
where Â < 0.

Shapes: ``N`` trained tokens of a process's micro-batch.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

try:
    from trl.experimental.async_grpo import async_grpo_trainer
    from trl.experimental.async_grpo.async_grpo_config import AsyncGRPOConfig
    from trl.experimental.async_grpo.async_grpo_trainer import AsyncGRPOTrainer
except ImportError as error:
    raise ImportError(
        "DRPOAsyncTrainer needs trl.experimental.async_grpo, which TRL 1.14.1 to 1.16 have, and aiohttp: "
        "pip install 'trl>=1.14.1,<1.17' aiohttp requests"
    ) from error

from drpo.aggregation import aggregate
from drpo.batch import TokenBatch
from drpo.errors import ConfigError, DrpoWarning
from drpo.integrations.padded import PREFIX, check_left_out, measurements
from drpo.integrations.trl import host, packed
from drpo.integrations.trl.config import ObjectiveOptions
from drpo.integrations.trl.measured import PAPER, MeasuredLoss
from drpo.learning_signal import Hints, LearningSignal, RolloutFacts
from drpo.metrics import Metric

LOSS_PARAMETERS = ("self", "model", "inputs", "return_outputs", "num_items_in_batch")
ATTRIBUTES = (
    "accelerator",
    "aux_loss_enabled",
    "processing_class",
    "router_aux_loss_coef",
    "temperature",
    "_metrics",
    "_step_forward_s",
    "_step_forward_tokens",
    "_step_samples",
    "_step_seq_len_weighted",
    "_step_trained_tokens",
)
#: In TRL 1.14 the head takes a mask, and the router is asked for its logits when the head is made.
HEAD_TAKES_MASK = hasattr(async_grpo_trainer, "patch_chunked_lm_head")


@dataclass
class DRPOAsyncConfig(ObjectiveOptions, AsyncGRPOConfig):
    """AsyncGRPOConfig with the objective. Options that DRPOAsyncTrainer would ignore are errors, all in one message.

    Raises:
        ConfigError: as :class:`drpo.integrations.trl.DRPOConfig`; TRL hands this loss no π_old.
    """

    trainer: ClassVar[str] = "DRPOAsyncTrainer"
    gives: ClassVar[tuple[str, ...]] = ("entropy",)


class DRPOAsyncTrainer(MeasuredLoss, AsyncGRPOTrainer):
    """AsyncGRPOTrainer whose loss is ``args.objective``, measured from the log-probabilities μ of its samples.

    Takes what AsyncGRPOTrainer takes, with a :class:`DRPOAsyncConfig` as ``args``. Tokens and sequences are counted
    over all micro-batches of an optimizer step, so that cutting it otherwise changes no gradient.

    Raises:
        ConfigError: an option would be ignored, or the installed TRL is not one that this was written for.
    """

    _tag_names = ("trl", "drpo", "async-grpo")
    _name = "DRPO"
    _paper = PAPER

    def __init__(self, *arguments: Any, **keywords: Any):
        check_trl()
        given = inspect.signature(AsyncGRPOTrainer.__init__).bind(None, *arguments, **keywords).arguments
        config = given.get("args")
        if not isinstance(config, DRPOAsyncConfig):
            raise ConfigError(f"DRPOAsyncTrainer needs args=DRPOAsyncConfig(…), got {type(config).__name__}")
        worker = given.get("rollout_worker")
        self.mu_source = (
            f"the vLLM server at {config.vllm_server_base_url}"
            if worker is None
            else f"rollout_worker {type(worker).__qualname__}"
        )
        self.objective = config.make_objective()
        self._last_forward_time_s = 0.0
        super().__init__(*arguments, **keywords)
        missing = [name for name in ATTRIBUTES if not hasattr(self, name)]
        if missing:
            raise host.unsupported(f"AsyncGRPOTrainer has no attribute {', '.join(missing)}")
        self.loss_path = "TRL's log-probabilities"
        self.start_measuring(self.processing_class)
        self._signal = LearningSignal(Hints(responses="Look at some responses (log_completions=True)"))
        self._totals = (0.0, 0.0)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """All micro-batches of an optimizer step, as transformers collects them; their tokens are counted here.

        Raises:
            DataError: more than 5 % of the tokens have no log μ.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            for inputs in batches:
                check_inputs(inputs)
            self._count(batches)
        return batches, items

    def _count(self, batches: list[Mapping[str, Any]]) -> None:
        totals = [packed.tokens_and_sequences(inputs) for inputs in batches]
        missing = torch.stack([packed.missing_tokens(inputs) for inputs in batches]).sum(0)
        largest = torch.stack([inputs["advantages"].abs().max() for inputs in batches]).max().unsqueeze(0)
        counts = self.accelerator.gather(missing.to(self.accelerator.device).unsqueeze(0)).sum(0)
        left_out, total = counts.tolist()
        check_left_out(left_out, total, "TRL")
        self._metrics["train"].setdefault(PREFIX + "left_out_share", []).append(left_out / max(total, 1))
        self._totals = (sum(tokens for tokens, _ in totals) - left_out, sum(sequences for _, sequences in totals))
        varies = bool(self.accelerator.gather(largest.to(self.accelerator.device)).max() > 0)
        for text in self._signal.add(RolloutFacts(varies=varies)) if self.accelerator.is_main_process else ():
            warnings.warn(f"step {self.state.global_step + 1}: {text}", DrpoWarning, stacklevel=2)

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The share of a micro-batch in the loss of its optimizer step."""
        found = packed.unpack(inputs, HEAD_TAKES_MASK)
        begun = time.time()
        outputs = model(**found.model_inputs, **self._head_arguments())
        self._last_forward_time_s = time.time() - begun

        kept = found.behavior_logprobs.isfinite()
        where = found.index[kept]
        batch = self.under_weights(
            TokenBatch(
                torch.zeros_like(found.behavior_logprobs[kept]),
                found.behavior_logprobs[kept],
                found.advantages[kept],
                sequence_ids=found.sequence_ids[kept],
            ),
            "behavior_logprobs are TRL's old_log_probs",
            logprobs=outputs["log_probs"].flatten()[where],
            entropy=outputs["entropy"].flatten()[where].detach(),
        )
        loss = self.objective(batch).loss
        assert batch.entropy is not None
        self.merge({**measurements(batch, self.objective), "entropy": Metric.of(batch.entropy)}, "train")
        if self._token_log is not None:
            # The samples of a micro-batch are of several ages, which TRL does not hand to the loss.
            self._token_log.add(batch, found.token_ids[kept], self.state.global_step + 1)

        tokens, sequences = self._totals
        total = aggregate(
            loss,
            batch,
            mode=self.args.aggregation,
            # Data-parallel training averages the processes' gradients.
            denominator=max(tokens if self.args.aggregation == "token_mean" else sequences, 1.0)
            / self.accelerator.num_processes,
            horizon=self.args.horizon,
        )
        if self.aux_loss_enabled:
            total = total + self.router_aux_loss_coef * outputs["aux_loss"] / self.current_gradient_accumulation_steps
            gathered = self.accelerator.gather(outputs["aux_loss"].detach().float())
            self._metrics["train"]["aux_loss"].append(gathered.mean().item())
        self._account(inputs)
        return total

    def _head_arguments(self) -> dict[str, Any]:
        if HEAD_TAKES_MASK:
            return {"use_cache": False}
        return {"fused_lm_head": True, **({"output_router_logits": True} if self.aux_loss_enabled else {})}

    def _account(self, inputs: Mapping[str, Any]) -> None:
        """What TRL's loss counts for its own throughput metrics."""
        forwarded, mean_length = (float(inputs[name][0]) for name in ("global_n_forward_tokens", "mean_seq_len"))
        self._step_forward_tokens += forwarded
        self._step_trained_tokens += float(inputs["global_n_tokens"][0])
        self._step_seq_len_weighted += mean_length * forwarded
        self._step_samples += forwarded / mean_length
        self._step_forward_s += self._last_forward_time_s


def check_trl() -> None:
    """Whether the installed TRL has what DRPOAsyncTrainer overrides.

    Raises:
        ConfigError: it has not.
    """
    found = tuple(inspect.signature(AsyncGRPOTrainer.compute_loss).parameters)
    if found != LOSS_PARAMETERS:
        raise host.unsupported(
            f"AsyncGRPOTrainer.compute_loss takes ({', '.join(found)}), not ({', '.join(LOSS_PARAMETERS)})"
        )
    if not (HEAD_TAKES_MASK or hasattr(async_grpo_trainer, "add_fused_lm_head")):
        raise host.unsupported("AsyncGRPOTrainer has no LM head that gives log-probabilities")


def check_inputs(inputs: Mapping[str, Any]) -> None:
    """Whether TRL hands over one of the two layouts, and nothing that the loss would drop.

    Raises:
        ConfigError: an input is missing or unknown.
    """
    layout = packed.TREE if "token_index" in inputs else packed.ROWS
    missing, unknown = layout - inputs.keys(), inputs.keys() - layout
    if missing:
        raise host.unsupported(f"the loss is not given {', '.join(sorted(missing))}")
    if unknown:
        raise host.unsupported(f"the loss is given {', '.join(sorted(unknown))}, which it would ignore")
