"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about ``what``; ``fix`` says how to get from there to ``ok``, and is empty where there is nothing
    to do, or where ``found`` is an error of ours, which says so itself.

    ``note`` is a fact to know, ``warning`` something that may go wrong, ``problem`` something that will.
    """

    status: Status
    what: str
    found: str
    fix: str = ""
