"""``main`` in the cookbook's place: whole runs of its loop and of a recipe, and what is refused before them."""

import asyncio
import importlib

import chz
import pytest
from local_run import MODEL, PromptsBuilder, configuration, history, service_client, train_is_before
from tinker_cookbook.rl import train

from drpo.errors import ConfigError
from drpo.integrations import tinker as plugin

__all__ = ["service_client"]
REWARD = "env/all/reward/total"
since_0_6 = pytest.mark.skipif(train_is_before("0.6"), reason="asynchronous runs have a loss of their own since 0.6")


def asynchronous(**changes):
    return train.AsyncConfig(**{"max_steps_off_policy": 1, "groups_per_batch": 4, **changes})


def dropped(asynchronously, steps, batches):
    """Until 0.5 asynchronous runs drop groups that are too old, so that fewer steps come out of the batches."""
    return asynchronously and train_is_before("0.6") and batches / 3 < steps < batches


# It ends where every response is right, and that is told.
@pytest.mark.filterwarnings("ignore:2 rollout batches in a row")
@pytest.mark.parametrize("asynchronously", [False, True])
def test_a_run_learns(asynchronously, tmp_path, service_client):
    """The cookbook's defaults, its loop from the dataset to the final checkpoint; asynchronous data is stale."""
    changes = {"async_config": asynchronous()} if asynchronously else {}
    before = train.train_step
    asyncio.run(plugin.main(configuration(tmp_path, 30, num_substeps=2, **changes)))
    rewards = history(tmp_path, REWARD)
    assert len(rewards) == 30 or dropped(asynchronously, len(rewards), 30)
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-3:]) / 3 > 0.6
    assert len(history(tmp_path, "drpo/loss")) == len(history(tmp_path, "optim/kl_sample_train_v1")) == len(rewards)
    assert [kind for kind, _ in service_client.service.requests].count("optim") == 2 * len(rewards)
    # On-policy data is sampled by the weights of the step before; of asynchronous data some is older.
    lag = [step - sampled for step, sampled in enumerate(history(tmp_path, "sampling_client/step_min"))]
    assert max(lag, default=0) == (1 if asynchronously else 0)
    assert not any(service_client.recorded)
    assert train.train_step is before


def test_the_objective_and_its_parameters_arrive(tmp_path, service_client):
    asyncio.run(plugin.main(configuration(tmp_path, 2), objective="spo", aggregation="sequence_mean"))
    assert len(history(tmp_path, "drpo/beyond_delta")) == 2
    with pytest.raises(ConfigError, match="no parameter 'dleta'"):
        asyncio.run(plugin.main(configuration(tmp_path, 2), parameters={"dleta": 1}))


@pytest.mark.parametrize("off_policy", [None, 1])
def test_a_recipe_runs_with_one_changed_line(off_policy, tmp_path, service_client, monkeypatch):
    """Its ``main`` is ours and its data are small; the default loss of the recipe is the cookbook's."""
    pytest.importorskip("pylatexenc", reason="what the recipe grades with is not installed: tinker-cookbook[math-rl]")
    recipe = importlib.import_module("tinker_cookbook.recipes.math_rl.train")
    monkeypatch.setattr(recipe, "main", plugin.main)
    monkeypatch.setattr(recipe, "get_dataset_builder", lambda **_: PromptsBuilder(steps=3))
    settings = recipe.CLIConfig(
        model_name=MODEL,
        renderer_name="role_colon",
        log_path=str(tmp_path / "run"),
        groups_per_batch=4,
        max_tokens=4,
        eval_every=0,
        save_every=0,
        learning_rate=0.01,
        max_steps_off_policy=off_policy,
    )
    asyncio.run(recipe.cli_main(settings))
    steps = len(history(tmp_path / "run", "drpo/loss"))
    assert steps == 3 or dropped(off_policy, steps, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss_fn": "cispo"}, "^loss_fn='cispo'"),
        ({"loss_fn_config": {"clip_low_threshold": 0.9}}, "clip_low_threshold"),
        ({"stream_minibatch_config": {"groups_per_batch": 4, "num_minibatches": 2}}, "never calls train_step"),
        ({"temperature": 0.7}, "temperature=0.7"),
        pytest.param({"async_config": {"loss_fn": "ppo"}}, "async_config.loss_fn='ppo'", marks=since_0_6),
        pytest.param({"async_config": {}, "loss_fn": "ppo"}, "^loss_fn='ppo'", marks=since_0_6),
    ],
)
def test_main_refuses_before_anything_is_sampled(changes, words, tmp_path, service_client):
    made = {"async_config": asynchronous, "stream_minibatch_config": train.StreamMinibatchConfig}
    changes = {name: made[name](**value) if name in made else value for name, value in changes.items()}
    with pytest.raises(ConfigError, match=words):
        asyncio.run(plugin.main(configuration(tmp_path, **changes)))
    assert not service_client.service.requests and not service_client.recorded


@since_0_6
def test_settings_that_only_the_cookbooks_loss_cannot_take_are_accepted(tmp_path, service_client):
    """The cookbook refuses a discounted KL penalty with its default asynchronous loss; ours takes any advantage."""
    settings = configuration(
        tmp_path,
        2,
        async_config=asynchronous(),
        kl_penalty_coef=0.1,
        kl_discount_factor=0.9,
        kl_reference_config=train.KLReferenceConfig(base_model=MODEL),
    )
    theirs = type(settings).training_loss_fn(settings)
    assert theirs == "stable_reinforce" and theirs in plugin.DEFAULT_LOSSES
    sent = plugin._with_custom_loss(settings)
    assert (sent.loss_fn, sent.training_loss_fn(), sent.records_stability_info()) == ("custom", "custom", False)
    same = chz.replace(sent, loss_fn=settings.loss_fn, async_config=settings.async_config)
    assert chz.asdict(same) == chz.asdict(settings)
