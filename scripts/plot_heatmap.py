"""Draw docs/figures/heatmap.png: the gradient weight over (μ, π), as `drpo objectives --plot` draws it."""

from __future__ import annotations

import argparse
from pathlib import Path

from drpo.cli.plots import heatmap
from drpo.objectives import make_objective

DELTA = 0.15
#: Panel title → objective.
PANELS = {
    "PPO (r within 1 ± 0.2)": make_objective("ppo"),
    "SPO (ε = 0.2)": make_objective("spo"),
    f"DPPO (δ = {DELTA})": make_objective("dppo_tv", delta=DELTA),
    f"DRPO (δ = {DELTA})": make_objective("drpo", delta=DELTA),
}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder to write to")
    file = parser.parse_args().out / "heatmap.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    heatmap(PANELS, boundary=DELTA).savefig(file, dpi=160, metadata={"Software": None})
    print(file)


if __name__ == "__main__":
    main()
