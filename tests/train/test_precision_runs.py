"""Whole runs in every precision, and from older weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from drpo.errors import ConfigError, MismatchError
from drpo.model.policy import load_policy
from drpo.model.precision import Quantized
from drpo.rollouts import CopySampler, InProcessSampler
from drpo.run_directory import RunDirectory
from drpo.tasks.grading.grader import Grader
from drpo.train.config import TrainConfig
from drpo.train.config_layers import load_config
from drpo.train.loop import Trainer, train
from drpo.train.observer import Observer
from drpo.train.rollout_weights import RolloutWeights, Snapshot
from drpo.train.setup import build

pytestmark = pytest.mark.slow

SMALL = [
    "task=copy",
    "task.length=2",
    "prompts_per_step=8",
    "group_size=4",
    "updates_per_step=2",
    "max_new_tokens=4",
    "steps=6",
    "eval_every=3",
    "checkpoint_every=2",
    "eval_examples=2",
    "eval_samples=2",
    "learning_rate=1e-3",
    "device=cpu",
    "grading_workers=1",
]
#: Trainer and rollouts.
PAIRS = [("bf16", "bf16"), ("fp32", "bf16"), ("fp32", "fp8"), ("fp8", "fp8")]


def configuration(copyist: Path, *changes: str) -> TrainConfig:
    return load_config(None, [f"model={copyist}", *SMALL, *changes])[0]


def run(config: TrainConfig, path: Path, **options: Any) -> RunDirectory:
    directory = RunDirectory(path)
    train(config, directory, **options)
    return directory


def without_timing(directory: RunDirectory) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "timing"} for record in directory.read_metrics()]


@pytest.mark.parametrize(("trainer", "rollouts"), PAIRS)
def test_every_precision_learns(copyist: Path, tmp_path: Path, trainer: str, rollouts: str) -> None:
    """And its mismatch before training is what its numbers are narrow by: float32's is below 1e-4."""
    config = configuration(
        copyist,
        f"precision={trainer}",
        f"rollout_precision={rollouts}",
        "steps=12",
        "prompts_per_step=16",
        "group_size=8",
        "eval_every=0",
        "checkpoint_every=100",
        "eval_samples=64",
        "learning_rate=5e-3",
    )
    directory = run(config, tmp_path / "run")
    before, after = (record["accuracy"] for record in directory.read_metrics("evaluation"))
    assert after > before + 0.15
    updates = directory.read_metrics("update")
    assert all(math.isfinite(record["loss"]) and math.isfinite(record["gradient_norm"]) for record in updates)
    first = updates[0]
    least, most = {"fp8": (1e-3, 0.1), "bf16": (1e-5, 0.02)}[rollouts]
    if trainer != rollouts:
        assert least < first["mismatch"] < most
    assert first["mismatch"] <= first["mismatch_p95"] <= first["mismatch_max"]
    assert 0 < first["shift"] <= first["shift_p99"] < 0.1


def test_the_trainers_model_is_shared_only_where_it_is_what_samples(copyist: Path, tmp_path: Path) -> None:
    for changes, kind, dtype, quantized in (
        ([], InProcessSampler, torch.float32, False),
        (["precision=bf16"], InProcessSampler, torch.bfloat16, False),
        (["precision=fp8"], InProcessSampler, torch.bfloat16, True),
        (["rollout_precision=fp8"], CopySampler, torch.bfloat16, True),
        (["precision=fp8", "rollout_precision=fp32"], CopySampler, torch.float32, False),
        (["rollout_lag=1"], CopySampler, torch.float32, False),
    ):
        config = configuration(copyist, *changes)
        parts = build(config)
        assert type(parts.sampler) is kind
        model: Any = parts.sampler.model  # pyright: ignore[reportAttributeAccessIssue]
        assert (model is parts.policy.model) == (kind is InProcessSampler)
        assert model.dtype == dtype and quantized == any(isinstance(part, Quantized) for part in model.modules())
        trained: Any = parts.optimizer.param_groups[0]["params"]
        assert {parameter.dtype for parameter in trained} == {torch.float32}


RESUMED = [["precision=fp8", "rollout_lag=1"], ["precision=bf16", "rollout_precision=fp8"], ["rollout_lag=3"]]


@pytest.mark.parametrize("changes", RESUMED, ids=" ".join)
def test_interrupted_and_resumed_is_the_uninterrupted_run_bit_for_bit(
    copyist: Path, tmp_path: Path, changes: list[str]
) -> None:
    config = configuration(copyist, *changes)
    whole = run(config, tmp_path / "whole")
    asked: list[int] = []

    def stop_after_three() -> bool:
        asked.append(1)
        return len(asked) == 3

    run(config, tmp_path / "part", stop_requested=stop_after_three)
    part = run(config, tmp_path / "part", resume=True)
    assert without_timing(part) == without_timing(whole)
    assert part.read_rollouts("step") == whole.read_rollouts("step")
    for name in ("model.safetensors", "optimizer.safetensors", "trainer_state.json"):
        ours, theirs = (of.checkpoints / "step-000006" / name for of in (part, whole))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_checkpoint_holds_float32_and_loads_anywhere(copyist: Path, tmp_path: Path) -> None:
    directory = run(configuration(copyist, "precision=fp8", "steps=2", "learning_rate=1e-6"), tmp_path / "run")
    saved = directory.checkpoints / "step-000002"
    tensors = load_file(saved / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert not all(torch.equal(tensor, tensor.bfloat16().float()) for tensor in tensors.values())
    model = transformers.AutoModelForCausalLM.from_pretrained(saved)
    ours = load_policy(str(saved), torch.device("cpu")).model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), ours.parameters(), strict=True))
    assert not (saved / "rollout_weights.safetensors").exists()


