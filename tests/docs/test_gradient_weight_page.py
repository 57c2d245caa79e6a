"""The formulas of the interactive figure, in JavaScript, are those of the objectives."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from drpo import OBJECTIVES, TokenBatch, gradient_weight, make_objective

# The paper's own delta = 12.5 is among the cases; its warning has a test of its own.
pytestmark = [pytest.mark.filterwarnings("ignore::drpo.errors.DrpoWarning"), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "site" / "static" / "gradient_weight.js"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node on the PATH")

PAGE = ROOT / "docs" / "gradient-weight.md"
PROBABILITIES = (1e-6, 3e-4, 0.011, 0.092, 0.27, 0.5, 0.62, 0.87, 0.993, 1 - 1e-6)
#: Name → parameters beside the defaults that the formulas are compared at.
MORE: dict[str, list[dict[str, Any]]] = {
    "drpo": [
        {"delta": 0.02},
        {"delta": 12.5},
        {"delta": 0.3, "deadzone": 0.1},
        {"advantage_weighted": False},
        {"delta": 0.4, "deadzone": 0.1, "advantage_weighted": False},
    ],
    "mask_drpo": [{"delta": 0.3, "boundary": 0.05}, {"diverging_only": True}, {"boundary": 0.0}],
    "dppo_tv": [{"delta": 0.03}, {"delta": 0.4, "ratio_cap": 1.5}],
    "dppo_kl": [{"kl_max": 0.3}, {"kl_max": 0.01, "ratio_cap": 2.0}],
    "ipo": [{"delta": 0.05, "ratio_cap": 1.5}],
    "ppo": [{"ratio_low": 0.5, "ratio_high": 1.0, "dual_clip": 3.0}],
    "grpo": [{"dual_clip": 10.0}],
    "truly_ppo": [{"rollback": 0.0}, {"ratio_low": 0.9, "rollback": 1.7}],
    "spo": [{"epsilon": 12.5}],
    "sapo": [{"tau_positive": 3.0, "tau_negative": 0.4}],
    "cispo": [{"ratio_cap": 0.7}],
    "aipo": [{"ratio_cap": 10.0}],
    "icepop": [{"low": 0.0, "high": 1.1}],
    "rollout_is": [{"ratio_low": 1.0, "ratio_high": 3.0}],
    "rec_ring": [{"importance_sampling": True}, {"ratio_low": 0.5, "outer_low": 1.0, "outer_high": 7.0}],
    "kimi": [{"log_ratio_max": 2.0, "coefficient": 0.7}],
    "kl_penalty": [
        {"estimator": name, "coefficient": 0.4, "advantage_weighted": weighted}
        for name in ("k1", "k2", "k3", "reverse")
        for weighted in (True, False)
    ],
    "tv_penalty": [{"coefficient": 2.0}, {"advantage_weighted": False}],
    "mdpo": [{"step_size": 0.1}],
    "dro": [{"beta": 0.0}, {"beta": 2.0}],
}
PROGRAM = """
const { OBJECTIVES, weight } = require(process.argv[1]);
const { cases, tokens } = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const weights = cases.map(([name, parameters]) =>
  tokens.map(([mu, pi, advantage]) => weight(name, mu, pi, advantage, parameters)));
const parameters = Object.fromEntries(Object.entries(OBJECTIVES).map(([name, about]) => [name, about.parameters]));
process.stdout.write(JSON.stringify({ weights, parameters }));
"""


def run_script(cases: list[tuple[str, dict[str, Any]]], tokens: list[tuple[float, float, float]]) -> dict[str, Any]:
    """What the script says: ``weights`` of every case at every token, and the ``parameters`` it knows."""
    done = subprocess.run(
        [str(NODE), "-e", PROGRAM, str(SCRIPT)],
        input=json.dumps({"cases": cases, "tokens": tokens}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_the_script_computes_the_weights_of_the_code():
    names = list(run_script([], [])["parameters"])
    cases = [(name, parameters) for name in names for parameters in ({}, *MORE.get(name, []))]
    tokens = list(itertools.product(PROBABILITIES, PROBABILITIES, (1.0, -1.0, 2.5, -0.3)))
    found = run_script(cases, tokens)["weights"]
    mu, pi, advantage = torch.tensor(tokens, dtype=torch.float64).T
    batch = TokenBatch(pi.log(), mu.log(), advantage)
    for (name, parameters), weights in zip(cases, found, strict=True):
        theirs = gradient_weight(make_objective(name, **parameters), batch)
        ours = torch.tensor(weights, dtype=torch.float64)
        close = torch.isclose(ours, theirs, rtol=1e-9, atol=1e-9)
        assert bool(close.all()), (name, parameters, [tokens[i] for i in (~close).nonzero().flatten()][:5])


@needs_node
def test_the_script_has_the_defaults_of_the_code():
    parameters = run_script([], [])["parameters"]
    assert parameters == {name: OBJECTIVES[name].parameters() for name in parameters}


@needs_node
def test_the_page_names_every_objective_that_the_script_leaves_out():
    left_out = PAGE.read_text(encoding="utf-8").partition("## Objectives that are not drawn")[2]
    drawn = set(run_script([], [])["parameters"])
    assert sorted(re.findall(r"`(\w+)`", left_out)) == sorted(set(OBJECTIVES) - drawn)
