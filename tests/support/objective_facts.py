"""What the contract test knows of each objective: numbers worked out by hand, and its gradient weight.

Whoever registers an objective adds an entry to its family's FACTS; the contract test fails until there is one.
"""

from __future__ import annotations

from support import facts_divergence, facts_masking, facts_ratio, facts_regularized, facts_sequence, facts_update
from support.facts_schema import Case, Facts

__all__ = ["FACTS", "Case", "Facts"]

#: Registry name → facts.
FACTS: dict[str, Facts] = {
    **facts_ratio.FACTS,
    **facts_masking.FACTS,
    **facts_divergence.FACTS,
    **facts_regularized.FACTS,
    **facts_sequence.FACTS,
    **facts_update.FACTS,
}
