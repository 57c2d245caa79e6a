"""Every random decision of a run follows from its seed and what it is for, not from what was drawn before.

So a resumed run draws what the uninterrupted one would have drawn, and arms of a comparison share their draws.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2^63) for ``purpose``; different purposes are independent."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
