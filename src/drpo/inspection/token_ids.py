"""Token ids as numbers, where a log has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo.inspection.readers.arrow_columns import ArrowItems
from drpo.inspection.readers.tokens import Integers, Selected


def integer_ids(ids: Sequence[Any] | None) -> Integers | None:
    """``[N]`` the ids of a chunk; None where some are missing or are not whole numbers."""
    if ids is None:
        return None
    if isinstance(ids, Selected):
        every = integer_ids(ids.source)
        return None if every is None else every[ids.positions]
    values = ids.column.to_numpy(zero_copy_only=False) if isinstance(ids, ArrowItems) else np.array(ids)
    return values.astype(np.int64) if values.dtype.kind in "iu" else None
