"""What develops the package and is not part of it. Run a tool from the root of a clone: ``python -m tools.NAME``.

``docs/`` writes the generated parts of the documentation, ``measure/`` makes what they show (below ``results/``),
``warm_start/`` makes the embedded bases.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
