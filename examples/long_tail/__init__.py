"""The objectives on a recommender's logged clicks: a softmax policy over a long tail of actions, no LLM.

Uses the library as any program would (``make_objective``, ``TokenBatch``, ``aggregate``, ``diagnose``) and the lab's
statistics; docs/long-tail.md says what it found. :data:`COMMAND` runs it from the root of a clone.
"""

from __future__ import annotations

COMMAND = "python -m examples.long_tail"
