"""The columns of a token log: their names here and elsewhere, and what to say when they are missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from drpo.errors import DataError, suggest

#: Column → the names it goes by, ours first. Plural names are those of the layout with one row a response; the
#: others are verl's (rollout_log_probs, old_log_probs) and TRL's (sampling_per_token_logps, per_token_logps).
NAMES: dict[str, tuple[str, ...]] = {
    "logprob": ("logprob", "logprobs", "per_token_logps", "log_probs", "old_per_token_logps", "old_log_probs"),
    "behavior_logprob": (
        "behavior_logprob", "behavior_logprobs", "sampling_per_token_logps", "sampling_logprobs", "rollout_log_probs",
    ),
    "advantage": ("advantage", "advantages"),
    "sequence_id": ("sequence_id", "sequence_ids"),
    "step": ("step",),
    "update": ("update",),
    "token": ("token", "tokens"),
    "text": ("text", "texts"),
    "mask": ("mask", "response_mask", "completion_mask"),
    "proximal_logprob": ("proximal_logprob", "proximal_logprobs"),
    "entropy": ("entropy", "entropies"),
}  # fmt: skip

#: Columns that every log must have; sequence_id only where a row is a token.
REQUIRED = ("logprob", "behavior_logprob", "advantage")
#: Columns of log-probabilities and other numbers of a token; in the layout of one row a response each is a list.
PER_TOKEN = ("logprob", "behavior_logprob", "proximal_logprob", "entropy")
#: Optional column → the field of TokenBatch that it fills.
FIELDS = {"proximal_logprob": "proximal_logprobs", "entropy": "entropy"}
DOCUMENTED = "The record layouts are in docs/inspect.md."


def resolve(present: Collection[str], where: str) -> dict[str, str]:
    """Column → the name it has in this file, for all that are there.

    Raises:
        DataError: a required column is missing.
    """
    found = {
        column: name
        for column, names in NAMES.items()
        if (name := next((name for name in names if name in present), None)) is not None
    }
    missing = [column for column in REQUIRED if column not in found]
    if missing:
        raise DataError(_missing(missing, present, where))
    return found


def require_sequence_id(found: Mapping[str, str], present: Collection[str], where: str) -> None:
    """Raise a DataError unless a log with one row a token says which tokens belong together."""
    if "sequence_id" not in found:
        raise DataError(_missing(["sequence_id"], present, where))


def _missing(missing: Iterable[str], present: Collection[str], where: str) -> str:
    if {"input", "output", "score"} <= set(present):
        return (
            f"{where} is a verl rollout dump (input, output, score), which has no log-probabilities: verl's "
            "trainer.rollout_data_dir writes texts and scores only. Add to each line the response's lists "
            "rollout_log_probs (μ), old_log_probs (π), advantages and response_mask, as docs/inspect.md shows."
        )
    if {"prompt", "completion"} <= set(present):
        return (
            f"{where} is TRL's table of completions (prompt, completion, …), which has no log-probabilities: "
            "log_completions writes texts, rewards and one advantage. Add the lists sampling_per_token_logps (μ) and "
            "per_token_logps (π) to each row, as docs/inspect.md shows."
        )
    missing = list(missing)
    plural = "s" if len(missing) > 1 else ""
    nearest = " ".join(f"For {column}:{suggest(column, present)}" for column in missing[:1])
    allowed = "; ".join(f"{column} may be called {', '.join(NAMES[column])}" for column in missing)
    return f"{where} lacks the column{plural} {', '.join(missing)} ({allowed}). {nearest} {DOCUMENTED}"
