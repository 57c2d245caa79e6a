"""What docs/integrations/verl.md and the shipped preset say, checked without verl."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

import drpo
from drpo.integrations import parity
from drpo.integrations.padded import loss_metrics
from drpo.integrations.verl_plugin.checks import HOST_SETTINGS, PRESET, TARGET, check_host, explicit_overrides
from drpo.objectives import MODIFIERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations" / "verl.md").read_text(encoding="utf-8")
FOLDER = ROOT / "src" / "drpo" / "integrations" / "verl_plugin" / "presets" / "drpo"


def batch() -> drpo.TokenBatch:
    padded = parity.fixed_batch()
    return drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)


def test_the_page_gives_the_preset_and_its_overrides() -> None:
    assert PRESET in PAGE
    for override in explicit_overrides():
        assert re.search(rf"^'?{re.escape(override)}'?$", PAGE, re.MULTILINE), override


def test_the_preset_shows_every_setting_that_is_checked() -> None:
    preset = yaml.safe_load((FOLDER / "rollout_anchored.yaml").read_text(encoding="utf-8"))
    section = preset["actor_rollout_ref"]["actor"]["policy_loss"]
    assert section["host"] == {name: f"${{{where}}}" for name, where in HOST_SETTINGS.items()}
    assert section["_target_"] == TARGET


def test_the_page_names_what_cannot_be_computed() -> None:
    refused = [name for name in drpo.OBJECTIVES if drpo.make_objective(name).needs]
    refused += [name for name, modifier in MODIFIERS.items() if modifier.needs]
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| objectives in need"))
    assert set(re.findall(r"`(\w+)`", row)) == set(refused)


def test_the_page_names_metrics_that_exist_and_all_of_them() -> None:
    table = PAGE.split("| metric | meaning |")[1].split("\n\n")[0]
    named = {
        f"drpo/{name}"
        for line in table.splitlines()
        if "|" in line
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    given = loss_metrics(batch(), drpo.make_objective("drpo"), same_names=True)
    whole = {re.sub("_(positive|negative|diverging|converging)$", "", name) for name in given}
    assert named == whole | {"drpo/anchor_is_rollout"}


def test_same_names_whatever_the_batch_holds() -> None:
    whole, objective = batch(), drpo.make_objective("drpo")
    parts = [whole.select(whole.sequence_ids == i) for i in range(8)] + [whole.select(torch.zeros(len(whole)).bool())]
    found = [loss_metrics(part, objective, same_names=True) for part in (whole, *parts)]
    assert {tuple(metrics) for metrics in found} == {tuple(found[0])}
    assert set(found[-1].values()) == {0.0}
    # tokens are the weights that make parts add up to the whole
    for name, value in found[0].items():
        sums = sum(metrics[name] * len(part) for metrics, part in zip(found[1:], parts, strict=True))
        assert sums / len(whole) == pytest.approx(value)


def test_what_verl_ships_passes_and_one_wrong_setting_does_not() -> None:
    host = dict.fromkeys(HOST_SETTINGS) | {
        "use_v1": True,
        "calculate_log_probs": True,
        "logprobs_mode": "processed_logprobs",
        "top_p": 1,
        "top_k": -1,
        "loss_agg_mode": "token-mean",
    }
    check_host(host, {"bypass_mode": True}, "rollout")
    with pytest.raises(drpo.errors.ConfigError, match=r"top_p=0.9 cuts .* Set top_p=1.0"):
        check_host(host | {"top_p": 0.9}, {"bypass_mode": True}, "rollout")
    with pytest.raises(drpo.errors.ConfigError, match="rollout_anchored"):
        check_host(None, None, "rollout")
