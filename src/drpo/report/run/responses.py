"""Sampled responses to the same held-out prompts, before and after, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.report.html.escape import as_text
from drpo.report.html.example import Answer, example
from drpo.report.html.frame import Section
from drpo.report.run.history import History, Record, value_of

#: How many prompts are shown, as many of each kind as there is room for.
PROMPTS = 48

#: A response with this reward is right.
RIGHT = 1.0
#: What may become of a prompt, what a reader wants to see first first.
KINDS = (
    "right became wrong",
    "wrong became right",
    "wrong both times",
    "right both times",
    "wrong",
    "right",
    "not graded",
)

#: A heading and the response under it; None where the prompt was not sampled.
Side = tuple[str, Record | None]


def responses(history: History) -> Section | None:
    """The section; None if no responses were kept."""
    if history.held_out:
        steps = sorted(history.held_out)
        shown = steps[:1] if len(steps) == 1 else [steps[0], steps[-1]]
        rows = _same_prompts([(f"step {step}", history.held_out[step]) for step in shown])
        choice = "held-out prompts, one sample each; prompts sampled both times come first"
    elif history.training:
        step = max(history.training)
        rows = _same_prompts([(f"step {step}", history.training[step])])
        choice = f"training prompts of step {step}, one sample each; no held-out responses were kept"
    else:
        return None
    if not rows:
        return None
    kinds: dict[str, list[list[Side]]] = {kind: [] for kind in KINDS}
    for sides in rows:
        kinds[kind_of(sides)].append(sides)
    counts = ", ".join(f"{len(found):,} {kind}" for kind, found in kinds.items() if found)
    room = PROMPTS // max(1, sum(bool(found) for found in kinds.values()))
    examples = "".join(_example(kind, sides) for kind, found in kinds.items() for sides in found[:room])
    return Section(
        "Responses",
        f"<p>{counts}: {choice}. At most {room} of each kind are shown. Invisible characters are shown as "
        f"<code>U+XXXX</code>.</p><div data-kinds>{examples}</div>",
    )


def _same_prompts(columns: Sequence[tuple[str, list[Record]]]) -> list[list[Side]]:
    """One row a prompt: its first sample in each column. Prompts of the last column come first."""
    firsts: list[tuple[str, dict[tuple[str, str], Record]]] = []
    for heading, records in columns:
        first: dict[tuple[str, str], Record] = {}
        for record in records:
            first.setdefault((as_text(record.get("prompt")), as_text(record.get("answer"))), record)
        firsts.append((heading, first))
    prompts = {key: None for _, first in reversed(firsts) for key in first}
    # Prompts answered in every column lead: those can be compared.
    ordered = sorted(prompts, key=lambda key: sum(key not in first for _, first in firsts))
    return [[(heading, first.get(key)) for heading, first in firsts] for key in ordered]


def kind_of(sides: Sequence[Side]) -> str:
    """What became of a prompt between the first and the last time it was sampled: a key of KINDS."""
    rewards = [value_of(record, "reward") for _, record in sides if record is not None]
    if len(rewards) < 2 or rewards[0] is None or rewards[-1] is None:
        known = rewards[-1] if rewards else None
        return "not graded" if known is None else "right" if known >= RIGHT else "wrong"
    right = [reward >= RIGHT for reward in (rewards[0], rewards[-1])]
    if right[0] and right[1]:
        return "right both times"
    if not right[0] and not right[1]:
        return "wrong both times"
    return "right became wrong" if right[0] else "wrong became right"


def _example(kind: str, sides: list[Side]) -> str:
    record = next(record for _, record in sides if record is not None)
    answers = [(heading, None if found is None else _answer(found)) for heading, found in sides]
    return example(record.get("prompt"), record.get("answer"), answers, kind)


def _answer(record: Record) -> Answer:
    return Answer(record.get("text"), value_of(record, "reward"), record.get("stop_reason"))
