"""A study from a command line: some objectives, compared on one task over a few seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, suggest
from drpo.lab.study import Study, check_study
from drpo.objectives import OBJECTIVES
from drpo.train.config_layers import layer_config
from drpo.train.config_text import as_text, parse_overrides

#: The one setting of such a study.
SETTING = "own"


def typed_study(arms: Sequence[str], overrides: Iterable[str], seeds: int) -> tuple[str, Study]:
    """The name and the study that compare ``arms``; the first is claimed to end higher than each of the others.

    Args:
        arms: objectives, each ``NAME`` or ``NAME:parameter=value,…``.
        overrides: ``key=value`` settings of every run.
        seeds: how many, from 0 on.

    Raises:
        ConfigError: an arm or a setting is not allowed.
    """
    named = dict(map(_arm, arms))
    if len(named) < 2 or len(named) < len(arms):
        raise ConfigError(
            f"a comparison needs two or more different objectives, got {', '.join(arms) or 'none'}. For example "
            "`drpo lab compare drpo grpo`, or two forms of one: `drpo lab compare drpo drpo:delta=0.3`."
        )
    base = parse_overrides(overrides)
    if "seed" in base:
        raise ConfigError("seed: a comparison runs several. Leave it out, and say how many with --seeds N.")
    whole = layer_config([("command line", base)])[0].resolved()
    # Paths hold wherever the study goes on.
    base |= {key: whole[key] for key in ("model", "task") if key in base}
    first, *others = named
    study = {
        "title": " against ".join(named),
        "question": f"Does {first} end higher on {whole['task']['name']}?",
        "base": base,
        "settings": {SETTING: {}},
        "arms": {name: {"objective": objective} for name, objective in named.items()},
        "seeds": list(range(seeds)),
        "hypotheses": [
            {"claim": f"{first} ends higher than {other}.", "ours": first, "theirs": other} for other in others
        ],
    }
    return "-".join(named), check_study(study, "the comparison")


def _arm(text: str) -> tuple[str, dict[str, Any]]:
    """The arm's name, which is that of a folder, and its objective."""
    name, _, given = text.partition(":")
    if name not in OBJECTIVES and Path(text).is_dir():
        raise ConfigError(f"{text} is a directory, not an objective. Runs are compared by `drpo compare RUN RUN`.")
    if name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {name!r}.{suggest(name, OBJECTIVES)}")
    parameters = parse_overrides(given.split(",")) if given else {}
    label = "_".join([name, *(f"{key}{as_text(value)}" for key, value in parameters.items())])
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", label), {"name": name, **parameters}
