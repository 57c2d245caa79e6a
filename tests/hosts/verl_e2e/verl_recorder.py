"""Notes what the loop really did: every call of a policy loss, and every response as vLLM returned it.

``actor_rollout_ref.model.external_lib=verl_recorder`` has verl import this in its workers;
``rollout.agent.default_agent_loop=recorded`` sends responses past :class:`RecordedAgentLoop`. Both append JSON lines to
the files below $VERL_RECORD_DIR. ``$VERL_SABOTAGE`` breaks the loss, to show that the test would notice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.utils import losses
from verl_cpu_run import LOSS_CALLS, RESPONSES

#: What the loss is multiplied by.
SABOTAGE = {"": 1.0, "zero": 0.0, "flip": -1.0}


def note(name: str, entry: dict[str, Any]) -> None:
    """One line, in one write: several processes share a file."""
    with (Path(os.environ["VERL_RECORD_DIR"]) / name).open("a") as file:
        file.write(json.dumps(entry) + "\n")


class RecordedAgentLoop(SingleTurnAgentLoop):
    """verl's own single turn, with what it returns written down before anything else sees it."""

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        output = await super().run(*args, **kwargs)
        note(RESPONSES, {"logprobs": _float32(output.response_logprobs), "length": len(output.response_ids)})
        return output


def _float32(values: list[float]) -> list[float]:
    return torch.tensor(values, dtype=torch.float32).tolist()


def recorded(name: str, loss: Any) -> Any:
    """The loss function ``name``, its inputs and result written down."""

    def policy_loss(**inputs: Any) -> Any:
        value, metrics = loss(**inputs)
        mask = inputs["response_mask"].bool()
        logprobs, given = inputs["log_prob"].detach(), inputs["old_log_prob"]
        config = inputs["config"].policy_loss
        note(
            LOSS_CALLS,
            {
                "loss_mode": name,
                "objective": config.get("objective"),
                "old_logprobs": [row[kept].tolist() for row, kept in zip(given, mask, strict=True)],
                "largest_log_ratio": (logprobs - given)[mask].abs().max().item(),
                "loss": value.item(),
                "masked_share": metrics.get("drpo/masked_share"),
            },
        )
        return value * SABOTAGE[os.environ.get("VERL_SABOTAGE", "")], metrics

    return policy_loss


def _record_losses() -> None:
    look_up = losses.get_policy_loss_fn
    losses.get_policy_loss_fn = lambda name: recorded(name, look_up(name))


_record_losses()
