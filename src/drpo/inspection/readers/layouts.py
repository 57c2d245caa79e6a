"""Whose layout a log has, by the names of its columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

#: What is said of a log whose columns the user named.
MAPPED = "a log with the columns named by --map"
#: What is said of names that no trainer here gives to its columns together.
MIXED = "a log with the columns {pi} (π) and {mu} (μ)"


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that tell a trainer's layout from the others.

    Args:
        title: what the log is called in the output.
        pi, mu: names of which one must be π, and one μ.
        beside: names of which at least one must be in the file; empty: any file.
    """

    title: str
    pi: frozenset[str]
    mu: frozenset[str]
    beside: frozenset[str] = field(default_factory=frozenset)


def _layout(title: str, pi: str, mu: str, beside: str = "") -> Layout:
    return Layout(title, frozenset(pi.split()), frozenset(mu.split()), frozenset(beside.split()))


#: The first one that fits is named: those that ask for more columns come first.
LAYOUTS = (
    _layout("drpo's token log", "logprob logprobs", "behavior_logprob behavior_logprobs"),
    _layout("prime-rl's token export", "trainer_logprobs trainer_logprob", "inference_logprobs inference_logprob"),
    _layout("NeMo-RL's training data", "prev_logprobs prev_logprob", "generation_logprobs generation_logprob"),
    _layout("ms-swift's columns", "per_token_logps old_per_token_logps", "rollout_per_token_logps"),
    _layout("TRL's columns", "per_token_logps old_per_token_logps", "sampling_per_token_logps"),
    _layout("AReaL's training batch", "prox_logp", "logprobs"),
    _layout("tinker-cookbook's data", "training_logprobs", "logprobs sampling_logprobs"),
    _layout("SkyRL's training batch", "action_log_probs", "rollout_logprobs"),
    _layout("the training data of slime, vime or miles", "log_probs", "rollout_log_probs"),
    _layout("OpenRLHF's experience", "old_log_probs action_log_probs", "rollout_log_probs", "action_mask action_masks"),
    _layout("verl's batch", "old_log_probs old_log_prob", "rollout_log_probs rollout_log_prob"),
)


def layout_of(columns: Mapping[str, str], present: Collection[str], mapped: Collection[str]) -> str:
    """What a log is called.

    Args:
        columns: column → its name in the file.
        present: all names in the file.
        mapped: columns that the user named.
    """
    pi, mu = columns["logprob"], columns["behavior_logprob"]
    if {"logprob", "behavior_logprob"} & set(mapped):
        return MAPPED
    for layout in LAYOUTS:
        if pi in layout.pi and mu in layout.mu and (not layout.beside or layout.beside & set(present)):
            return layout.title
    return MIXED.format(pi=pi, mu=mu)
