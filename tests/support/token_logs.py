"""The tokens of a padded batch as a token log in our own layout, to compare a host's with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from drpo.inspection.inspect import inspect
from support.inspections import close, comparable

OBJECTIVES = ["surrogate", "grpo", "drpo", "dppo_tv"]


def same_figures(host: Path, padded: Any, folder: Path) -> str:
    """Whose layout ``host`` was read as, once its figures are found to be those of our own log of ``padded``.

    Args:
        host: a log that the host's own types wrote.
        padded: has ``logprobs``, ``behavior_logprobs``, ``mask`` ``[B, T]`` and ``advantages`` ``[B]`` or ``[B, T]``.
        folder: for our own log.
    """
    advantages = torch.broadcast_to(padded.advantages.reshape(len(padded.mask), -1), padded.mask.shape)
    rows = []
    for row, keep in enumerate(padded.mask.bool()):
        parts = (padded.logprobs, padded.behavior_logprobs, advantages)
        lists = [values[row][keep].float().tolist() for values in parts]
        rows.append(dict(zip(("logprobs", "behavior_logprobs", "advantage"), lists, strict=True)))
    own = folder / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, expected = (inspect([file], objectives=OBJECTIVES) for file in (host, own))
    a, b = comparable(found), comparable(expected)
    for values in (a, b):
        values["findings"] = [finding for finding in values["findings"] if finding["name"] not in ("masks", "outliers")]
        for token in values["affected"]:
            del token["token"]
    assert found.tokens == int(padded.mask.sum()) and close(a, b), (a, b)
    return " and ".join(found.layouts)
