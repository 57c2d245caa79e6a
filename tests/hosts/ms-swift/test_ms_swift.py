"""The loss inside ms-swift's GRPO trainer: parity, refusals, metrics, a real forward pass, the doctor."""

import math
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from swift.rlhf_trainers.args_mixin import GRPOArgumentsMixin
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer
from swift.trainers.trainer_factory import TrainerFactory
from swift.utils import import_external_file
from transformers import Qwen2Config, Qwen2ForCausalLM

import drpo
from drpo.errors import ConfigError, DataError, MismatchError
from drpo.integrations.ms_swift import settings, use
from drpo.integrations.ms_swift.parity import Prepared, batch, make_path, step
from drpo.integrations.ms_swift.trainer import IGNORED, PLAIN_SAMPLING, DRPOTrainer, check
from drpo.integrations.parity import BEYOND_DEFAULTS, compare, difference, effect, fixed_batch, reference, tolerance
from support.host_doctor import ask

PATH = make_path()
PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "ms-swift.md"


@pytest.mark.parametrize("mode", PATH.modes)
@pytest.mark.parametrize("name", PATH.objectives)
def test_parity(name, mode):
    assert compare(PATH, {"name": name}, mode).worst <= tolerance(PATH)


@pytest.mark.parametrize("chosen", BEYOND_DEFAULTS)
def test_parameters_and_modifiers_arrive(chosen):
    assert compare(PATH, chosen, "token_mean").worst <= tolerance(PATH)
    assert effect(chosen) > 0.01


def test_an_objective_over_the_whole_update_runs_in_one_micro_batch_only():
    expected = reference({"name": "m2po"}, fixed_batch(), "token_mean")
    assert difference(PATH.gradient({"name": "m2po"}, fixed_batch(), "token_mean"), expected) <= tolerance(PATH)
    with pytest.raises(ConfigError, match="--gradient_accumulation_steps 1"):
        PATH.gradient({"name": "m2po"}, fixed_batch(), "token_mean", 2)


def test_metrics_are_those_of_diagnose():
    padded = fixed_batch()
    use(mismatch_limit=100.0)
    trainer = Prepared("dapo")
    step(trainer, padded)
    tokens = drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)
    for name in ("beyond_delta", "mismatch", "ratio"):
        measured = drpo.diagnose(tokens)[name]
        assert trainer._metrics["train"][f"drpo/{name}"] == [pytest.approx(float(measured.sum / measured.count))]
    assert trainer._metrics["train"]["drpo/left_out_share"] == [0.0]


def test_overlong_completions_are_left_out_as_ms_swift_does():
    padded = fixed_batch()
    use(mismatch_limit=100.0)
    trainer = Prepared("grpo", overlong_filter=True)
    leaf = padded.logprobs.clone().requires_grad_(True)
    made = batch(padded, int(padded.mask.sum()))
    made.truncated_mask[0] = True
    trainer.compute_loss(trainer.model, {"model_inputs": {"input_ids": leaf}, "grpo_batch": made}).backward()
    expected = reference({"name": "drpo"}, padded, "sequence_mean")
    expected[0] = 0.0
    assert leaf.grad is not None
    assert difference(leaf.grad, expected) <= tolerance(PATH)


def test_a_batch_without_mu_or_with_another_policys_stops_the_run():
    padded = fixed_batch()
    use()
    trainer = Prepared("dapo")
    with pytest.raises(MismatchError, match=r"ms-swift: .*mismatch_limit of use"):
        step(trainer, padded)
    made = batch(padded, 110)
    made.rollout_per_token_logps = None
    with pytest.raises(ConfigError, match="no rollout_per_token_logps"):
        trainer.compute_loss(trainer.model, {"model_inputs": {"input_ids": padded.logprobs}, "grpo_batch": made})
    padded.behavior_logprobs[0] = math.nan
    with pytest.raises(DataError, match="ms-swift: 24 of"):
        step(trainer, padded)
    trainer.dynamic_num_samples = True
    with pytest.raises(ConfigError, match="more samples"):
        trainer._compute_loss_and_metrics(None, {}, batch(padded, 110))


