"""A prompt with the responses to it, side by side: a model's text, which is never markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.quantities import plain

#: How much of each text is shown.
LONGEST_PROMPT, LONGEST_RESPONSE, LONGEST = 1200, 2000, 200


class Answer(NamedTuple):
    """A response, its reward (None: grading failed), and why it stopped, if that is known."""

    text: object
    reward: float | None
    stop_reason: object = None


def example(prompt: object, expected: object, sides: Sequence[tuple[str, Answer | None]], kind: str = "") -> str:
    """The example as HTML.

    Args:
        prompt: text.
        expected: the right answer; None where there is none.
        sides: a heading and the response under it; None where the prompt was not sampled.
        kind: what became of the prompt, by which, and by the last reward, the page's script can choose; empty: nothing
            to choose by.
    """
    known = "" if expected is None else f"<p class='soft'>answer: {_said(expected, LONGEST_PROMPT, 'span')}</p>"
    columns = "".join(_side(heading, answer) for heading, answer in sides)
    rewards = [answer.reward for _, answer in sides if answer is not None]
    last = f" data-reward='{rewards[-1]:.9g}'" if rewards and rewards[-1] is not None else ""
    named = f" data-kind='{visible_plain(kind)}'{last}" if kind else ""
    return (
        f"<div class='example'{named}><span class='soft'>prompt</span>{_said(prompt, LONGEST_PROMPT)}{known}"
        f"<div class='sides'>{columns}</div></div>"
    )


def _side(heading: str, answer: Answer | None) -> str:
    head = f"<span class='soft'>{visible(heading, LONGEST)}</span>"
    if answer is None:
        return f"<div>{head}<p class='none'>not sampled</p></div>"
    full = " full" if answer.reward is not None and answer.reward >= 1 else ""
    graded = "reward failed" if answer.reward is None else f"reward {plain(answer.reward)}"
    stop = answer.stop_reason
    ended = "" if stop is None else f" <span class='soft'>· stop reason {visible(stop, 60)}</span>"
    return (
        f"<div>{head} · <span class='reward{full}'>{graded}</span>{ended}{_said(answer.text, LONGEST_RESPONSE)}</div>"
    )


def _said(text: object, limit: int, tag: str = "div") -> str:
    return f"<{tag} class='said' dir='auto'>{visible(text, limit)}</{tag}>"
