"""Make docs/architectures.md: the start check on every causal LM of transformers, tiny and random.

python scripts/measure_architectures.py [NAME …]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import transformers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import architectures  # noqa: E402  # pyright: ignore[reportMissingImports]

from drpo.errors import DrpoError  # noqa: E402
from drpo.model.start_check import check_passes  # noqa: E402

HEAD = """# Architectures

What the start check ([sampling.md](sampling.md#the-start-check)) finds on every causal language model of transformers
{version}: tiny, with random weights, prompts of different length, in float32 on a CPU. *Difference* is the largest one
of log π or log μ from a plain forward pass of each sequence alone, in nats. {passed} architectures and variants pass,
{refused} are refused with the reason (bailing_hybrid and kimi_linear for tiny settings that do not fit together),
{unbuilt} could not be made tiny. `python scripts/measure_architectures.py` makes this page.

| architecture | trainer | sampler | difference |
|---|---|---|---|
"""


def row(name: str) -> tuple[str, str]:
    """What became of the architecture ``name`` (passed, refused or unbuilt), and its line."""
    try:
        model = architectures.network(name)
    # Whatever transformers raises for a configuration is the reason.
    except Exception as error:
        return "unbuilt", f"| {name} | not made: {_short(error)} | | |"
    try:
        passes = check_passes(model)
    except DrpoError as error:
        return "refused", f"| {name} | refused: {_short(error)} | | |"
    largest = max(passes.trainer.difference, passes.sampler.difference)
    return "passed", f"| {name} | {passes.trainer.way} | {passes.sampler.way} | {largest:.1e} |"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()).replace("|", "/")
    return text if len(text) <= 110 else text[:109] + "…"


def main(names: list[str]) -> None:
    """Print the lines of ``names``, or write the page of all."""
    warnings.filterwarnings("ignore")
    rows = []
    for name in names or architectures.NAMES:
        rows.append(row(name))
        sys.stdout.write(rows[-1][1] + "\n")
        sys.stdout.flush()
    if not names:
        counts = {kind: sum(found == kind for found, _ in rows) for kind in ("passed", "refused", "unbuilt")}
        head = HEAD.format(version=transformers.__version__, **counts)
        (ROOT / "docs" / "architectures.md").write_text(head + "\n".join(line for _, line in rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
