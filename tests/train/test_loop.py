"""Whole runs of the trainer on the copy task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from drpo.errors import CheckpointError, ConfigError, MismatchError, SamplerError, TaskError
from drpo.objectives import OBJECTIVES
from drpo.rollouts import InProcessSampler, Sampler
from drpo.rollouts.vllm import sampler as vllm_sampler
from drpo.run_directory import SHIFT_EDGES, WEIGHT_EDGES, RunDirectory
from drpo.train import loop, setup
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config, validate_config
from drpo.train.gradient import accumulate_gradient
from drpo.train.loop import train
from drpo.train.observer import Observer, Summary
from drpo.train.samplers import make_sampler

pytestmark = pytest.mark.slow

SMALL = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=8",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=4",
    "eval_every=2",
    "checkpoint_every=2",
    "eval_examples=2",
    "eval_samples=2",
    "learning_rate=1e-3",
    "device=cpu",
]


def configuration(copyist: Path, *changes: str) -> TrainConfig:
    return load_config(None, [f"model={copyist}", *SMALL, *changes])[0]


class Recorder(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.updates: list[dict[str, Any]] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, records: list[dict[str, Any]]) -> None:
        self.updates += records


def run(
    config: TrainConfig, path: Path, observer: Observer | None = None, **options: Any
) -> tuple[Summary, RunDirectory]:
    directory = RunDirectory(path)
    return train(config, directory, observer, **options), directory


def without_timing(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "timing"} for record in records]


def last_weights(directory: RunDirectory) -> bytes:
    return (sorted(directory.checkpoints.glob("step-*"))[-1] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["surrogate", "ppo", "grpo", "spo", "dppo_tv", "drpo"])
def test_the_main_objectives_learn_well(copyist: Path, tmp_path: Path, name: str) -> None:
    config = configuration(
        copyist,
        f"objective.name={name}",
        "steps=25",
        "prompts_per_step=16",
        "group_size=8",
        "eval_every=0",
        "eval_samples=64",
        "learning_rate=5e-3",
    )
    summary, _ = run(config, tmp_path / "run")
    assert summary.status == "finished"
    assert summary.accuracy_before is not None and summary.accuracy_after is not None
    assert 0.2 < summary.accuracy_before < 0.6
    assert summary.accuracy_after > summary.accuracy_before + 0.25


#: What is not in the registry by itself: anchors and modifiers, and both reads of the top K together with them.
COMPOSED = [
    "{name: grpo, anchor: proximal, modifiers: [tis]}",
    "{name: drpo, anchor: proximal, modifiers: [{name: icepop, low: 0.2}, {name: mis, level: geometric}]}",
    "{name: drpo, modifiers: [opsm, {name: entropy_top, fraction: 0.5}]}",
    "{name: troll, modifiers: [{name: entropy_top, fraction: 0.5}]}",
]


@pytest.mark.parametrize("objective", [*sorted(OBJECTIVES), *COMPOSED])
def test_every_objective_learns(copyist: Path, tmp_path: Path, objective: str) -> None:
    """Twenty steps on little data, micro-batches included: well above where it started."""
    config = configuration(
        copyist,
        f"objective={objective}",
        "steps=20",
        "group_size=8",
        "eval_every=0",
        "checkpoint_every=100",
        "eval_samples=64",
        "learning_rate=2.5e-3",
        "micro_batch_tokens=150",
    )
    summary, directory = run(config, tmp_path / "run")
    assert summary.status == "finished"
    updates = directory.read_metrics("update")
    assert len(updates) == 40
    assert all(math.isfinite(record["loss"]) and math.isfinite(record["gradient_norm"]) for record in updates)
    assert summary.accuracy_before is not None and summary.accuracy_after is not None
    assert summary.accuracy_after > summary.accuracy_before + 0.1


@pytest.mark.parametrize("objective", ["gspo", "cppo", "m2po", "minirl", "dppo_topk_kl", "troll", *COMPOSED])
def test_micro_batches_change_no_gradient_of_a_coupled_objective(copyist: Path, tmp_path: Path, objective: str) -> None:
    """Ratios have moved by the second update, so that masks and projections are at work."""
    norms = []
    for budget in (16_384, 40):
        config = configuration(
            copyist,
            f"objective={objective}",
            f"micro_batch_tokens={budget}",
            "steps=1",
            "updates_per_step=3",
            "learning_rate=3e-2",
            "group_size=16",
        )
        _, directory = run(config, tmp_path / f"run-{budget}")
        norms.append([(r["gradient_norm"], r["loss"]) for r in directory.read_metrics("update")])
        assert directory.read_metrics("update")[-1]["shift_max"] > 0.05
    # The weights themselves differ by rounding after an update, and a mask may then flip: the first two are compared
    # closely.
    assert torch.allclose(torch.tensor(norms[0][:2]), torch.tensor(norms[1][:2]), rtol=1e-3, atol=1e-5)


def test_proximal_logprobs_are_those_of_the_weights_that_sampled(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one engine for both, π_old is μ: at every update of a step, not only at the first."""
    from drpo.train import update

    seen: list[Any] = []
    original = accumulate_gradient

    def spy(*arguments: Any) -> Any:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(update, "accumulate_gradient", spy)
    run(configuration(copyist, "objective=minirl", "steps=1", "updates_per_step=3"), tmp_path / "run")
    assert len(seen) == 3
    for _, batch, _ in seen:
        assert torch.allclose(batch.proximal_logprobs, batch.behavior_logprobs, atol=1e-4)
    assert (seen[-1][1].logprobs - seen[-1][1].proximal_logprobs).abs().max() > 1e-3
    seen.clear()
    run(configuration(copyist, "steps=1"), tmp_path / "plain")
    assert seen[0][1].proximal_logprobs is None and seen[0][1].topk_logprobs is None


