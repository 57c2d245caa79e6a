"""Run the start check on every causal LM of transformers, tiny and random, and write results/architectures.json.

python -m tools.measure.architectures             # all of them
python -m tools.measure.architectures NAME …      # these alone: printed, not written
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

import transformers

from drpo.errors import DrpoError
from drpo.files import replace_text
from drpo.model.start_check import check_passes
from tools import RESULTS, ROOT

sys.path.insert(0, str(ROOT / "tests"))

from support import architectures

FILE = RESULTS / "architectures.json"


def measure(name: str) -> dict[str, Any]:
    """What became of the architecture ``name``: "passed" with its passes, or "refused" or "unbuilt" with the reason."""
    try:
        model = architectures.network(name)
    # Whatever transformers raises for a configuration is the reason.
    except Exception as error:
        return {"name": name, "outcome": "unbuilt", "reason": _short(error)}
    try:
        passes = check_passes(model)
    except DrpoError as error:
        return {"name": name, "outcome": "refused", "reason": _short(error)}
    largest = max(passes.trainer.difference, passes.sampler.difference)
    found = {"trainer": passes.trainer.way, "sampler": passes.sampler.way, "difference": largest}
    return {"name": name, "outcome": "passed", **found}


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 110 else text[:109] + "…"


def main() -> None:
    """Print what is found, and write it if all were asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="default: all")
    names = parser.parse_args().names
    warnings.filterwarnings("ignore")
    rows = []
    for name in names or architectures.NAMES:
        rows.append(measure(name))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if not names:
        found = {"schema": 1, "transformers": transformers.__version__, "rows": rows}
        replace_text(FILE, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
