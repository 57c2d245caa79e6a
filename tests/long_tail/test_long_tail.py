"""The long-tail study: its world by hand, its policies, its gradient against the textbook's, and what a run is."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from drpo import aggregate, make_objective
from drpo.errors import ConfigError, DataError, DrpoWarning
from examples.long_tail.environment import Bandit, Jury, Space, baseline, make_bandit, make_log
from examples.long_tail.policy import KINDS, Policy
from examples.long_tail.records import Run
from examples.long_tail.study import ARMS, HYPOTHESES, SETTINGS, Cell, at_rate, chosen, shared_rate, tuning_cells
from examples.long_tail.training import Outcome, Schedule, log_batch, make_world, train

pytestmark = pytest.mark.slow

SPACE = Space(actions=5, zipf=1.0, features=3)
SCHEDULE = Schedule(log=512, batch=128, epochs=3, measurements=4, jury=64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(policy: Policy) -> Policy:
    """The same policy somewhere else than at μ."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=seeded(9))
    return policy


# ---- the world


def test_probabilities_and_value_by_hand() -> None:
    # Two actions, one feature; at x = 2: log-odds of a click 0 and ln 3, logits of μ 0 and ln 4.
    bandit = Bandit(
        clicks=torch.tensor([[0.0, 0.0], [math.log(3) - 2, 1.0]]),
        logging=torch.tensor([[0.0, 0.0], [0.0, math.log(2)]]),
    )
    x = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(bandit.click_probabilities(x), torch.tensor([[0.5, 0.75]]))
    torch.testing.assert_close(bandit.logging_logprobs(x).exp(), torch.tensor([[0.2, 0.8]]))
    jury = Jury(x, bandit.click_probabilities(x))
    assert jury.value(bandit.logging_logprobs(x)) == pytest.approx(0.2 * 0.5 + 0.8 * 0.75)


def test_popularity_is_zipf_and_says_nothing_of_quality() -> None:
    space = Space(actions=2000, zipf=1.2, features=4, sharpness=1.0)
    bandit = make_bandit(space, seeded())
    mu = bandit.logging_logprobs(torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])).exp()[0]
    ranks = torch.arange(1, 2001.0)
    torch.testing.assert_close(mu, ranks**-1.2 / (ranks**-1.2).sum())
    affinities = torch.cat([ranks[None], bandit.clicks[:, 1:].T])
    assert torch.corrcoef(affinities)[0, 1:].abs().max() < 0.1


def test_the_logging_policy_is_as_informed_as_told() -> None:
    for informed in (0.0, 0.5, 1.0):
        bandit = make_bandit(Space(actions=5000, zipf=1.0, informed=informed), seeded())
        both = torch.stack([bandit.clicks[:, 1:].flatten(), bandit.logging[:, 1:].flatten()])
        assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(informed, abs=0.02)


def test_the_log_is_of_the_logging_policy() -> None:
    bandit = make_bandit(SPACE, seeded())
    log = make_log(bandit, 20_000, seeded(1))
    logprobs = bandit.logging_logprobs(log.contexts)
    torch.testing.assert_close(log.behavior_logprobs, logprobs.gather(1, log.actions[:, None])[:, 0])
    shares = torch.bincount(log.actions, minlength=5) / len(log.actions)
    torch.testing.assert_close(shares, logprobs.exp().mean(0), atol=0.012, rtol=0)
    clicks = bandit.click_probabilities(log.contexts)
    assert set(log.rewards.unique().tolist()) == {0.0, 1.0}
    assert float(log.rewards.mean()) == pytest.approx(float((logprobs.exp() * clicks).sum(1).mean()), abs=0.012)
    torch.testing.assert_close(log.advantages, log.rewards - baseline(log.contexts, log.rewards))


def test_the_baseline_is_a_regression() -> None:
    contexts = make_bandit(SPACE, seeded()).contexts(100, seeded(1))
    linear = contexts @ torch.tensor([0.3, 1.0, -2.0, 0.5])
    torch.testing.assert_close(baseline(contexts, linear), linear, atol=1e-5, rtol=1e-5)
    rewards = torch.bernoulli(torch.full((100,), 0.4), generator=seeded(2))
    rest = rewards - baseline(contexts, rewards)
    torch.testing.assert_close(contexts.T @ rest, torch.zeros(4), atol=1e-4, rtol=0)


