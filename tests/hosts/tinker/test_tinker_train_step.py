"""The training step in the cookbook's place, against the service's stand-in."""

import asyncio
import inspect

import pytest
import torch
from local_run import GOOD
from local_service import LocalTrainingClient, Service
from tinker.types import AdamParams, Datum, ModelInput
from tinker_cookbook.rl import train
from tinker_cookbook.rl.data_processing import assemble_training_data
from tinker_cookbook.rl.metrics import compute_kl_sample_train
from tinker_cookbook.rl.types import TokensWithLogprobs, Trajectory, TrajectoryGroup, Transition

from drpo.errors import ConfigError
from drpo.integrations.tinker import count, make_loss, make_train_step


def rollouts(service, groups=4, samples=6, length=4):
    """The cookbook's own datums: the reward is the share of :data:`GOOD` among the sampled tokens."""
    made, advantages, rewards = [], [], []
    for group in range(groups):
        prompt = [1, 2 + group]
        trajectories, gains = [], []
        for _ in range(samples):
            tokens, logprobs = service.sample(prompt, length)
            gains.append(tokens.count(GOOD) / length)
            action = TokensWithLogprobs(tokens=tokens, maybe_logprobs=logprobs)
            step = Transition(ob=ModelInput.from_ints(prompt), ac=action, reward=gains[-1], episode_done=True)
            trajectories.append(Trajectory(transitions=[step], final_ob=ModelInput.empty()))
        made.append(TrajectoryGroup(trajectories, gains, [{}] * samples))
        advantages.append(torch.tensor(gains) - sum(gains) / samples)
        rewards += gains
    return assemble_training_data(made, advantages)[0], sum(rewards) / len(rewards)


def test_it_has_the_cookbooks_signature():
    ours, theirs = inspect.signature(make_train_step()), inspect.signature(train.train_step)
    assert list(ours.parameters) == list(theirs.parameters)


# It ends where every response is right, and that is told.
@pytest.mark.filterwarnings("ignore:2 rollout batches in a row")
@pytest.mark.parametrize("objective", ["drpo", "dppo_tv", "gspo"])
def test_it_learns(objective):
    torch.manual_seed(1)
    service = Service()
    client = LocalTrainingClient(service)
    step = make_train_step(objective)
    rewards, mismatches, metrics = [], [], {}
    for _ in range(30):
        data, reward = rollouts(service)
        rewards.append(reward)
        asyncio.run(step(data, client, learning_rate=0.01, num_substeps=2, metrics=metrics))
        mismatches.append(metrics["drpo/mismatch"])
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-3:]) / 3 > 0.6
    # The second of the two steps is off policy, and its metrics are the ones reported.
    assert max(mismatches) > 1e-3
    assert metrics["optim/steps"] == 1.0


def test_requests_arrive_in_order_and_carry_only_what_the_service_takes():
    torch.manual_seed(2)
    service = Service()
    data, _ = rollouts(service, groups=2, samples=4)
    logprobs = asyncio.run(make_train_step()(data, LocalTrainingClient(service), 0.01, 2))
    # 4 datums a step, in the requests of at most 3 that the stand-in is asked for.
    step = ["forward", "forward", "backward", "backward", "optim"]
    assert [kind for kind, _ in service.requests] == step * 2
    assert {name for kind, names in service.requests if kind != "optim" for name in names} == {
        "target_tokens",
        "weights",
    }
    assert [len(row) for row in logprobs] == [len(datum.loss_fn_inputs["logprobs"].data) for datum in data]


def test_training_log_probabilities_are_those_before_the_step():
    torch.manual_seed(3)
    service = Service()
    data, _ = rollouts(service)
    metrics = {}
    logprobs = asyncio.run(make_train_step()(data, LocalTrainingClient(service), 0.01, 1, metrics=metrics))
    found = compute_kl_sample_train(data, logprobs)
    assert abs(found["optim/kl_sample_train_v1"]) < 1e-6
    assert metrics["drpo/mismatch_max"] < 1e-5


def weights_after(parts, seed=4, objective="drpo"):
    """The model after one optimizer step whose data came in that many forward_backward_custom calls."""
    torch.manual_seed(seed)
    service = Service()
    data, _ = rollouts(service)
    client = LocalTrainingClient(service)
    loss = make_loss(objective, denominator=count(data) if parts > 1 else None)
    size = len(data) // parts
    futures = [client.forward_backward_custom(data[i * size : (i + 1) * size], loss) for i in range(parts)]
    client.optim_step(AdamParams(learning_rate=0.01, eps=1e-3)).result()
    assert all(future.result().metrics["drpo/mismatch"] < 1e-5 for future in futures)
    return torch.cat([parameter.detach().flatten() for parameter in service.parameters])


@pytest.mark.parametrize("parts", [2, 4])
def test_several_calls_make_one_step(parts):
    assert torch.allclose(weights_after(parts), weights_after(1), atol=1e-6)


def test_the_step_is_the_one_that_autograd_takes():
    """The service's own graph under our loss, without the detour over cross-entropy weights."""
    torch.manual_seed(4)
    service = Service()
    data, _ = rollouts(service)
    logprobs = [
        service.logits(torch.tensor(datum.model_input.to_ints()))
        .log_softmax(-1)
        .gather(1, datum.loss_fn_inputs["target_tokens"].to_torch().unsqueeze(1))
        .squeeze(1)
        for datum in data
    ]
    make_loss()(data, logprobs)[0].backward()
    service.step(AdamParams(learning_rate=0.01, eps=1e-3))
    found = torch.cat([parameter.detach().flatten() for parameter in service.parameters])
    assert torch.allclose(weights_after(1), found, atol=1e-6)


def test_a_loss_that_fails_ends_the_step():
    service = Service()
    data, _ = rollouts(service)
    bare = [Datum(d.model_input, {k: v for k, v in d.loss_fn_inputs.items() if k != "mask"}) for d in data]
    with pytest.raises(ConfigError, match="no 'mask'"):
        asyncio.run(make_train_step()(bare, LocalTrainingClient(service), 0.01, 1))
    assert not any(kind == "optim" for kind, _ in service.requests)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loss_fn": "ppo"}, "loss_fn='ppo'"),
        ({"loss_fn_config": {"clip_low_threshold": 0.9}}, "clip_low_threshold"),
    ],
)
def test_ignored_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        asyncio.run(make_train_step()([], LocalTrainingClient(Service()), 0.01, 1, **arguments))


@pytest.mark.parametrize("loss_fn", ["importance_sampling", "stable_reinforce", "custom"])
def test_the_cookbooks_defaults_take_no_part(loss_fn):
    assert asyncio.run(make_train_step()([], LocalTrainingClient(Service()), 0.01, 1, loss_fn=loss_fn)) == []


def test_no_data_is_no_step():
    assert asyncio.run(make_train_step()([], LocalTrainingClient(Service()), 0.01, 1)) == []


def test_objectives_without_their_input_are_refused():
    with pytest.raises(ConfigError, match="needs proximal_logprobs"):
        make_train_step("minirl")
    with pytest.raises(ConfigError, match="horizon"):
        make_train_step(aggregation="sequence_sum")
