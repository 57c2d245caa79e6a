"""The experts of the rollout in the trainer: how far its own choice is from theirs, and taking theirs.

Shapes: ``B`` sequences, ``T`` positions, ``N`` response tokens, ``M`` routers, ``K`` experts a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drpo.errors import ConfigError
from drpo.model.forward import PADDED, ForwardSettings, micro_batches, padded_experts, positions
from drpo.model.policy import Policy
from drpo.rollouts import Sampler
from drpo.rollouts.sampler import reports_experts
from drpo.train.gradient import sequences_of
from drpo.train.rollout import Sample

#: Responses of a step that the routing is compared on: enough for a share to two digits, little to compute.
MEASURED = 32


def replay_routing(policy: Policy, sampler: Sampler) -> None:
    """Have ``policy`` replay the experts that ``sampler`` reports.

    Raises:
        ConfigError: the model has no routers, or others than those that can be replayed; or the sampler does not
            report experts.
    """
    if policy.routers.problem is not None:
        raise ConfigError(f"router_replay=true: {policy.routers.problem}. Leave router_replay out.")
    if not reports_experts(sampler):
        raise ConfigError(
            f"router_replay=true: {type(sampler).__name__} as configured does not report the experts it "
            "chose. Use the in-process sampler, not compiled, or leave router_replay out."
        )
    policy.replay_routing()


@torch.no_grad()
def routing_mismatch(policy: Policy, samples: Sequence[Sample], forward: ForwardSettings) -> dict[str, float]:
    """How often the policy's forward pass takes other experts than the rollout did, at the positions that predict the
    tokens of the first ``samples``.

    Returns:
        ``routing_mismatch``, the share of (token, router) pairs whose sets of experts differ, and
        ``routing_mismatch_tokens``, the share of tokens where any does; nothing if no experts were reported.
    """
    sequences = [sequence for sequence in sequences_of(samples[:MEASURED]) if sequence.experts is not None]
    differing = []
    for rows in micro_batches(sequences, forward.micro_batch_tokens, PADDED):
        part = [sequences[row] for row in rows]
        ids, at = positions(part)
        with policy.replaying(part), policy.routers.recording() as recording:
            policy.model.base_model(input_ids=ids.to(policy.device), use_cache=False)
        ours = recording.take().cpu().unflatten(0, ids.shape)[tuple(at)]
        theirs = padded_experts(part)[tuple(at)]
        differing.append((ours.sort(-1).values != theirs.sort(-1).values).any(-1))
    if not differing:
        return {}
    pairs = torch.cat(differing).float()
    return {"routing_mismatch": float(pairs.mean()), "routing_mismatch_tokens": float(pairs.amax(1).mean())}
