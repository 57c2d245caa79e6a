"""Modifiers and anchors: numbers by hand, what is refused, and that nothing corrects twice."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from typing import Any

import pytest
import torch

from drpo import MODIFIERS, OBJECTIVES, TokenBatch, gradient_weight, make_objective
from drpo.errors import ConfigError, DataError
from drpo.objectives.compose import Modified
from drpo.objectives.modifier_registry import make_modifier
from support.batches import Tokens, random_tokens, tokens_from_probabilities, with_needs

#: Modifiers with what they read, at settings that do something to the tokens below.
ALL: list[Any] = [
    "tis",
    "icepop",
    {"name": "mis", "level": "token"},
    {"name": "mis", "level": "sequence"},
    {"name": "mis", "level": "geometric", "low": 0.99, "high": 1.01},
    "opsm",
    "entropy_top",
]


def tokens_with(old: list[float], mu: list[float], ids: list[int] | None = None, advantage: float = 1.0) -> Tokens:
    """Tokens whose π is π_old, with π_old/μ as given."""
    tokens = tokens_from_probabilities(old, mu, [advantage] * len(mu), ids)
    return dataclasses.replace(tokens, optional={"proximal_logprobs": tokens.logprobs})


def factor(modifier: Any, tokens: Tokens) -> list[float]:
    return make_modifier(modifier).factor(tokens.batch()).tolist()


def gradient(objective: Any, batch: TokenBatch) -> torch.Tensor:
    leaf = batch.logprobs.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(objective(batch.with_logprobs(leaf)).loss.sum() + 0 * leaf.sum(), leaf)
    return slope


# ---- factors by hand


def test_tis_by_hand():
    tokens = tokens_with([0.3, 0.1, 0.5, 0.5], [0.2, 0.4, 0.5, 0.1])  # 1.5, .25, 1, 5
    assert factor("tis", tokens) == pytest.approx([1.5, 0.25, 1.0, 2.0])
    assert factor({"name": "tis", "ratio_cap": 1.2}, tokens) == pytest.approx([1.2, 0.25, 1.0, 1.2])


def test_icepop_by_hand():
    tokens = tokens_with([0.3, 0.1, 0.5, 0.6, 0.45], [0.2, 0.4, 0.5, 0.1, 0.1])  # 1.5, .25, 1, 6, 4.5
    assert factor("icepop", tokens) == pytest.approx([1.5, 0.0, 1.0, 0.0, 4.5])
    assert factor({"name": "icepop", "low": 0, "high": 2}, tokens) == pytest.approx([1.5, 0.25, 1.0, 0.0, 0.0])


def test_mis_by_hand():
    # Of the sequences: products 1.5·.5 = .75, 1.5·1.5 = 2.25, .25; geometric means .866, 1.5, .25.
    tokens = tokens_with([0.3, 0.1, 0.3, 0.6, 0.1], [0.2, 0.2, 0.2, 0.4, 0.4], [0, 0, 1, 1, 2])
    assert factor("mis", tokens) == pytest.approx([1.5, 0.5, 1.5, 1.5, 0.0])
    assert factor({"name": "mis", "level": "sequence"}, tokens) == pytest.approx([0.75, 0.75, 0, 0, 0])
    geometric = {"name": "mis", "level": "geometric", "low": 0.8, "high": 1.2}
    assert factor(geometric, tokens) == [1, 1, 0, 0, 0]


def test_opsm_by_hand():
    # mean log(μ/π): (ln 2 − ln 1.5)/2 = .144, and (ln 1.5 − ln 2)/2 = −.144.
    pi, mu, ids = [0.1, 0.3, 0.4, 0.2], [0.2, 0.2, 0.2, 0.3], [0, 0, 1, 1]
    for advantage, expected in ((-1.0, [0, 0, 1, 1]), (1.0, [1, 1, 1, 1])):
        assert factor("opsm", tokens_with(pi, mu, ids, advantage)) == expected
    assert factor({"name": "opsm", "kl_max": 0.15}, tokens_with(pi, mu, ids, -1.0)) == [1, 1, 1, 1]


def test_entropy_top_by_hand():
    tokens = dataclasses.replace(
        tokens_with([0.5] * 5, [0.5] * 5),
        optional={"entropy": torch.tensor([0.1, 2.0, 0.5, 2.0, 1.0], dtype=torch.float64)},
    )
    assert factor("entropy_top", tokens) == [0, 1, 0, 1, 0]  # one of five; its equal stays too
    assert factor({"name": "entropy_top", "fraction": 0.6}, tokens) == [0, 1, 0, 1, 1]
    assert factor({"name": "entropy_top", "fraction": 1.0}, tokens) == [1] * 5
    assert factor("entropy_top", tokens.select(torch.zeros(0, dtype=torch.int64))) == []


def test_every_modifier_is_in_these_tests():
    named = {value if isinstance(value, str) else value["name"] for value in ALL}
    # Score centering is no factor, and has tests of its own (test_score_centering.py).
    assert named | {"score_centering"} == set(MODIFIERS) == {cls.name for cls in MODIFIERS.values()}


# ---- composition


def test_grpo_with_tis_is_the_stale_ratio_times_the_truncated_mismatch():
    """π/π_old is clipped, π_old/μ truncated: by hand."""
    # π, π_old, μ: staleness 1.5 (clipped at 1.28), .9, 1.1; mismatch 1, 4 (2), .5.
    tokens = tokens_from_probabilities([0.3, 0.36, 0.11], [0.2, 0.1, 0.2], [1.0, 1.0, -1.0])
    old = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64).log()
    batch = dataclasses.replace(tokens, optional={"proximal_logprobs": old}).batch()
    objective = make_objective("grpo", anchor="proximal", modifiers=["tis"])
    assert objective(batch).loss.tolist() == pytest.approx([-1.28, -0.9 * 2, 1.1 * 0.5])
    # The weight is measured from r = π/μ: 1 where nothing is truncated.
    assert gradient_weight(objective, batch).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_an_uncapped_correction_restores_the_full_ratio():
    """π/π_old · π_old/μ = π/μ: on the surrogate, TIS without a cap is the μ-anchored objective."""
    batch = random_tokens(0, spread=1.0, objective=make_objective("minirl")).batch()
    full = make_objective("surrogate")
    composed = make_objective("surrogate", anchor="proximal", modifiers=[{"name": "tis", "ratio_cap": 1e9}])
    torch.testing.assert_close(composed(batch).loss, full(batch).loss)
    torch.testing.assert_close(gradient(composed, batch), gradient(full, batch))
    # … and on PPO it is MiniRL: the mask is the staleness's, the weight the full ratio.
    ppo = make_objective("ppo", ratio_high=0.27, anchor="proximal", modifiers=[{"name": "tis", "ratio_cap": 1e9}])
    torch.testing.assert_close(gradient(ppo, batch), gradient(make_objective("minirl"), batch))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_anchored_on_a_proximal_policy_that_is_mu_nothing_changes(name: str):
    plain = make_objective(name)
    if plain.topk:
        with pytest.raises(ConfigError, match=rf"{name}: anchor=proximal needs the top K of π_old"):
            make_objective(name, anchor="proximal")
        return
    tokens = with_needs(random_tokens(1, objective=plain), ["proximal_logprobs", "entropy"])
    tokens.optional["proximal_logprobs"] = tokens.behavior_logprobs
    batch = tokens.batch()
    everywhere = {"name": "entropy_top", "fraction": 1}
    anchored = make_objective(name, anchor="proximal", modifiers=["tis", "opsm", everywhere])
    kept = make_modifier("opsm").factor(batch)
    torch.testing.assert_close(anchored(batch).loss, plain(batch).loss * kept)


@pytest.mark.parametrize("modifier", ALL, ids=str)
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_modifier_scales_every_objective_by_a_constant(name: str, modifier: Any):
    made = make_modifier(modifier)
    plain = make_objective(name)
    if plain.topk and made.corrects:
        return  # refused, see above
    anchor = "proximal" if made.corrects else "behavior"
    composed = make_objective(name, anchor=anchor, modifiers=[modifier])
    reference = make_objective(name, anchor=anchor)
    assert set(composed.needs) == {*reference.needs, *made.needs}
    tokens = with_needs(random_tokens(2, (6, 5), plain), {*composed.needs, "proximal_logprobs", "entropy"})
    batch = tokens.batch()
    factors = made.factor(batch)
    torch.testing.assert_close(composed(batch).loss, reference(batch).loss * factors)
    if plain.token_local:  # elsewhere a token's slope holds other tokens' factors
        torch.testing.assert_close(gradient(composed, batch), gradient(reference, batch) * factors)


def test_flags_and_settings_of_a_composition():
    composed = make_objective("drpo", delta=0.3, anchor="proximal", modifiers=["tis", "entropy_top"])
    assert isinstance(composed, Modified)
    assert (composed.name, composed.topk, composed.homogeneous) == ("drpo", 0, True)
    assert (composed.token_local, composed.sequence_local) == (False, False)
    assert set(composed.needs) == {"proximal_logprobs", "entropy"}
    settings = composed.settings()
    assert settings == {
        "name": "drpo",
        "delta": 0.3,
        "deadzone": 0.0,
        "advantage_weighted": True,
        "anchor": "proximal",
        "modifiers": [{"name": "tis", "ratio_cap": 2.0}, {"name": "entropy_top", "fraction": 0.2}],
    }
    assert make_objective(**settings) == composed
    assert make_objective("ppo", modifiers=["opsm"]).sequence_local
    assert not make_objective("ppo", modifiers=["opsm"]).token_local
    assert make_objective("ppo", anchor="proximal", modifiers=["tis"]).token_local
    assert not make_objective("kimi", modifiers=["opsm"]).homogeneous
    assert make_objective("dppo_topk_tv", modifiers=["opsm"]).topk == 20
    assert composed.shift_bound == 0.3 and make_objective("ppo", modifiers=["opsm"]).shift_bound is None
    plain = make_objective("ppo", anchor="behavior", modifiers=[])
    assert type(plain) is OBJECTIVES["ppo"] and "anchor" not in plain.settings()


@pytest.mark.parametrize(("cls", "variable"), [(Modified, "needs"), (OBJECTIVES["kimi"], "homogeneous")])
def test_a_class_does_not_answer_what_depends_on_the_parameters(cls: type[Any], variable: str):
    with pytest.raises(AttributeError):
        getattr(cls, variable)


def test_a_dropped_token_is_dropped_whatever_its_loss():
    tokens = tokens_with([0.5, 0.5], [0.5, 0.001])  # mismatch 1, 500
    batch = tokens.batch()
    composed = make_objective("surrogate", anchor="proximal", modifiers=["icepop"])
    assert composed(batch).loss.tolist() == [-1.0, 0.0]
    assert gradient(composed, batch).tolist() == [-1.0, 0.0]


def test_float32_products_over_long_responses_stay_finite():
    n = 3000
    batch = TokenBatch(
        torch.full((n,), -1.0), torch.full((n,), -2.0), torch.ones(n), proximal_logprobs=torch.full((n,), -1.0)
    )
    assert make_modifier({"name": "mis", "level": "sequence", "high": 1e30}).factor(batch).isfinite().all()


# ---- what is refused


@pytest.mark.parametrize("modifier", ["tis", "icepop", "mis", {"name": "mis", "level": "sequence"}], ids=str)
@pytest.mark.parametrize("name", ["grpo", "drpo", "minirl", "gspo"])
def test_double_correction_is_refused(name: str, modifier: Any):
    with pytest.raises(ConfigError) as caught:
        make_objective(name, modifiers=[modifier])
    which = modifier if isinstance(modifier, str) else modifier["name"]
    assert str(caught.value) == (
        f"{name} is anchored on μ: its ratio π/μ corrects π_old/μ already, and {which} would do so a second time. Use "
        f"anchor=proximal (the ratio is then π/π_old), or leave {which} out."
    )


def test_two_corrections_are_refused_and_a_rejection_beside_one_is_not():
    with pytest.raises(ConfigError, match=r"tis and icepop would each correct π_old/μ\. Keep one"):
        make_objective("grpo", anchor="proximal", modifiers=["tis", "icepop"])
    make_objective("grpo", anchor="proximal", modifiers=["tis", {"name": "mis", "level": "geometric"}])
    make_objective("grpo", modifiers=[{"name": "mis", "level": "geometric"}])


@pytest.mark.parametrize(
    ("modifiers", "message"),
    [
        (["icepopp"], r"unknown modifier 'icepopp'\. Did you mean 'icepop'\? Known: "),
        ([{"name": "tis", "cap": 2}], r"modifier 'tis' has no parameter 'cap'\. Known: ratio_cap\."),
        ([{"cap": 2}], r"a modifier is a name or \{name: …, parameter: …\}, got \{'cap': 2\}\. Known: entropy_top, "),
        ([3], r"a modifier is a name or .*, got 3"),
        ([{"name": "tis", "ratio_cap": 0}], r"tis: ratio_cap must be a finite ratio > 0, got 0"),
        ([{"name": "icepop", "low": -0.1}], r"icepop: low must be a finite ratio ≥ 0, got -0\.1"),
        ([{"name": "icepop", "high": 0.5}], r"icepop: high must be a finite ratio > low = 0\.5, got 0\.5"),
        ([{"name": "mis", "level": "word"}], r"mis: level must be one of token, sequence, geometric, got 'word'"),
        ([{"name": "mis", "high": math.inf}], r"mis: high must be a finite ratio > low = 0\.5, got inf"),
        ([{"name": "opsm", "kl_max": True}], r"opsm: kl_max must be a finite number of nats > 0, got True"),
        ([{"name": "entropy_top", "fraction": 1.5}], r"entropy_top: fraction must be a share in \(0, 1\], got 1\.5"),
    ],
)
def test_bad_modifiers(modifiers: list[Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make_objective("grpo", anchor="proximal", modifiers=modifiers)


def test_bad_anchor():
    with pytest.raises(ConfigError, match=r"grpo: anchor must be one of behavior, proximal, got 'old'"):
        make_objective("grpo", anchor="old")


def test_missing_fields_are_named():
    batch = random_tokens(0).batch()
    with pytest.raises(DataError, match=r"'grpo' needs proximal_logprobs \[N\]; pass TokenBatch.*recomputed by the tr"):
        make_objective("grpo", anchor="proximal", modifiers=["tis"])(batch)
    with pytest.raises(DataError, match=r"'grpo' needs entropy \[N\]; pass"):
        make_objective("grpo", modifiers=["entropy_top"])(batch)


# ---- definition


@pytest.mark.parametrize("name", sorted(MODIFIERS))
def test_docstring_says_what_a_reader_needs(name: str):
    cls = MODIFIERS[name]
    documentation = inspect.getdoc(cls)
    assert documentation is not None
    heads = re.findall(r"^(Equation|Source|Anchor|Parameters|Deviations):", documentation, flags=re.MULTILINE)
    assert heads == ["Equation", "Source", "Anchor", "Parameters", "Deviations"]
    entries = re.findall(r"^    (\w+): ", documentation, flags=re.MULTILINE)
    assert entries == [field.name for field in dataclasses.fields(cls)]
