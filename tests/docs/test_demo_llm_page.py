"""docs/demo-llm.md: its table on a record made here, and the committed record against what the demo promises."""

from __future__ import annotations

from drpo.files import read_json
from drpo.train.config_layers import load_config
from tools import ROOT
from tools.docs.demo_llm_table import code, table
from tools.measure.demo_llm import FILE, RECIPE

#: Bytes that the demo may take, and seconds of CPU time: six minutes on two quiet cores.
MEMORY, SECONDS = 6e9, 2 * 6 * 60


def test_every_measured_run_is_the_recipe_and_keeps_the_promises() -> None:
    runs = read_json(FILE)["runs"]
    config, _ = load_config(RECIPE)
    assert runs and len({run["seed"] for run in runs}) == len(runs)
    for run in runs:
        assert run["steps"] == config.steps
        assert run["before"]["samples"] == run["after"]["samples"] == config.eval_examples * config.eval_samples
        assert run["peak_bytes"] < MEMORY and run["cpu_seconds"] < SECONDS
        assert run["outcome"].startswith("Held-out accuracy improved")


def test_the_readme_has_the_range_over_seeds() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    runs = read_json(FILE)["runs"]
    before, after = ([run[when]["accuracy"] for run in runs] for when in ("before", "after"))
    assert f"from {min(before):.2f}–{max(before):.2f} to {min(after):.2f}–{max(after):.2f} by seed" in readme


def test_text_of_a_model_stays_in_its_cell() -> None:
    hostile = "a | b\n\n`c` <b>"
    row = table(["before"], [[code(hostile)]]).splitlines()[-1]
    assert row == "| `a ¦ b ʼcʼ <b>` |"
