"""``loss_mode=drpo_record``: verl's own losses stay what they are, and what they saw is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss

from drpo.errors import ConfigError
from drpo.files import read_jsonl
from drpo.inspection.inspect import inspect
from drpo.integrations.parity import Padded, fixed_batch
from drpo.integrations.verl_plugin import record
from drpo.integrations.verl_plugin.composition import SECTION, composed, instantiated
from drpo.integrations.verl_plugin.dry_run import describe_loss
from drpo.integrations.verl_plugin.parity import model_output, to_tensordict

PRESET = ("hydra.searchpath=[pkg://drpo.integrations.verl_presets]", "+drpo=record")
BYPASS = "algorithm.rollout_correction.bypass_mode=true"


def recorded(folder: Path, *overrides: str, bypass: str = BYPASS, **section: Any) -> Any:
    """verl's ActorConfig with the preset."""
    return instantiated(composed([bypass, f"{SECTION}.path={folder}", *overrides], PRESET), **section)


def through_ppo_loss(config: Any, padded: Padded, rows: int) -> tuple[torch.Tensor, dict[str, Any], torch.Tensor]:
    """Loss, metrics and gradient ``[B, T]`` of a micro-batch of an update of ``rows`` sequences."""
    leaf = padded.logprobs.clone().requires_grad_(True)
    data = to_tensordict(padded)
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=100, global_batch_size=rows)
    loss, metrics = ppo_loss(config, {"log_probs": model_output(data, leaf)}, data)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), {name: metric.aggregate() for name, metric in metrics.items()}, gradient


@pytest.mark.parametrize("loss", ["vanilla", "dppo_tv", "gspo", "sapo", "cispo", "geo_mean", "gpg", "kl_cov"])
def test_verls_own_loss_is_unchanged(tmp_path: Path, loss: str) -> None:
    padded = fixed_batch()
    native = instantiated(composed([BYPASS, f"{SECTION}.loss_mode={loss}"], ()))
    states = []
    found = []
    for config in (native, recorded(tmp_path, f"{SECTION}.loss={loss}")):
        torch.manual_seed(0)
        found.append(through_ppo_loss(config, padded, len(padded.mask)))
        states.append(torch.get_rng_state())
    (expected, expected_metrics, expected_gradient), (total, metrics, gradient) = found
    assert torch.equal(total, expected) and torch.equal(gradient, expected_gradient) and gradient.any()
    assert metrics == pytest.approx(expected_metrics, abs=0, rel=0) and torch.equal(*states)
    assert inspect([tmp_path], delta=0.15).tokens == int(padded.mask.sum())


def test_the_log_holds_what_the_loss_saw(tmp_path: Path) -> None:
    padded = fixed_batch()
    rows, config = len(padded.mask), recorded(tmp_path)
    for _ in range(2):  # two optimizer steps of two micro-batches
        for part in padded.micro_batches(2):
            through_ppo_loss(config, part, rows)
    again = recorded(tmp_path)  # a run that was resumed
    through_ppo_loss(again, padded, rows)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"step-{step:06d}.jsonl" for step in (1, 2, 3)]
    written = int((padded.mask.sum(1) > 0).sum())
    for step, file in enumerate(files, start=1):
        lines = list(read_jsonl(file))
        assert [(line["step"], line["sequence_id"]) for line in lines] == [(step, row) for row in range(written)]
        for name, values in (("logprobs", padded.logprobs), ("behavior_logprobs", padded.behavior_logprobs)):
            read = torch.tensor([value for line in lines for value in line[name]], dtype=values.dtype)
            assert torch.allclose(read, values[padded.mask.bool()].detach(), rtol=1e-6, atol=0)


def test_the_log_is_bounded_and_rank_0s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = fixed_batch()
    through_ppo_loss(recorded(tmp_path / "a", limit=5), padded, len(padded.mask))
    lengths = [len(line["logprobs"]) for line in read_jsonl(tmp_path / "a" / "step-000001.jsonl")]
    assert sum(lengths[:-1]) < 5 <= sum(lengths)
    monkeypatch.setattr(record, "rank", lambda: 1)
    through_ppo_loss(recorded(tmp_path / "b"), padded, len(padded.mask))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.use_v1=false"], r"trainer\.use_v1=false with bypass_mode=true"),
        (["actor_rollout_ref.rollout.calculate_log_probs=false"], "the rollout returns no log-probabilities"),
        ([f"{SECTION}.loss=vanila"], "verl has no loss 'vanila' of its own. Did you mean 'vanilla'"),
        ([f"{SECTION}.loss=drpo"], "verl has no loss 'drpo' of its own"),
        ([f"{SECTION}.loss_mode=gspo"], "loss_mode=gspo would run that loss without a record"),
        ([f"{SECTION}.limit=0"], r"limit must be a whole number of tokens above 0, got 0"),
        ([f"{SECTION}.path=''"], r"path is empty"),
        ([f"{SECTION}.host.model_engine=megatron"], "rank 0, which writes the log, computes no loss"),
        ([f"{SECTION}.host=null"], "does not show the loss where old_log_probs come from"),
    ],
)
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        recorded(tmp_path, *overrides)


def test_without_mu_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no μ to record: .*unless algorithm\.rollout_correction\.bypass_mode=true"):
        recorded(tmp_path, bypass="algorithm.rollout_correction.bypass_mode=false")


def test_a_section_of_verls_own_is_refused() -> None:
    config = instantiated(composed([BYPASS, f"{SECTION}.loss_mode=drpo_record"], ()))
    with pytest.raises(ConfigError, match=r"without its configuration, .*\+drpo=record"):
        through_ppo_loss(config, fixed_batch(), 8)


def test_the_dry_run_names_it(tmp_path: Path) -> None:
    said = describe_loss(recorded(tmp_path, f"{SECTION}.loss=gspo").policy_loss)
    assert said == f"loss drpo_record is registered: verl's gspo, recorded in {tmp_path}"
