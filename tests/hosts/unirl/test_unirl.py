"""UniRL: our objectives in its train stack, its own classes against ours, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from unirl.types.segments.text import TextSegment

from drpo.errors import ConfigError, DataError, MismatchError
from drpo.integrations.parity import (
    BEYOND_DEFAULTS,
    HORIZON,
    Padded,
    compare,
    difference,
    effect,
    fixed_batch,
    reference,
    tolerance,
)
from drpo.integrations.unirl import DRPOAlgorithm, authors
from drpo.integrations.unirl.parity import MODES, Stage, make_path, part_of, step
from support.host_doctor import ask

OURS, THEIRS = make_path(), authors.make_path()


def algorithm(padded: Padded, leaf: torch.Tensor | None = None, **settings: object) -> DRPOAlgorithm:
    stage = Stage(padded.logprobs if leaf is None else leaf, padded.proximal_logprobs)
    given = {"sampling_temperature": 1.0, "mismatch_limit": 1e9, **settings}
    return DRPOAlgorithm(pipeline=SimpleNamespace(ar=stage), **given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mode", OURS.modes)
@pytest.mark.parametrize("name", OURS.objectives)
def test_our_objectives_in_unirl(name: str, mode) -> None:
    assert compare(OURS, {"name": name}, mode).worst <= tolerance(OURS)


@pytest.mark.parametrize("settings", BEYOND_DEFAULTS, ids=str)
def test_parameters_anchors_and_modifiers_arrive(settings) -> None:
    assert effect(settings) > 0.01
    assert compare(OURS, settings, "token_mean").worst <= tolerance(OURS)


@pytest.mark.parametrize("mode", THEIRS.modes)
@pytest.mark.parametrize("name", THEIRS.objectives)
def test_the_classes_of_the_authors_compute_our_gradient(name: str, mode) -> None:
    assert compare(THEIRS, {"name": name}, mode).worst <= tolerance(THEIRS)


@pytest.mark.filterwarnings("ignore:.*delta:drpo.errors.DrpoWarning")  # their default bounds nothing
@pytest.mark.parametrize(
    "settings", [{"name": "drpo", "delta": 12.5}, {"name": "cppo", "budget": 0.002}, {"name": "grpo", "ratio_low": 0.1}]
)
def test_the_classes_of_the_authors_with_other_parameters(settings) -> None:
    assert effect(settings) > 1e-3
    assert compare(THEIRS, settings, "token_mean").worst <= tolerance(THEIRS)


def test_cppo_of_the_authors_counts_masked_tokens_and_ours_does_not() -> None:
    """Holes inside responses, as a tool's answers are: the deviation that the objective's docstring states."""
    whole = fixed_batch()
    hole = (torch.arange(whole.mask.shape[1]) % 5 == 2).expand(whole.mask.shape)
    # A large shift at each masked token, which uses up the authors' prefix budget.
    logprobs = torch.where(hole, -1e-3, whole.logprobs)
    behavior = torch.where(hole, -3.0, whole.behavior_logprobs)
    padded = replace(whole, mask=whole.mask & ~hole, logprobs=logprobs, behavior_logprobs=behavior)
    width = (padded.mask.shape[1],)
    found = {
        name: difference(
            authors.AuthorsPath(masked=width).gradient({"name": name}, padded, "token_mean"),
            reference({"name": name}, padded, "token_mean"),
        )
        for name in THEIRS.objectives
    }
    assert found.pop("cppo") > 0.1
    assert all(worst <= tolerance(THEIRS) for worst in found.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampling_temperature": None}, "sampling_temperature is missing"),
        ({"old_logp_source": "vllm"}, "rollout, replay"),
        ({"mismatch_limit": 0.0}, "finite number > 0"),
        ({"drpo_epsilon": 12.5}, "parameters.delta"),
        ({"penalty_mu_weighted": False}, "objective=spo"),
        ({"objective": "drop"}, "Did you mean 'drpo'"),
        ({"parameters": {"detla": 0.1}}, "detla"),
        ({"objective": "m2po"}, "optimizer step"),
        ({"objective": "minirl"}, "needs proximal_logprobs"),
        ({"objective": "dppo_topk_tv", "old_logp_source": "replay"}, "needs topk_logprobs"),
    ],
)
def test_refusals(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        algorithm(fixed_batch(), **settings)


def test_replay_keeps_the_policy_that_sampled_as_mu() -> None:
    """UniRL then puts π_old where the rollout's log-probabilities were."""
    padded = fixed_batch()
    part = part_of(padded)
    leaf = padded.logprobs.clone().requires_grad_(True)
    step(algorithm(padded, leaf, old_logp_source="replay"), part, 2)
    assert leaf.grad is not None
    assert difference(leaf.grad, reference({"name": "drpo"}, padded, "token_mean")) <= tolerance(OURS)


