"""The objectives on Tinker: a loss for ``TrainingClient.forward_backward_custom``, and the cookbook's training step.

Tinker runs the model, the loss is computed here: a forward pass sends the log-probabilities, the loss and its gradient
are ours, and a cross-entropy whose weights are that gradient, negated, carries it back. The objective sees the whole
optimizer step at once, whatever requests the SDK cuts it into.

Shapes: ``N`` tokens of one datum.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import torch
from tinker.lib.public_interfaces import TrainingClient
from tinker.types import AdamParams, Datum

from drpo.aggregation import Mode, aggregate
from drpo.batch import TokenBatch
from drpo.errors import ConfigError, DataError, DrpoWarning
from drpo.integrations.padded import PREFIX, leave_out, loss_metrics, make_host_objective, require_whole_update
from drpo.learning_signal import LearningSignal, RolloutFacts
from drpo.objectives import Objective

HOST = "Tinker"
#: ``loss_fn_inputs`` → how to get it where it is missing.
INPUTS = {
    "logprobs": "log μ [N], what the sampler returned with the tokens (0 at the prompt)",
    "advantages": "[N]",
    "mask": "[N], 1 at sampled tokens; the cookbook's data has it (its _remove_mask is for the built-in losses)",
    "proximal_logprobs": "log π_old [N], from TrainingClient.forward at the weights that sampled",
}

#: The cookbook's defaults (synchronous, asynchronous and in its recipes), and the name for a loss that is not its own.
DEFAULT_LOSSES = ("importance_sampling", "stable_reinforce", "custom")

Loss = Callable[[Sequence[Datum], Sequence[torch.Tensor]], tuple[torch.Tensor, dict[str, float]]]


def make_loss(
    objective: str = "drpo",
    parameters: Mapping[str, Any] | None = None,
    *,
    aggregation: Mode = "token_mean",
    horizon: int | None = None,
    denominator: float | None = None,
) -> Loss:
    """A loss for ``training_client.forward_backward_custom(data, loss)``.

    It reads log μ, the advantages and the mask from each datum's ``loss_fn_inputs`` (``logprobs``, ``advantages``,
    ``mask``, each ``[N]``; ``proximal_logprobs`` where the objective needs it).

    Args:
        objective: a name of :data:`drpo.OBJECTIVES`.
        parameters: keyword arguments of :func:`drpo.make_objective`, ``anchor`` and ``modifiers`` among them.
        aggregation: as ``mode`` in :func:`drpo.aggregate`; a datum is a sequence.
        horizon: as in :func:`drpo.aggregate`.
        denominator: :func:`count` over the whole optimizer step where several calls make one; None: this call is it.

    Raises:
        ConfigError: an objective that Tinker cannot feed, one over the whole optimizer step given a part of it, or
            an aggregation that :func:`drpo.aggregate` refuses. The loss itself raises one for missing inputs.
    """
    made = make_host_objective(HOST, objective, parameters, gives=("proximal_logprobs",))
    require_whole_update(
        made,
        denominator is None,
        HOST,
        "Give all data of the step to one forward_backward_custom, "
        "without a denominator (the SDK cuts it into requests), or use another objective.",
    )
    signal = LearningSignal()
    one = torch.zeros(1)
    # Refused here rather than in the SDK's thread, where an error ends the training client.
    aggregate(one, TokenBatch(one, one, one), aggregation, denominator or 1, horizon)

    def loss(data: Sequence[Datum], logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        batch, left_out = _pack(data, logprobs, made)
        if denominator is None:  # else this call is a part of the step
            for text in signal.add(RolloutFacts(varies=bool((batch.advantages != 0).any()))):
                warnings.warn(text, DrpoWarning, stacklevel=2)
        total = count(data, aggregation) if denominator is None else denominator
        scalar = aggregate(made(batch).loss, batch, aggregation, total, horizon)
        return scalar, {
            **loss_metrics(batch, made, extremes=True),
            PREFIX + "loss": float(scalar.detach()),
            PREFIX + "left_out_share": left_out,
        }

    return loss


def count(data: Sequence[Datum], aggregation: Mode = "token_mean") -> int:
    """What an optimizer step over ``data`` is divided by: its kept tokens under ``token_mean``, else its datums."""
    if aggregation != "token_mean":
        return max(len(data), 1)
    kept = [(_field(datum, "mask") > 0) & _field(datum, "logprobs").isfinite() for datum in data]
    return max(sum(int(mask.sum()) for mask in kept), 1)


def make_train_step(
    objective: str = "drpo",
    parameters: Mapping[str, Any] | None = None,
    *,
    aggregation: Mode = "token_mean",
    horizon: int | None = None,
) -> Callable[..., Any]:
    """A coroutine with the signature of ``tinker_cookbook.rl.train.train_step``, and what that one returns.

    Its ``loss_fn`` may be one of :data:`DEFAULT_LOSSES`: it takes no part.

    Raises:
        ConfigError: as :func:`make_loss`, or an objective that needs ``proximal_logprobs``, which the cookbook's data
            does not have. The step raises one for a ``loss_fn`` or ``loss_fn_config`` that it would ignore.
    """
    make_host_objective("the cookbook's training loop", objective, parameters)
    loss = make_loss(objective, parameters, aggregation=aggregation, horizon=horizon)

    async def train_step(
        data_D: list[Datum],
        training_client: TrainingClient,
        learning_rate: float,
        num_substeps: int,
        loss_fn: str = "custom",
        loss_fn_config: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> list[torch.Tensor]:
        """Train on ``data_D`` in ``num_substeps`` optimizer steps; log π ``[N]`` of each datum before its step."""
        from tinker_cookbook.utils.misc_utils import split_list

        _check_unused("loss_fn", loss_fn, loss_fn_config)
        adam = AdamParams(learning_rate=learning_rate, beta1=0.9, beta2=0.95, eps=1e-8)
        found: list[torch.Tensor] = []
        waiting: list[Any] = []
        batches = split_list(data_D, min(num_substeps, len(data_D))) if data_D else []
        for index in range(len(batches) + 1):
            if index < len(batches):
                # Requests run in the order they are made; one step ahead, so that the service never waits for us.
                waiting.append(
                    (training_client.forward_backward_custom(batches[index], loss), training_client.optim_step(adam))
                )
            if index > 0:
                backward, step = waiting.pop(0)
                result, optimizer = await backward, await step
                found += [output["logprobs"].to_torch() for output in result.loss_fn_outputs]
                if metrics is not None:
                    # The last step's, as the cookbook reports the optimizer's: the one with the stalest samples.
                    metrics.update(optimizer.metrics or {})
                    metrics.update({key: value for key, value in result.metrics.items() if key.startswith(PREFIX)})
        return found

    return train_step


async def main(
    config: Any,
    rollout_executor: Executor | None = None,
    *,
    objective: str = "drpo",
    parameters: Mapping[str, Any] | None = None,
    aggregation: Mode = "token_mean",
    horizon: int | None = None,
) -> None:
    """``tinker_cookbook.rl.train.main`` with our training step, not the cookbook's.

    The cookbook's loop gets ``config`` with ``loss_fn="custom"``: it then neither records on the service what only
    its own losses read, nor refuses settings that only they cannot take.

    Args:
        config: a ``tinker_cookbook.rl.train.Config``, synchronous or asynchronous.
        rollout_executor: as the cookbook's.
        objective: as in :func:`make_loss`, like the next three.
        parameters: of the objective.
        aggregation: how token losses become one number.
        horizon: tokens, for ``sequence_sum``.

    Raises:
        ConfigError: as :func:`make_train_step`, or a setting of ``config`` that names another loss, under which the
            training step is another one (streamed minibatches) or log μ is not at the temperature of log π. Nothing
            has been sampled then.
    """
    from tinker_cookbook.rl import train

    _check_unused("loss_fn", config.loss_fn, config.loss_fn_config)
    if hasattr(config, "training_loss_fn"):  # since 0.6: an asynchronous run has a loss of its own
        _check_unused("async_config.loss_fn", config.training_loss_fn(), None)
    if config.stream_minibatch_config is not None:
        raise ConfigError(
            "stream_minibatch_config: the cookbook then sends each minibatch with a built-in loss and "
            "never calls train_step. Leave it None."
        )
    if config.temperature != 1.0:
        raise ConfigError(
            f"temperature={config.temperature}: the service computes log π at temperature 1, so that π "
            "and μ would be at two temperatures. Set it to 1."
        )
    step = make_train_step(objective, parameters, aggregation=aggregation, horizon=horizon)
    original, train.train_step = train.train_step, step
    try:
        await train.main(_with_custom_loss(config), rollout_executor)
    finally:
        train.train_step = original


def _check_unused(setting: str, loss_fn: str, loss_fn_config: object) -> None:
    if loss_fn not in DEFAULT_LOSSES or loss_fn_config is not None:
        raise ConfigError(
            f"{setting}={loss_fn!r}, loss_fn_config={loss_fn_config!r}: the objective takes their place "
            f"and would ignore them. Leave {setting} at the cookbook's default and loss_fn_config at None; "
            "name the objective and its parameters instead."
        )


def _with_custom_loss(config: Any) -> Any:
    """``config`` with ``"custom"`` for each of the cookbook's losses in it."""
    import chz

    changes: dict[str, Any] = {"loss_fn": "custom"}
    if hasattr(config.async_config, "loss_fn"):
        changes["async_config"] = chz.replace(config.async_config, loss_fn="custom")
    return chz.replace(config, **changes)