def test_a_space_without_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="actions ≥ 2"):
        Space(actions=1, zipf=1.0)


# ---- policies and gradients


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_starts_as_the_logging_policy(kind: str) -> None:
    world = make_world(SPACE, SCHEDULE, 3)
    batch = log_batch(Policy(world.bandit, kind, seeded()), world.log, torch.arange(100))
    torch.testing.assert_close(batch.logprobs.exp(), batch.behavior_logprobs.exp(), atol=1e-6, rtol=1e-5)


def test_the_mlp_is_shared_and_can_learn() -> None:
    world = make_world(SPACE, SCHEDULE, 3)
    policy = Policy(world.bandit, "mlp", seeded())
    policy(world.log.contexts)[0, 0].backward()
    assert policy.second is not None and policy.second.grad is not None and policy.second.grad.abs().max() > 0
    other = moved(Policy(world.bandit, "mlp", seeded()))
    x = world.log.contexts[:2]
    assert (other(x) - moved(Policy(world.bandit, "linear", seeded()))(x)).abs().max() > 1e-3


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        Policy(make_bandit(SPACE, seeded()), "linea", seeded())


def test_the_surrogate_s_gradient_is_the_textbook_s() -> None:
    """∂J/∂w_b = mean Â π(a|x)/μ(a|x) (1[a = b] − π(b|x)) x, with the softmax's derivative written out."""
    world = make_world(SPACE, SCHEDULE, 3)
    policy, rows = moved(Policy(world.bandit, "linear", seeded())), torch.arange(40)
    batch = log_batch(policy, world.log, rows)
    aggregate(make_objective("surrogate")(batch).loss, batch, mode="token_mean").backward()

    x, actions = world.log.contexts[rows], world.log.actions[rows]
    logits = x @ policy.actions.detach().T
    pi = logits.exp() / logits.exp().sum(1, keepdim=True)
    mu = world.bandit.logging_logprobs(x).exp()
    expected = torch.zeros(5, 4)
    for i, a in enumerate(actions.tolist()):
        for b in range(5):
            expected[b] += world.log.advantages[i] * pi[i, a] / mu[i, a] * (float(a == b) - pi[i, b]) * x[i] / len(rows)
    assert policy.actions.grad is not None
    torch.testing.assert_close(-policy.actions.grad, expected, atol=1e-6, rtol=1e-4)


def test_in_expectation_the_surrogate_climbs_the_true_value() -> None:
    """Every action once, weighted by μ, its true click probability for an advantage: the value's own gradient."""
    world = make_world(SPACE, SCHEDULE, 3)
    x = world.jury.contexts[:1]
    policy = moved(Policy(world.bandit, "mlp", seeded()))
    true = (policy(x).exp() * world.jury.clicks[:1]).sum()
    expected = torch.autograd.grad(true, list(policy.parameters()))

    mu = world.bandit.logging_logprobs(x)[0]
    log = world.log.__class__(x.expand(5, -1), torch.arange(5), mu, mu, world.jury.clicks[0])
    batch = log_batch(policy, log, torch.arange(5))
    loss = (mu.exp() * make_objective("surrogate")(batch).loss).sum()
    for own, wanted in zip(torch.autograd.grad(-loss, list(policy.parameters())), expected, strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-6, rtol=1e-4)


# ---- runs


def test_a_run_is_its_seed_s() -> None:
    world, other = make_world(SPACE, SCHEDULE, 3), make_world(SPACE, SCHEDULE, 4)
    make_world.cache_clear()
    again = make_world(SPACE, SCHEDULE, 3)
    assert again is not world and torch.equal(again.log.advantages, world.log.advantages)
    objective = make_objective("dppo_tv", delta=0.1)
    one = train(world, "mlp", objective, 0.03, SCHEDULE, 3)
    assert one == train(again, "mlp", objective, 0.03, SCHEDULE, 3)
    assert one.curve != train(other, "mlp", objective, 0.03, SCHEDULE, 4).curve
    assert one.curve[1:] != train(world, "mlp", make_objective("surrogate"), 0.03, SCHEDULE, 3).curve[1:]
    assert one.curve[0] == train(world, "mlp", make_objective("surrogate"), 0.03, SCHEDULE, 3).curve[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["surrogate", "ppo", "dppo_tv", "drpo"])