def arguments(**changed):
    """ms-swift's defaults, and what this loss asks for."""
    args = SimpleNamespace(**{name: GRPOArgumentsMixin.__dataclass_fields__[name].default for name in PLAIN_SAMPLING})
    for name in IGNORED:
        setattr(args, name, GRPOArgumentsMixin.__dataclass_fields__[name].default)
    args.chord_sft_dataset = []
    args.use_vllm, args.loss_type, args.beta, args.kl_in_reward, args.use_liger_kernel = True, "dapo", 0.0, False, False
    args.steps_per_generation = args.gradient_accumulation_steps = 2
    return SimpleNamespace(**{**vars(args), **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_vllm": False}, "Set --use_vllm true"),
        ({"loss_type": "bnpo"}, "depends on the micro-batches"),
        ({"loss_type": "cispo"}, "is another loss"),
        ({"beta": 0.04}, "Set --beta 0"),
        ({"use_liger_kernel": True}, "liger"),
        ({"steps_per_generation": 4}, "Make both equal"),
        ({"epsilon_high": 0.28}, "--epsilon_high belongs"),
        ({"rollout_importance_sampling_mode": "token_mask"}, "--rollout_importance_sampling_mode belongs"),
        ({"chord_sft_dataset": ["x"]}, "--chord_sft_dataset belongs"),
        ({"top_p": 0.9}, "--top_p 0.9"),
        ({"top_k": 50}, "--top_k 50"),
    ],
)
def test_arguments_that_are_refused(changed, message):
    check(arguments())
    check(arguments(beta=0.04, kl_in_reward=True))
    with pytest.raises(ConfigError, match=message):
        check(arguments(**changed))
    with pytest.raises(ConfigError, match=message):
        DRPOTrainer(args=arguments(**changed))


def test_a_file_of_external_plugins_names_our_trainer_to_ms_swift(tmp_path, monkeypatch):
    monkeypatch.setitem(TrainerFactory.TRAINER_MAPPING, "grpo", "swift.rlhf_trainers.GRPOTrainer")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "drpo_plugin.py"
    file.write_text(block.replace("0.15", "0.05"), encoding="utf-8")
    import_external_file(str(file))
    assert settings().objective.settings()["delta"] == 0.05
    found = TrainerFactory.get_trainer_cls(SimpleNamespace(rlhf_type="grpo"))
    assert found is DRPOTrainer and issubclass(found, GRPOTrainer)


def test_what_use_refuses(monkeypatch):
    with pytest.raises(ConfigError, match="drpo"):
        use("dropo")
    with pytest.raises(ConfigError, match="needs entropy"):
        use(parameters={"modifiers": ["entropy_top"]})
    with pytest.raises(ConfigError, match="mismatch_limit must be"):
        use(mismatch_limit=0)
    monkeypatch.setitem(sys.modules, "swift.megatron", ModuleType("swift.megatron"))
    with pytest.raises(ConfigError, match="swift rlhf"):
        use()


class Real(Prepared):
    """With ms-swift's own forward pass."""

    _get_per_token_logps_and_entropies = GRPOTrainer._get_per_token_logps_and_entropies
    model_kwarg_keys, temperature = ("use_cache", "logits_to_keep"), 0.9


def test_a_real_model_learns_and_starts_at_mu():
    """ms-swift's forward pass, its temperature and its shift by one: on policy |log π − log μ| is 0."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    rows, width = 8, 5
    inputs = torch.randint(1, 32, (rows, 4 + width))
    with torch.no_grad():
        logits = model(inputs).logits[:, 3:-1] / Real.temperature
        mu = logits.log_softmax(-1).gather(2, inputs[:, 4:].unsqueeze(2)).squeeze(2)
    padded = SimpleNamespace(
        mask=torch.ones(rows, width, dtype=torch.bool),
        behavior_logprobs=mu,
        proximal_logprobs=mu,
        advantages=torch.tensor([1.0, -1.0] * 4),
    )
    made = batch(padded, rows * width)  # pyright: ignore[reportArgumentType]
    made.logits_to_keep = width
    use()
    trainer = Real("dapo")
    trainer.template.sequence_parallel_size = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        trainer.compute_loss(model, {"model_inputs": {"input_ids": inputs}, "grpo_batch": made}).backward()
        optimizer.step()
    found = trainer._metrics["train"]
    assert found["drpo/mismatch"][0] <= 1e-5 and found["drpo/shift"][-1] > 1e-3
    with torch.no_grad():
        logits = model(inputs).logits[:, 3:-1] / Real.temperature
        moved = (logits.log_softmax(-1).gather(2, inputs[:, 4:].unsqueeze(2)).squeeze(2).exp() - mu.exp()).mean(1)
    assert bool((moved[0::2] > 0).all()) and bool((moved[1::2] < 0).all())


def test_the_doctor_of_this_environment():
    found = ask("ms-swift", code=0)
    assert {found[what]["status"] for what in ("ms-swift", "trainer")} == {"ok"}