@pytest.mark.parametrize("lag", [0, 2])
def test_a_step_samples_from_the_weights_of_so_many_steps_before(
    copyist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    """Seen where the sampler is given them; evaluations get the newest."""
    given: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(InProcessSampler, "load_weights", lambda _, weights: given.append(copies(weights)))
    monkeypatch.setattr(CopySampler, "load_weights", lambda _, weights: given.append(copies(weights)))
    after: list[dict[str, torch.Tensor]] = []
    config = configuration(copyist, f"rollout_lag={lag}", "eval_every=0")
    observer = Observer()
    trainer: list[Trainer] = []
    original = Trainer.roll_out
    monkeypatch.setattr(Trainer, "roll_out", lambda self, step: (trainer.append(self), original(self, step))[1])
    monkeypatch.setattr(observer, "on_step", lambda _: after.append(copies(trainer[0].parts.policy.weights())))
    directory = run(config, tmp_path / "run", observer=observer)
    start = copies(load_policy(str(copyist), torch.device("cpu")).weights())
    states = [start, *after]
    first, *steps, last = given
    assert same(first, states[0]) and same(last, states[6])
    for step, weights in enumerate(steps, 1):
        assert same(weights, states[max(0, step - 1 - lag)])
    assert not same(states[0], states[1])
    records = directory.read_metrics("update")
    assert [record["lag"] for record in records] == [min(lag, step) for step in range(6) for _ in range(2)]
    assert [record["staleness"] for record in records] == [
        2 * min(lag, step) + update for step in range(6) for update in range(2)
    ]


def copies(weights: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_older_weights_are_other_weights(copyist: Path, tmp_path: Path) -> None:
    """At the first update of a step nothing but the lag lies between π and μ, and at the first of all not even that."""
    directory = run(configuration(copyist, "rollout_lag=2", "eval_every=0"), tmp_path / "run")
    firsts = [record["mismatch"] for record in directory.read_metrics("update") if record["update"] == 0]
    assert firsts[0] < 1e-4
    assert all(value > 1e-3 for value in firsts[1:])


def test_weights_are_held_no_longer_than_needed() -> None:
    weights = RolloutWeights(2)
    live = {"w": torch.zeros(1)}
    for step in range(5):
        chosen = weights.next(Snapshot(step, 4 * step, live))
        assert (chosen.step, float(chosen.weights["w"])) == (max(0, step - 2), max(0, step - 2))
        assert len(weights.kept()) == min(step + 1, 2)
        live["w"] += 1
    assert RolloutWeights(0).next(Snapshot(7, 28, live)).weights is live


def test_sixty_four_updates_of_one_response_each(copyist: Path, tmp_path: Path) -> None:
    config = configuration(copyist, "prompts_per_step=16", "updates_per_step=64", "steps=1", "learning_rate=1e-4")
    records = run(config, tmp_path / "run").read_metrics("update")
    assert [record["staleness"] for record in records] == list(range(64))
    assert all(record["sequences"] == 1 and math.isfinite(record["gradient_norm"]) for record in records)
    assert records[-1]["mismatch"] > records[0]["mismatch"]


def test_a_mismatch_beyond_the_limit_names_the_precisions(copyist: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"mismatch_limit=1e-05.*rollouts compute in fp8, the trainer in fp32"):
        run(configuration(copyist, "rollout_precision=fp8", "mismatch_limit=1e-5"), tmp_path / "run")


def test_an_unknown_precision_is_refused(copyist: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollout_precision: .*'fp32', 'bf16' or 'fp8'.*got 'fp16'"):
        configuration(copyist, "rollout_precision=fp16")


def test_one_update_a_step_is_inert_only_where_the_sampler_is_the_trainer(copyist: Path, tmp_path: Path) -> None:
    for changes, inert in (([], True), (["rollout_precision=fp8"], False), (["rollout_lag=1"], False)):
        notes: list[str] = []
        observer = Observer()
        observer.on_note = lambda text, notes=notes: notes.append(text)
        config = configuration(copyist, "updates_per_step=1", *changes)
        parts = build(config)
        with Grader(parts.task, config.grading_time_limit) as grader:
            Trainer(config, RunDirectory(tmp_path), parts, grader, observer).say_what_to_expect()
        assert inert == any("no trust region (of any objective) acts" in note for note in notes)