def test_a_composed_objective_is_kept_whole(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist, f"objective={COMPOSED[0]}", "objective.ratio_high=0.3", "steps=1")
    _, directory = run(config, tmp_path / "run")
    kept = directory.read_config()
    assert kept["objective"] == {
        "name": "grpo",
        "ratio_low": 0.2,
        "ratio_high": 0.3,
        "dual_clip": None,
        "anchor": "proximal",
        "modifiers": [{"name": "tis", "ratio_cap": 2.0}],
    }
    assert validate_config(kept).make_objective() == config.make_objective()
    with pytest.raises(ConfigError, match=r"grpo is anchored on μ.*tis would do so a second time"):
        configuration(copyist, "objective=grpo", "objective.modifiers=[tis]")


def test_what_a_run_leaves_behind(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist)
    observer = Recorder()
    summary, directory = run(config, tmp_path / "run", observer)
    assert (summary.status, summary.step) == ("finished", 4)
    updates, evaluations = directory.read_metrics("update"), directory.read_metrics("evaluation")
    assert [(r["step"], r["update"]) for r in updates] == [(s, u) for s in (1, 2, 3, 4) for u in (0, 1)]
    assert [r["step"] for r in evaluations] == [0, 2, 4]
    promised = {
        "loss",
        "reward",
        "accuracy",
        "response_length",
        "truncated_share",
        "entropy",
        "ratio",
        "ratio_min",
        "ratio_max",
        "shift",
        "shift_p99",
        "shift_max",
        "beyond_delta",
        "beyond_delta_positive",
        "beyond_delta_negative",
        "corrective_share",
        "mismatch",
        "mismatch_p95",
        "mismatch_max",
        "k3_kl",
        "gradient_norm",
        "failed_rewards",
    }
    promised |= {"corrective_mass", "masked_mass", "weight_diverging", "weight_converging", "diverging_share_positive"}
    for record in updates:
        assert promised <= set(record)
        assert set(record["others"]) >= {"ppo", "dppo_tv", "drpo", "m2po"}
        assert all(0 <= share <= 1 for others in record["others"].values() for share in others.values())
        assert record["others"]["drpo"]["corrective_mass"] == record["corrective_mass"]  # the run's own objective
        assert set(record["timing"]) == {"sampling", "grading", "training", "tokens_per_second"}
        assert record["sequences"] == 16
        # Padding is never counted: a response of the copy task has 1 to 4 tokens.
        assert record["tokens"] == round(record["response_length"] * 16) <= 64
        assert sum(record["histograms"]["shift"]) == record["tokens"]
        assert len(record["histograms"]["shift"]) == len(SHIFT_EDGES) - 1
        assert len(record["histograms"]["weight"]) == len(WEIGHT_EDGES) - 1
        assert record["ratio_min"] <= record["ratio"] <= record["ratio_max"]
        assert record["shift_p99"] <= record["shift_max"] <= 1
    assert updates[0]["mismatch_max"] < 1e-4 < updates[1]["mismatch_max"]  # fresh, then one update old
    assert directory.read_manifest()["status"] == "finished"
    assert sorted(path.name for path in directory.checkpoints.iterdir()) == ["step-000002", "step-000004"]
    assert list(directory.read_rollouts("step")) == [1, 2, 3, 4]
    assert len(directory.read_rollouts("step")[1]) == 32
    assert list(directory.read_rollouts("evaluation")) == [0, 2, 4]
    assert any(note.startswith("before training |log π − log μ| is") for note in observer.notes)


