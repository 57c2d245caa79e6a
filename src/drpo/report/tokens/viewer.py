"""The token viewer: data and an empty place that the page's script fills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from drpo.inspection.result import SampledResponse
from drpo.report.html.data import json_block
from drpo.report.html.escape import readable
from drpo.report.tokens.encoding import flags, floats, places, vocabulary, weights

#: Longest name of a group or a file that is kept.
LONGEST = 120
#: What a test compares.
Figure = Literal["shift", "below_weight"]


@dataclass(frozen=True, slots=True)
class TokenTest:
    """A question that the reader may ask of each token: whether the size of a figure is above a limit.

    ``below_weight``: the gradient weight is at most the limit.
    """

    title: str
    figure: Figure
    limit: float = 0.0


def token_viewer(responses: Sequence[SampledResponse], delta: float, tests: Sequence[TokenTest] = ()) -> str:
    """The viewer as HTML; empty without responses.

    Args:
        responses: in the order in which they were logged; the weights of each are of the same objectives, of which the
            first is the run's own.
        delta: the bound on |π − μ| that colors refer to.
        tests: what responses can be chosen by, beside the findings that are about some of the tokens.
    """
    if not responses:
        return ""
    return (
        "<div class='viewer' data-tokens='tokens-data'><p class='soft'>The tokens are drawn by the page's script, "
        f"which did not run here.</p></div>{json_block('tokens-data', _data(responses, delta, tests))}"
    )


def _data(responses: Sequence[SampledResponse], delta: float, tests: Sequence[TokenTest]) -> dict[str, Any]:
    names = list(responses[0].weights)
    files = list(dict.fromkeys(response.source for response in responses))
    found = dict.fromkeys(name for response in responses for name in response.pointed)
    count = sum(len(response.logprobs) for response in responses)
    data: dict[str, Any] = {
        "delta": delta,
        "files": [readable(file, LONGEST) for file in files],
        "tests": [
            *({"title": test.title, "figure": test.figure, "limit": test.limit} for test in tests),
            *({"title": f"the finding {name}", "flags": flags(_pointed(responses, name), count)} for name in found),
        ],
        "responses": [_response(response, files) for response in responses],
        "mu": floats(value for response in responses for value in response.behavior_logprobs),
        "pi": floats(value for response in responses for value in response.logprobs),
        "advantages": floats(value for response in responses for value in response.advantages),
        "weights": {
            readable(name, LONGEST): weights(value for response in responses for value in response.weights[name])
            for name in names
        },
    }
    for key in ("texts", "ids"):
        if any(getattr(response, key) for response in responses):
            listed = (getattr(response, key) or [None] * len(response.logprobs) for response in responses)
            known, found = vocabulary(chain.from_iterable(listed))
            data |= {key: known, f"{key}_at": places(found)}
    return data


def _pointed(responses: Sequence[SampledResponse], name: str) -> Iterator[int]:
    """The places of a finding's tokens among those of all responses."""
    start = 0
    for response in responses:
        yield from (start + place for place in response.pointed.get(name, ()))
        start += len(response.logprobs)


def _response(response: SampledResponse, files: Sequence[str]) -> dict[str, Any]:
    return {
        "file": files.index(response.source),
        "row": response.row,
        "step": response.step,
        "update": response.update,
        "group": None if response.group is None else readable(response.group, LONGEST),
        "reward": response.reward,
        "first": response.first,
        "length": response.length,
        "count": len(response.logprobs),
        "why": response.why,
    }