def test_another_policy_at_the_first_loss_stops_the_run() -> None:
    padded = fixed_batch()
    with pytest.raises(MismatchError, match="above mismatch_limit"):
        step(algorithm(padded, mismatch_limit=0.1), part_of(padded), 1)
    # The same weights pass, and a later update may be far away.
    same = replace(padded, logprobs=padded.behavior_logprobs.clone())
    leaf = same.logprobs.requires_grad_(True)
    made = algorithm(same, leaf, mismatch_limit=0.1)
    step(made, part_of(same), 1)
    made.stage = Stage(padded.logprobs.clone().requires_grad_(True), padded.proximal_logprobs)
    assert step(made, part_of(padded), 1).has_backward


def test_tokens_without_a_behavior_logprob_are_left_out() -> None:
    padded = fixed_batch()
    holes = torch.zeros_like(padded.mask)
    holes[0, 3] = holes[4, 7] = True
    missing = replace(padded, behavior_logprobs=padded.behavior_logprobs.masked_fill(holes, torch.nan))
    leaf = padded.logprobs.clone().requires_grad_(True)
    result = step(algorithm(missing, leaf), part_of(missing), 1)
    assert leaf.grad is not None and bool((leaf.grad[holes] == 0).all())
    kept = int(padded.mask.sum())
    assert result.metrics["drpo/left_out_share"] == pytest.approx(2 / kept)
    # The denominator, which UniRL counts, still holds them.
    expected = reference({"name": "drpo"}, replace(padded, mask=padded.mask & ~holes), "token_mean") * (kept - 2) / kept
    assert difference(leaf.grad, expected) <= tolerance(OURS)
    gone = replace(padded, behavior_logprobs=torch.full_like(padded.behavior_logprobs, torch.nan))
    with pytest.raises(DataError, match="have no log μ"):
        step(algorithm(gone), part_of(gone), 1)


def test_metrics() -> None:
    padded = fixed_batch()
    leaf = padded.logprobs.clone().requires_grad_(True)
    metrics = step(algorithm(padded, leaf), part_of(padded), 1).metrics
    gap = (padded.logprobs - padded.behavior_logprobs).abs()[padded.mask]
    assert metrics["drpo/mismatch"] == pytest.approx(float(gap.mean()))
    assert {"policy_loss", "drpo/beyond_delta", "drpo/corrective_share"} <= metrics.keys()


def test_a_step_without_tokens_has_no_loss() -> None:
    made = algorithm(fixed_batch())
    for segment in (TextSegment(), part_of(fixed_batch()).segment):
        given = {"conditions": {}, "segment": segment, "training_progress": 0.0, "loss_scale": 1.0}
        found = made.compute_loss_and_backward(advantages=None, **given)
        assert not found.has_backward and found.loss == 0.0


def test_a_fully_masked_micro_batch_has_a_graph() -> None:
    padded = fixed_batch()
    leaf = padded.logprobs.clone().requires_grad_(True)
    part = part_of(replace(padded, mask=padded.mask & (torch.arange(8) >= 4).unsqueeze(1)), (24,))
    step(algorithm(padded, leaf, loss_agg_mode=MODES["sequence_sum"], horizon=HORIZON), part, 2)
    assert leaf.grad is not None and bool(leaf.grad.isfinite().all()) and bool((leaf.grad[:4] == 0).all())


def test_the_doctor() -> None:
    found = ask("unirl", code=0)
    assert found["algorithm"]["found"].endswith("algorithm._target_=drpo.integrations.unirl.DRPOAlgorithm")
    assert found["unirl"]["status"] == "ok" and "rollout" in found["μ"]["found"]