def test_a_run_is_reproducible_and_seeds_differ(copyist: Path, tmp_path: Path) -> None:
    _, one = run(configuration(copyist), tmp_path / "one")
    _, two = run(configuration(copyist), tmp_path / "two")
    _, other = run(configuration(copyist, "seed=1"), tmp_path / "other")
    assert without_timing(one.read_metrics()) == without_timing(two.read_metrics())
    assert last_weights(one) == last_weights(two) != last_weights(other)


def test_interrupted_and_resumed_is_the_uninterrupted_run_bit_for_bit(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist, "steps=6")
    _, whole = run(config, tmp_path / "whole")
    asked: list[int] = []

    def stop_after_three() -> bool:
        asked.append(1)
        return len(asked) == 3

    summary, part = run(config, tmp_path / "part", stop_requested=stop_after_three)
    assert (summary.status, summary.step) == ("interrupted", 3)
    assert part.read_manifest()["status"] == "interrupted"
    summary, part = run(config, tmp_path / "part", resume=True)
    assert (summary.status, summary.step) == ("finished", 6)
    assert without_timing(part.read_metrics()) == without_timing(whole.read_metrics())
    assert part.read_rollouts("step") == whole.read_rollouts("step")
    assert last_weights(part) == last_weights(whole)


def test_a_resume_after_a_damaged_checkpoint_repeats_the_lost_steps(copyist: Path, tmp_path: Path) -> None:
    _, directory = run(configuration(copyist), tmp_path / "run")
    before, weights = without_timing(directory.read_metrics()), last_weights(directory)
    (directory.checkpoints / "step-000004" / "model.safetensors").write_bytes(b"gone")
    observer = Recorder()
    summary, directory = run(configuration(copyist), tmp_path / "run", observer, resume=True)
    assert summary.step == 4
    assert any("step-000004 is damaged" in note for note in observer.notes)
    assert without_timing(directory.read_metrics()) == before
    assert last_weights(directory) == weights


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "sequence_sum"])
def test_micro_batches_change_no_gradient(copyist: Path, tmp_path: Path, aggregation: str) -> None:
    norms = []
    for budget in (16_384, 40, 1):
        config = configuration(copyist, f"micro_batch_tokens={budget}", f"aggregation={aggregation}", "steps=1")
        _, directory = run(config, tmp_path / f"run-{budget}")
        norms.append([(r["gradient_norm"], r["loss"]) for r in directory.read_metrics("update")])
    for other in norms[1:]:
        assert torch.allclose(torch.tensor(norms[0]), torch.tensor(other), rtol=1e-4, atol=1e-6)


