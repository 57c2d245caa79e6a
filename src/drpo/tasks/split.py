"""Which problems are held out: a rule that looks at prompts only, so that no seed can make the sides overlap.

Endless tasks: a prompt is held out if its hash falls in one eighth of the range. Finite sets: the prompts
with the smallest hashes are held out. The hash is BLAKE2, hence the same in every process, Python and
machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from fractions import Fraction

#: One prompt in this many of an endless task is held out.
HELDOUT_ONE_IN = 8

#: Item seeds stay below this: NumPy takes 32 bits, and generators add small offsets to what they are given.
SEED_LIMIT = 2**31


def prompt_hash(prompt: str) -> int:
    """A uniform 64-bit number that depends on nothing but the prompt."""
    return _hash("prompt", prompt)


def is_heldout(prompt: str) -> bool:
    """Whether this prompt of an endless task belongs to the held-out side."""
    return prompt_hash(prompt) % HELDOUT_ONE_IN == 0


def heldout_prompts(prompts: Iterable[str], fraction: float) -> list[str]:
    """The held-out prompts of n distinct ones: ceil(fraction · n), but never all, by rising hash.

    Args:
        prompts: at least two distinct ones; duplicates count once.
        fraction: in (0, 1).
    """
    by_hash = sorted(set(prompts), key=lambda prompt: (prompt_hash(prompt), prompt))
    # Through its decimal digits: as binary floats, 0.1 · 30 is a little more than 3.
    count = math.ceil(Fraction(str(fraction)) * len(by_hash))
    return by_hash[: min(count, len(by_hash) - 1)]


def item_seed(*stream: int | str) -> int:
    """The seed, in [0, 2³¹), of the item with these coordinates, e.g. ("training", seed, index, attempt)."""
    return _hash("item", *(str(part) for part in stream)) % SEED_LIMIT


def _hash(*parts: str) -> int:
    text = "\x1f".join(parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
