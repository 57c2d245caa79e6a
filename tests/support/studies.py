"""Studies for tests, as plain values and as files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from drpo.lab.study import Study, check_study

BUDGET = {"steps": 4, "prompts_per_step": 4, "updates_per_step": 2, "eval_every": 1, "eval_examples": 8}
VALUES: dict[str, Any] = {
    "title": "Test",
    "question": "Does it work?",
    "budget": BUDGET,
    "settings": {"one": {}, "two": {"updates_per_step": 4}},
    "arms": {
        "drpo": {"objective": {"name": "drpo", "delta": 0.15}},
        "dppo": {"objective": {"name": "dppo_tv", "delta": 0.15}},
    },
    "seeds": [0, 1, 2],
    "hypotheses": [{"claim": "DRPO ends higher.", "ours": "drpo", "theirs": "dppo"}],
}
TUNING = {"seeds": [100, 101], "learning_rates": [5e-5, 1e-4]}


def values(**changes: Any) -> dict[str, Any]:
    """The values of a valid study, with ``changes`` of its first level; None leaves a key out."""
    changed = copy.deepcopy(VALUES) | changes
    return {key: value for key, value in changed.items() if value is not None}


def study(**changes: Any) -> Study:
    """The study of these values, its files and budget written into its settings."""
    return check_study(values(**changes), "test").without_files(Path())


def write(file: Path, **changes: Any) -> Path:
    """A study file."""
    file.write_text(yaml.safe_dump(values(**changes), sort_keys=False))
    return file