def test_a_short_run_improves_on_the_logging_policy(name: str, kind: str) -> None:
    space = Space(actions=10, zipf=0.0)
    schedule = Schedule(log=2048, batch=128, epochs=2, measurements=4, jury=256)
    outcome = train(make_world(space, schedule, 0), kind, make_objective(name), 0.03, schedule, 0)
    assert len(outcome.curve) == 5 and outcome.curve[-1] > outcome.curve[0] + 0.02
    assert outcome.figures["shift"] > 0.005


def test_the_bounds_hold_policies_back_in_their_own_measure() -> None:
    schedule = Schedule(log=2048, batch=128, epochs=4, measurements=1, jury=64)
    world = make_world(Space(actions=10, zipf=0.0), schedule, 0)
    figures = {
        name: train(world, "linear", objective, 0.03, schedule, 0).figures
        for name, objective in {
            "free": make_objective("surrogate"),
            "shift": make_objective("drpo", delta=0.02),
            "ratio": make_objective("spo", epsilon=0.2),
        }.items()
    }
    assert figures["shift"]["shift"] < figures["free"]["shift"] / 3
    assert figures["ratio"]["ratio_max"] < figures["free"]["ratio_max"] / 3
    assert figures["shift"]["corrective_share"] > 0 == figures["free"]["corrective_share"]


def test_a_run_that_breaks_is_an_outcome_with_its_reason() -> None:
    outcome = train(make_world(SPACE, SCHEDULE, 3), "mlp", make_objective("surrogate"), 1e30, SCHEDULE, 3)
    assert "finite" in outcome.reason and len(outcome.curve) == 5
    assert outcome.curve[0] > 0 and outcome.curve[-1] == 0.0 and math.isnan(outcome.figures["shift"])


def test_what_a_run_is_told_by() -> None:
    run = Run(Cell("ppo", 0.2, 0.01), 7, 1.5, Outcome([0.3, 0.5, 0.1, 0.4, 0.2], {"shift": 0.25}))
    assert (run.start, run.best) == (0.3, 0.5)
    assert run.final == pytest.approx(0.7 / 3) and run.drawdown == pytest.approx(0.4)


# ---- the plan


def test_arms_have_grids_of_equal_size_and_make_what_they_say() -> None:
    sizes = {name: len(arm.thresholds) for name, arm in ARMS.items()}
    assert {size for name, size in sizes.items() if name not in ("surrogate", "drpo_12.5")} == {4}
    assert sizes["surrogate"] == sizes["drpo_12.5"] == 1
    assert all({ours, theirs} <= set(ARMS) for ours, theirs in HYPOTHESES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DrpoWarning)
        for arm in ARMS.values():
            for threshold in arm.thresholds:
                objective = arm.make(threshold)
                bounds = {value for key, value in objective.settings().items() if key in arm.parameters(threshold)}
                assert arm.objective == objective.name and (not bounds or threshold in bounds)
    for setting in SETTINGS.values():
        assert len(tuning_cells(setting)) == 3 * (6 * 4 + 2) == len(set(tuning_cells(setting)))


def test_the_best_cell_and_the_shared_rate_by_hand() -> None:
    tuned = {}
    for name in ARMS:
        # At rate 1 a mean of (0.4 + 0.1 …), at rate 2 of more, although ppo's best is at rate 1.
        tuned |= {Cell(name, 0.1, 1.0): 0.4, Cell(name, 0.5, 1.0): 0.1, Cell(name, 0.1, 2.0): 0.3}
        tuned[Cell(name, 0.5, 2.0)] = 0.6 if name != "ppo" else 0.2
    assert chosen(tuned)["drpo"] == Cell("drpo", 0.5, 2.0) and chosen(tuned)["ppo"] == Cell("ppo", 0.1, 1.0)
    assert shared_rate(tuned) == 2.0 and at_rate(tuned, 2.0)["ppo"] == Cell("ppo", 0.1, 2.0)
    with pytest.raises(DataError, match="no finished tuning run"):
        chosen({cell: score for cell, score in tuned.items() if cell.arm != "spo"})
