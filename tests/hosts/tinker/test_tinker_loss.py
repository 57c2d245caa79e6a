"""The loss in the SDK's client half: parity, what it refuses, and the weights that it sends."""

import math

import pytest
import torch
from tinker.lib.public_interfaces import TrainingClient
from tinker.types import Datum, TensorData

import drpo
from drpo.errors import ConfigError, DataError
from drpo.integrations.parity import BEYOND_DEFAULTS, compare, difference, effect, fixed_batch, reference, tolerance
from drpo.integrations.tinker import count, make_loss
from drpo.integrations.tinker.parity import datums, forward, make_path

PATH = make_path()


@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize("name", PATH.objectives)
def test_parity(name, mode):
    assert compare(PATH, {"name": name}, mode).worst <= tolerance(PATH)


def test_the_path_sees_every_objective_that_needs_no_top_k():
    assert {"drpo", "mdpo", "kimi", "minirl", "gspo"} <= set(PATH.objectives)


@pytest.mark.parametrize("settings", BEYOND_DEFAULTS)
def test_parameters_and_modifiers_arrive(settings):
    assert compare(PATH, settings, "token_mean").worst <= tolerance(PATH)
    assert effect(settings) > 0.01


def test_an_objective_over_the_whole_update_sees_all_of_it():
    expected = reference({"name": "m2po"}, fixed_batch(), "token_mean")
    assert difference(PATH.gradient({"name": "m2po"}, fixed_batch(), "token_mean"), expected) <= 1e-5
    with pytest.raises(ConfigError, match="one forward_backward_custom"):
        make_loss("m2po", denominator=10)


def test_metrics_are_those_of_the_batch():
    padded = fixed_batch()
    metrics = TrainingClient._compute_custom_loss(datums(padded), make_loss(), forward(padded)).metrics
    batch = drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)
    found = drpo.diagnose(batch, objective=drpo.make_objective("drpo"))
    for name in ("beyond_delta", "mismatch", "corrective_share"):
        assert metrics[f"drpo/{name}"] == pytest.approx(float(found[name].sum / found[name].count), rel=1e-5)
    assert metrics["drpo/ratio_max"] == pytest.approx(float(found["ratio_max"].sum), rel=1e-5)
    expected = drpo.aggregate(drpo.make_objective("drpo")(batch).loss, batch)
    assert metrics["drpo/loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", PATH.objectives)
@pytest.mark.parametrize("rows", [0, 1])
def test_datums_without_tokens_send_zeros(rows, name):
    """A turn that was masked whole, among others or alone: the SDK wants a gradient for each."""
    padded = fixed_batch()
    padded.mask[rows:] = False
    sent = TrainingClient._compute_custom_loss(datums(padded), make_loss(name), forward(padded)).data
    weights = [datum.loss_fn_inputs["weights"].to_torch() for datum in sent]
    assert all(bool((row == 0).all()) for row in weights[rows:])
    assert all(bool((row != 0).any()) for row in weights[:rows])


def test_an_objective_that_drops_every_token_sends_zeros():
    padded = fixed_batch()
    far = make_loss("dppo_tv", {"delta": 1e-9})
    diverging = torch.where(padded.advantages.unsqueeze(1) > 0, -0.1, -3.0).expand_as(padded.mask)
    padded.behavior_logprobs.fill_(-1.0)
    padded.logprobs.copy_(diverging)
    sent = TrainingClient._compute_custom_loss(datums(padded), far, forward(padded)).data
    assert all(bool((datum.loss_fn_inputs["weights"].to_torch() == 0).all()) for datum in sent)


def test_count():
    padded = fixed_batch()
    assert count(datums(padded)) == int(padded.mask.sum())
    assert count(datums(padded), "sequence_mean") == len(padded.mask)


@pytest.mark.parametrize("name", ["logprobs", "advantages", "mask"])
def test_missing_inputs_stop_the_run(name):
    padded = fixed_batch()
    data = [Datum(d.model_input, {k: v for k, v in d.loss_fn_inputs.items() if k != name}) for d in datums(padded)]
    with pytest.raises(ConfigError, match=f"loss_fn_inputs has no '{name}'"):
        make_loss()(data, [row.float() for row in padded.logprobs])


def test_proximal_log_probabilities_are_asked_for_where_needed():
    padded = fixed_batch()
    data = [
        Datum(d.model_input, {k: v for k, v in d.loss_fn_inputs.items() if k != "proximal_logprobs"})
        for d in datums(padded)
    ]
    with pytest.raises(ConfigError, match=r"proximal_logprobs.*TrainingClient\.forward"):
        make_loss("minirl")(data, [row.float() for row in padded.logprobs])


def test_values_are_checked():
    padded = fixed_batch()
    logprobs = [row.float() for row in padded.logprobs]
    bad = padded.behavior_logprobs.clone()
    bad[:, :3] = math.nan
    with pytest.raises(DataError, match=r"Tinker: .* tokens have no log μ"):
        make_loss()(datums(type(padded)(**{**vars(padded), "behavior_logprobs": bad})), logprobs)
    wide = [row.unsqueeze(1).expand(-1, 2) for row in logprobs]
    with pytest.raises(DataError, match="one token a position"):
        make_loss()(datums(padded), wide)
    data = datums(padded)
    data[2] = Datum(data[2].model_input, {**data[2].loss_fn_inputs, "advantages": TensorData.from_torch(torch.ones(3))})
    with pytest.raises(DataError, match="datum 2: advantages"):
        make_loss()(data, logprobs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"objective": "dpro"}, "Did you mean 'drpo'"),
        ({"parameters": {"dleta": 1}}, "no parameter 'dleta'"),
        ({"objective": "dppo_topk_tv"}, "needs topk_logprobs"),
        ({"parameters": {"modifiers": ["entropy_top"]}}, "needs entropy"),
        ({"aggregation": "sequence_sum"}, "horizon"),
        ({"horizon": 5}, "horizon is for sequence_sum"),
        ({"aggregation": "mean"}, "unknown aggregation"),
        ({"denominator": -1}, "denominator must be positive"),
    ],
)
def test_settings_are_refused_before_the_run(arguments, words):
    with pytest.raises(ConfigError, match=words):
        make_loss(**arguments)