def test_failing_rewards_are_left_out_and_reported(copyist: Path, tmp_path: Path) -> None:
    observer = Recorder()
    config = configuration(copyist, "task=python:support.user_tasks:SometimesRaises", "prompts_per_step=16", "steps=2")
    summary, directory = run(config, tmp_path / "run", observer)
    assert summary.status == "finished"
    updates = directory.read_metrics("update")
    failed = sum(record["failed_rewards"] for record in updates)
    assert 0 < failed < 64
    assert sum(record["sequences"] for record in updates) == 2 * 64 - failed
    assert any("rewards failed and were left out" in n and "no grade for a" in n for n in observer.notes)


def test_mostly_failing_rewards_stop_the_run(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist, "task=python:support.user_tasks:MostlyRaises", "eval_examples=8")
    with pytest.raises(TaskError, match=r"of \d+ rewards failed, most often with: .*no grade but for a.*never counted"):
        run(config, tmp_path / "run")
    manifest = RunDirectory(tmp_path / "run").read_manifest()
    assert manifest["status"] == "failed" and "rewards failed" in manifest["failure"]


def test_a_hanging_reward_costs_its_time_limit(copyist: Path, tmp_path: Path) -> None:
    config = configuration(
        copyist,
        "task=python:support.user_tasks:HangsOnce",
        "grading_time_limit=0.3",
        "steps=1",
        "prompts_per_step=16",
        "group_size=2",
    )
    summary, directory = run(config, tmp_path / "run")
    assert summary.status == "finished"
    seen = {record["prompt"] for record in directory.read_rollouts("step")[1]}
    assert "ab" not in seen and seen


def test_responses_that_take_too_long_to_grade_are_wrong_counted_and_told(copyist: Path, tmp_path: Path) -> None:
    observer = Recorder()
    config = configuration(
        copyist,
        "task=python:support.user_tasks:SlowForSome",
        "grading_time_limit=0.3",
        "steps=1",
        "prompts_per_step=16",
        "eval_examples=4",
    )
    _, directory = run(config, tmp_path / "run", observer)
    rollouts = directory.read_rollouts("step")[1]
    slow = [record for record in rollouts if record["text"].startswith("a")]
    assert slow and all(record["reward"] == 0.0 and record["timeout"] and not record["failure"] for record in slow)
    assert any("not tried" in record["timeout"] for record in slow)
    assert not any("timeout" in record for record in rollouts if record not in slow)
    updates = directory.read_metrics("update")
    assert sum(record["timed_out_rewards"] for record in updates) == len(slow)
    assert sum(record["failed_rewards"] for record in updates) == 0
    assert sum(record["sequences"] for record in updates) == len(rollouts)
    assert any(f"{len(slow)} responses took too long to grade" in note for note in observer.notes)


def test_behavior_logprobs_that_are_not_the_policys_stop_the_run(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler at another temperature than the trainer's, planted."""
    sample = InProcessSampler.sample

    def warmer(self: Any, requests: Any, parameters: Any) -> Any:
        from dataclasses import replace

        return sample(self, requests, replace(parameters, temperature=1.6))

    monkeypatch.setattr(InProcessSampler, "sample", warmer)
    with pytest.raises(MismatchError, match=r"before any training, \|log π − log μ\| is .*another temperature"):
        run(configuration(copyist), tmp_path / "run")


def test_one_update_a_step_is_said_to_be_inert(copyist: Path, tmp_path: Path) -> None:
    observer = Recorder()
    _, directory = run(configuration(copyist, "updates_per_step=1", "steps=1"), tmp_path / "run", observer)
    assert any("no trust region (of any objective) acts" in note for note in observer.notes)
    assert directory.read_metrics("update")[0]["shift_max"] < 1e-4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["max_new_tokens=1"], "Raise max_new_tokens (now 1)"),
        (["temperature=1e-4"], "no group's rewards vary (mean"),  # the responses to a prompt are all the same
        ([], None),
    ],
)
def test_batches_without_a_signal_are_told_after_the_second(
    copyist: Path, tmp_path: Path, changes: list[str], says: str | None
) -> None:
    observer = Recorder()
    run(configuration(copyist, "steps=3", "eval_every=0", *changes), tmp_path / "run", observer)
    told = [note for note in observer.notes if "rollout batches in a row" in note]
    assert len(told) == (says is not None)
    assert all(note.startswith("step 2: ") and says is not None and says in note for note in told)


