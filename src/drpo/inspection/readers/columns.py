"""The columns of a token log: the names they go by in each trainer, and what to say when one is missing or unclear."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from drpo.errors import DataError
from drpo.inspection.readers.column_map import AUTOMATIC, ColumnMap
from drpo.inspection.readers.masks import MASK, resolve_masks

#: Column → groups of the names it goes by, the better group first: ours, then each trainer's. Plural names are those
#: of the layout with one row a response. π of the forward pass that is trained on is better than π recomputed at the
#: weights that sampled. The others are verl's (rollout_log_probs, old_log_probs), TRL's (sampling_per_token_logps,
#: per_token_logps), prime-rl's (trainer_logprobs, inference_logprobs), NeMo-RL's (prev_logprobs,
#: generation_logprobs), ms-swift's (rollout_per_token_logps), OpenRLHF's and SkyRL's (action_log_probs).
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "logprob": (
        ("logprob", "logprobs"),
        (
            "per_token_logps",
            "log_probs",
            "log_prob",
            "trainer_logprobs",
            "trainer_logprob",
            "training_logprobs",
            "training_logprob",
            "action_log_probs",
        ),
        (
            "old_per_token_logps",
            "old_log_probs",
            "old_log_prob",
            "old_logprobs",
            "old_logprob",
            "prev_logprobs",
            "prev_logprob",
        ),
    ),
    "behavior_logprob": (
        ("behavior_logprob", "behavior_logprobs"),
        (
            "sampling_per_token_logps",
            "sampling_logprobs",
            "rollout_log_probs",
            "rollout_log_prob",
            "rollout_logprobs",
            "rollout_logprob",
            "rollout_per_token_logps",
            "inference_logprobs",
            "inference_logprob",
            "generation_logprobs",
            "generation_logprob",
        ),
    ),
    "advantage": (("advantage", "advantages"),),
    "reward": (("reward", "rewards"), ("score", "scores")),
    "group": (
        ("group_id", "group_ids", "group_index", "group_indices", "group_idx"),
        ("prompt_id", "prompt_ids", "prompt_index", "prompt_idx", "uid", "uids"),
    ),
    "sequence_id": (("sequence_id", "sequence_ids"),),
    "step": (("step",),),
    "update": (("update",),),
    "token": (("token", "tokens"), ("token_ids",)),
    "text": (("text", "texts"),),
    "proximal_logprob": (("proximal_logprob", "proximal_logprobs"),),
    "entropy": (("entropy", "entropies"),),
    "support_size": (("support_size", "support_sizes"),),
}
#: Column → the names it goes by.
NAMES = {column: tuple(name for group in groups for name in group) for column, groups in GROUPS.items()}

#: π and μ of trainers that call the sampler's log-probabilities plain logprobs: AReaL's batch after
#: compute_advantages; tinker-cookbook's loss_fn_inputs beside the training_logprobs that its train_step returns. Taken
#: where both names are there and no other name of μ is.
PAIRS = (("prox_logp", "logprobs"), ("training_logprobs", "logprobs"))

#: Columns that every log must have; sequence_id only where a row is a token.
REQUIRED = ("logprob", "behavior_logprob", "advantage")
#: Beside an advantage nothing is read of these; without one, it is computed from them. What each must be.
ONE_A_RESPONSE = {"reward": "one finite number a response", "group": "a whole number or text"}
#: The same beside an advantage: shown with a response, whatever they hold, and read for nothing else.
SHOWN = {"shown_reward": "reward", "shown_group": "group"}
#: Columns of log-probabilities and other numbers of a token; in the layout of one row a response each is a list.
PER_TOKEN = ("logprob", "behavior_logprob", "proximal_logprob", "entropy", "support_size")
#: Columns of whole numbers.
INTEGERS = ("step", "update")
#: Columns whose values say which rows are one response, in the layout of one row a token.
KEYS = ("step", "update", "sequence_id")
#: Optional column → the field of TokenBatch that it fills.
FIELDS = {"proximal_logprob": "proximal_logprobs", "entropy": "entropy"}
DOCUMENTED = "The record layouts are in docs/inspect.md."

#: Words in the name of a column that say whose log-probabilities it holds. A column of another policy is never
#: suggested.
_OF_MU = re.compile(r"rollout|behaviou?r|sampl|infer|generat|vllm|sglang|engine|(^|_)mu(_|$)", re.IGNORECASE)
_LOGPROBS = re.compile("log_?p", re.IGNORECASE)
_OF_OTHERS = re.compile(r"ref|teacher|base|critic|value", re.IGNORECASE)


def resolve(present: Collection[str], where: str, given: ColumnMap = AUTOMATIC) -> dict[str, str]:
    """Column → the name it has in this file, for all that are there.

    Args:
        present: names of the file's columns.
        where: the file, for messages.
        given: the names that the user gave; they go before the known ones.

    Raises:
        DataError: a required column is missing, two may be π or μ, a column that was named is not there, or a column
            that looks like a mask is not known.
    """
    taken = given.taken()
    found = _pair(present, given)
    for column in [column for column in NAMES if column not in found]:
        if column in given.names:
            for name in given.names[column]:
                found[column] = _named(column, name, present, where)
        elif (name := _known(column, [n for n in present if n not in taken], where)) is not None:
            found[column] = name
    found = _advantage_or_reward(found, given, [*present])
    missing = [
        column for column in REQUIRED if column not in found and not (column == "advantage" and "reward" in found)
    ]
    missing += [column for column in ONE_A_RESPONSE if _asked_for(given) and column not in found]
    if missing:
        raise DataError(_missing(missing, present, found, where))
    if MASK in given.names:
        masks = [_named(MASK, name, present, where) for name in given.names[MASK]]
    else:
        masks = resolve_masks([name for name in present if name not in {*taken, *found.values()}], where)
    return found | {f"{MASK}.{i}": name for i, name in enumerate(masks)}


def _pair(present: Collection[str], given: ColumnMap) -> dict[str, str]:
    """π and μ where their names are only clear together."""
    if not {"logprob", "behavior_logprob"} & given.names.keys() and not set(NAMES["behavior_logprob"]) & set(present):
        for pi, mu in PAIRS:
            if pi in present and mu in present and not {pi, mu} & given.taken():
                return {"logprob": pi, "behavior_logprob": mu}
    return {}


def _advantage_or_reward(found: dict[str, str], given: ColumnMap, present: list[str]) -> dict[str, str]:
    """``found`` with either the advantage, or what it is computed from: reward and group, which are only shown
    otherwise."""
    if (_asked_for(given) or "advantage" not in found) and ONE_A_RESPONSE.keys() <= found.keys():
        return {column: name for column, name in found.items() if column != "advantage"}
    shown = {column: found[of] for column, of in SHOWN.items() if of in found and present.count(found[of]) == 1}
    return {column: name for column, name in found.items() if column not in ONE_A_RESPONSE} | shown


def _asked_for(given: ColumnMap) -> bool:
    """Whether the user wants advantages that are computed."""
    return bool(ONE_A_RESPONSE.keys() & given.names.keys())


def require_sequence_id(found: Mapping[str, str], present: Collection[str], where: str) -> None:
    """Raise a DataError unless a log with one row a token says which tokens belong together."""
    if "sequence_id" not in found:
        raise DataError(_missing(["sequence_id"], present, found, where))


def is_mask(column: str) -> bool:
    """Whether a column that :func:`resolve` found is a mask."""
    return column.startswith(f"{MASK}.")


def _known(column: str, present: Collection[str], where: str) -> str | None:
    """The name of ``column`` among ``present`` names, in the best group that has one."""
    for group in GROUPS[column]:
        names = [name for name in group if name in present]
        if len(names) > 1 and column in ("logprob", "behavior_logprob"):
            raise DataError(
                f"{where}: the columns {', '.join(names)} may each be {column}. Name the right one with "
                f"--map {column}={names[0]}."
            )
        if names:
            return names[0]
    return None


def _named(column: str, name: str, present: Collection[str], where: str) -> str:
    if name not in present:
        raise DataError(f"{where} has no column {name!r:.80}, which --map gives for {column}.{_listed(present)}")
    return name


def _missing(missing: Iterable[str], present: Collection[str], found: Mapping[str, str], where: str) -> str:
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
    if {"tokens", "response_length", "rollout_log_probs"} <= set(present):
        return (
            f"{where} is a rollout dump of slime, vime or miles, which has μ (rollout_log_probs) and not π. Inspect "
            "what --save-debug-train-data PATH writes, with {rollout_id} and {rank} in PATH."
        )
    if {"schema", "stop_reason"} <= set(present) or {"schema", "kind", "step"} <= set(present):
        return (
            f"{where} is a file of a run of `drpo train`, but not its token log, which is in the run's folder tokens. "
            "Give the directory of the run: drpo inspect RUN."
        )
    missing = list(missing)
    plural = "s" if len(missing) > 1 else ""
    allowed = "; ".join(f"{column} may be called {_some(NAMES[column])}" for column in missing)
    if "advantage" in missing:
        allowed += (
            f", or is computed from a reward ({_some(NAMES['reward'])}) and a group ({_some(NAMES['group'], 3)}) of "
            "each response"
        )
    near: dict[str, str] = {}
    for column in missing:
        if nearest := _nearest(column, [name for name in present if name not in {*found.values(), *near.values()}]):
            near[column] = nearest
    hint = "".join(f" Did you mean {name!r:.80} for {column}?" for column, name in near.items())
    named = ",".join(f"{column}={near.get(column, 'NAME'):.80}" for column in missing)
    return (
        f"{where} lacks the column{plural} {', '.join(missing)} ({allowed}).{hint} Name "
        f"{'them' if plural else 'it'} with --map {named}.{_listed(present)} {DOCUMENTED}"
    )


def _nearest(column: str, names: Collection[str]) -> str | None:
    """The name most like those of ``column``, of its own policy if it is one of log-probabilities."""
    if column == "logprob":
        allowed = [name for name in names if not _OF_MU.search(name) and not _OF_OTHERS.search(name)]
    elif column == "behavior_logprob":
        allowed = [name for name in names if _OF_MU.search(name) and not _OF_OTHERS.search(name)]
    else:
        allowed = [name for name in names if not _LOGPROBS.search(name)]
    near = [match for known in NAMES[column] for match in difflib.get_close_matches(known, allowed, n=1)]
    if not near and column == "behavior_logprob":
        # Unlike the known names, but the only log-probabilities that name the sampler.
        only = [name for name in allowed if _LOGPROBS.search(name)]
        return only[0] if len(only) == 1 else None
    return max(near, key=lambda name: max(_likeness(name, known) for known in NAMES[column]), default=None)


def _some(names: tuple[str, ...], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _listed(present: Collection[str]) -> str:
    names = sorted(present)
    shown = ", ".join(f"{name:.60}" for name in names[:30])
    more = f" and {len(names) - 30:,} more" if len(names) > 30 else ""
    return f" Its columns: {shown or '(none)'}{more}."
