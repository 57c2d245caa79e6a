"""Comparing what two inspections found."""

from __future__ import annotations

from typing import Any

import pytest

from drpo.inspection.result import Inspection


def comparable(found: Inspection) -> dict[str, Any]:
    """All but where the records stand, whose layout they have, and what was left out."""
    values = found.figures_only()
    for name in ("files", "masks", "masked_tokens", "layouts"):
        del values[name]
    for token in values["affected"]:
        del token["source"], token["row"]
    return values


def close(a: Any, b: Any) -> bool:
    """Equal, numbers up to the order in which they were added."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == pytest.approx(b, rel=1e-6, abs=1e-12, nan_ok=True) if isinstance(a, float) else a == b