def test_a_run_that_cannot_start_leaves_nothing_and_none_is_overwritten(copyist: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'letters'"):
        run(configuration(copyist, "task.letters=abc"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    _, directory = run(configuration(copyist), tmp_path / "run")
    before = directory.metrics_file.read_bytes()
    with pytest.raises(CheckpointError, match=r"already holds a run. Continue it with `drpo train --resume"):
        run(configuration(copyist), tmp_path / "run")
    assert directory.metrics_file.read_bytes() == before


def test_a_run_that_failed_and_was_resumed_is_no_longer_failed(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match=r"planted"):
        patch.setattr(loop, "roll_out", broken)
        run(configuration(copyist), tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    assert directory.read_manifest()["failure"] == "RuntimeError: planted"
    run(configuration(copyist), tmp_path / "run", resume=True)
    manifest = directory.read_manifest()
    assert manifest["status"] == "finished" and "failure" not in manifest


def test_the_kept_configuration_is_complete(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist, "objective.delta=0.2", "steps=1")
    _, directory = run(config, tmp_path / "run")
    kept = directory.read_config()
    assert kept["objective"] == {"name": "drpo", "delta": 0.2, "deadzone": 0.0, "advantage_weighted": True}
    assert validate_config(kept).make_objective() == config.make_objective()


def test_warm_up_is_linear_then_constant(copyist: Path, tmp_path: Path) -> None:
    observer = Recorder()
    run(configuration(copyist, "warmup_updates=3"), tmp_path / "run", observer)
    rates = [record["learning_rate"] / 1e-3 for record in observer.updates]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_metrics_are_strict_json(copyist: Path, tmp_path: Path) -> None:
    """A figure that does not exist (no token with Â ≠ 0) is null, never NaN."""
    config = configuration(copyist, "task.alphabet=xyz", "steps=1")  # letters it never saw: all rewards 0
    _, directory = run(config, tmp_path / "run")
    for line in directory.metrics_file.read_text().splitlines():
        record = json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} in metrics.jsonl"))
        assert not any(isinstance(value, float) and math.isnan(value) for value in record.values())
    assert directory.read_metrics("update")[0]["corrective_share"] is None


class Watched:
    """A sampler that keeps what was asked of it, in order."""

    def __init__(self, sampler: Sampler, model: Any, fails: bool):
        self.sampler, self.model, self.fails = sampler, model, fails
        self.asked: list[str] = []

    def load_weights(self, weights: Any) -> None:
        newest = dict(self.model.named_parameters())
        assert set(weights) == set(newest)
        assert all(torch.equal(weights[name], newest[name]) for name in newest)
        self.asked.append("weights")

    def sample(self, requests: Any, parameters: Any) -> Any:
        self.asked.append("sample")
        if self.fails and len(self.asked) > 3:
            raise SamplerError("no more")
        return self.sampler.sample(requests, parameters)

    def close(self) -> None:
        self.asked.append("close")


@pytest.mark.parametrize("fails", [False, True])
def test_a_sampler_gets_the_newest_weights_before_every_batch_and_is_closed(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    made: list[Watched] = []
    make = make_sampler

    def watched(config: TrainConfig, policy: Any, *others: Any) -> Watched:
        made.append(Watched(make(config, policy, *others), policy.model, fails))
        return made[0]

    monkeypatch.setattr(setup, "make_sampler", watched)
    config = configuration(copyist, "steps=2", "eval_every=0")
    batch = ["weights", "sample"]
    if fails:
        with pytest.raises(SamplerError, match="no more"):
            run(config, tmp_path / "run")
        assert made[0].asked == [*batch, *batch, "close"]
    else:
        run(config, tmp_path / "run")
        assert made[0].asked == [*batch * 4, "close"]


def test_a_sampler_that_is_not_installed_is_told_before_anything_is_written(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_sampler, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[vllm\]'"):
        run(configuration(copyist, "sampler=vllm"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