def _field(datum: Datum, name: str) -> torch.Tensor:
    value = datum.loss_fn_inputs.get(name)
    if value is None:
        raise ConfigError(
            f"loss_fn_inputs has no {name!r}: {INPUTS[name]}. It has {', '.join(sorted(datum.loss_fn_inputs))}."
        )
    return value.to_torch()


def _pack(data: Sequence[Datum], logprobs: Sequence[torch.Tensor], objective: Objective) -> tuple[TokenBatch, float]:
    """The kept tokens of all datums, each a sequence, and the share left out for want of a log μ."""
    needed = ["logprobs", "advantages", "mask", *(name for name in objective.needs)]
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in needed}
    for index, (datum, current) in enumerate(zip(data, logprobs, strict=True)):
        for name in needed:
            value = _field(datum, name)
            if current.dim() != 1 or value.shape != current.shape:
                raise DataError(
                    f"datum {index}: {name} must be [N] as target_tokens, one token a position; got "
                    f"{list(value.shape)} for target log-probabilities {list(current.shape)}"
                )
            columns[name].append(value)
    keep, left_out = leave_out(torch.cat(columns.pop("mask")) > 0, torch.cat(columns["logprobs"]), HOST)
    lengths = torch.tensor([len(current) for current in logprobs])
    ids = torch.arange(len(logprobs)).repeat_interleave(lengths)
    kept = {name: torch.cat(values)[keep].float() for name, values in columns.items()}
    batch = TokenBatch(
        torch.cat(list(logprobs))[keep],
        kept["logprobs"],
        kept["advantages"],
        sequence_ids=ids[keep],
        proximal_logprobs=kept.get("proximal_logprobs"),
    )
    return batch, left_out
