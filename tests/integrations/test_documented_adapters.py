"""The adapters that docs/integrations asks to copy, executed against stand-ins for what they import."""

import enum
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import drpo
import drpo.integrations.padded
from drpo.errors import ConfigError
from drpo.integrations.parity import Padded, difference, fixed_batch, names, reference

pytestmark = pytest.mark.slow

PAGES = Path(__file__).parents[2] / "docs" / "integrations"
OBJECTIVES = names()


def adapter(page, monkeypatch, **modules):
    """The namespace of the page's adapter, with ``modules`` (``a__b`` for ``a.b``) importable."""
    for dotted, members in modules.items():
        parts = dotted.split("__")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        vars(sys.modules[".".join(parts)]).update(members)
    found = re.search(r"<!-- adapter -->\n```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    namespace = {"__name__": page}
    exec(compile(found[1], page, "exec"), namespace)
    return SimpleNamespace(**namespace)


@pytest.fixture
def nemo(monkeypatch):
    members = {
        "LossType": enum.Enum("LossType", ["TOKEN_LEVEL", "SEQUENCE_LEVEL"]),
        "LossInputType": enum.Enum("LossInputType", ["LOGPROB", "LOGIT"]),
        "MetricNormalizer": enum.Enum("MetricNormalizer", ["TOKENS", "SEQUENCES", "NONE"]),
    }
    return adapter("nemo-rl.md", monkeypatch, nemo_rl__algorithms__loss__interfaces=members).DRPOLoss


CONFIG = SimpleNamespace(reference_policy_kl_penalty=0, force_on_policy_ratio=False)


def nemo_gradient(loss, padded: Padded, micro_batches, scale=None):
    """NeMo-RL's calls: tensors ``[B, T + 1]`` whose first position has no prediction, denominators of the step."""
    first = torch.zeros(len(padded.mask), 1, dtype=torch.float64)
    rows, metrics = [], []
    for start in range(0, len(padded.mask), len(padded.mask) // micro_batches):
        part = padded.rows(start, start + len(padded.mask) // micro_batches)
        leaf = part.logprobs.clone().requires_grad_(True)
        before = first[: len(leaf)]
        data = {
            "token_mask": torch.cat([before, part.mask.double()], 1),
            "sample_mask": torch.ones(len(leaf)),
            "generation_logprobs": torch.cat([before, part.behavior_logprobs], 1),
            "prev_logprobs": torch.cat([before, part.proximal_logprobs], 1),
            "advantages": torch.cat([before, part.advantages.unsqueeze(1).expand_as(part.mask)], 1),
        }
        total, found = loss(
            next_token_logprobs=leaf,
            data=data,
            global_valid_seqs=torch.tensor(float(scale or len(padded.mask))),
            global_valid_toks=torch.tensor(scale or int(padded.mask.sum())),
        )
        rows.append(torch.autograd.grad(total, leaf)[0])
        metrics.append(found)
    return torch.cat(rows), metrics


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("name", [*OBJECTIVES, "minirl"])
def test_nemo_rl(nemo, name, mode):
    loss = nemo(CONFIG, objective=name, aggregation=mode)
    for count in (1, 2, 4):
        found, metrics = nemo_gradient(loss, fixed_batch(5.0), count)
        assert difference(found, reference({"name": name}, fixed_batch(), mode)) <= 1e-6
        assert sum(part["num_valid_samples"] for part in metrics) == 8
        mismatch = sum(part["drpo/mismatch"] for part in metrics)
        batch = fixed_batch()
        expected = (batch.logprobs - batch.behavior_logprobs).abs()[batch.mask].mean()
        assert mismatch == pytest.approx(float(expected))
        assert all({"token_mult_prob_error", "gen_kl_error", "loss"} <= set(part) for part in metrics)


def test_nemo_rl_is_told_what_each_metric_is_divided_by(nemo):
    """Its split interface calls with denominators of 1 and divides once a step, by what a loss advertises."""
    loss = nemo(CONFIG, aggregation="sequence_mean")
    _, (whole,) = nemo_gradient(loss, fixed_batch(), 1)
    _, (sums,) = nemo_gradient(loss, fixed_batch(), 1, scale=1)
    tokens, rows = float(fixed_batch().mask.sum()), len(fixed_batch().mask)
    kinds = {name: kind.name for name, kind in loss.metric_normalizations.items()}
    for name in whole:
        divisor = {"TOKENS": tokens, "NONE": 1}.get(kinds.get(name, ""), rows)
        assert sums[name] / divisor == pytest.approx(whole[name]), name


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        ({"reference_policy_kl_penalty": 0.01}, {}, "reference_policy_kl_penalty"),
        ({"force_on_policy_ratio": True}, {}, "force_on_policy_ratio"),
        ({}, {"aggregation": "sequence_sum"}, "aggregation must be one of"),
        ({}, {"objective": "m2po"}, "optimizer step"),
    ],
)
def test_nemo_rl_refuses(nemo, config, arguments, words):
    with pytest.raises(ConfigError, match=words):
        nemo(SimpleNamespace(**{**vars(CONFIG), **config}), **arguments)


#: Trainer → the module of its ``get_log_probs_and_entropy``, whether that returns a pair, and whether it pads.
SLIMES = {
    "slime": ("slime__backends__megatron_utils__loss", True, False),
    "vime": ("vime__backends__megatron_utils__loss", True, True),
    "miles": ("miles__backends__training_utils__loss_hub__logit_processors", False, True),
}


@pytest.fixture(params=SLIMES)
def slime(request, monkeypatch):
    module, pair, pads = SLIMES[request.param]

    def get_log_probs_and_entropy(
        logits, *, args, unconcat_tokens, total_lengths, response_lengths, with_entropy, **padded
    ):
        assert pads or not padded
        # The stand-in's logits are the log-probabilities, packed as the tokens are.
        found = {"log_probs": list(logits.split(response_lengths))}
        return (torch.empty(0), found) if pair else found

    members = {"get_log_probs_and_entropy": get_log_probs_and_entropy}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == request.param or None)
    return adapter("slime.md", monkeypatch, **{module: members}).drpo_loss


def test_slimes_adapter_needs_one_of_the_three(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="none of slime, vime and miles"):
        adapter("slime.md", monkeypatch)


def cut(values, lengths):
    return [row[:length] for row, length in zip(values, lengths, strict=True)]


def slime_gradient(loss, padded: Padded, micro_batches, per_token, **args):
    """slime's calls: lists of ragged samples, its two reductions, the factors of its caller folded into one.

    In one micro-batch the samples keep their padding instead, at mask 0.
    """
    denominator = int(padded.mask.sum()) if per_token else len(padded.mask)
    rows, metrics = [], []
    for part in padded.micro_batches(micro_batches):
        leaf = part.logprobs.clone().requires_grad_(True)
        lengths = [len(row) if micro_batches == 1 else int(row.sum()) for row in part.mask]
        masks = cut(part.mask.double(), lengths)

        def reduce(values, masks=masks, lengths=lengths):
            pairs = zip(values.split(lengths), masks, strict=True)
            return sum((x * m).sum() / (1 if per_token else m.sum().clamp(min=1)) for x, m in pairs)

        batch = {
            "rollout_log_probs": cut(part.behavior_logprobs, lengths),
            "unconcat_tokens": None,
            "loss_masks": masks,
            "advantages": cut(part.advantages.unsqueeze(1).expand_as(part.mask), lengths),
            "total_lengths": lengths,
            "response_lengths": lengths,
        }
        total, found = loss(SimpleNamespace(**args), batch, torch.cat(cut(leaf, lengths)), reduce)
        rows.append(torch.autograd.grad(total / denominator, leaf)[0])
        metrics.append(found)
    return torch.cat(rows), metrics


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_slime(slime, name, mode):
    for count in (1, 2, 4):
        found, metrics = slime_gradient(
            slime, fixed_batch(5.0), count, mode == "token_mean", drpo_objective=name, use_tis=False
        )
        assert difference(found, reference({"name": name}, fixed_batch(), mode)) <= 1e-6
        assert all(isinstance(value, torch.Tensor) for part in metrics for value in part.values())


def test_slime_reads_its_settings(slime):
    settings = {"name": "drpo", "delta": 0.05}
    found, metrics = slime_gradient(slime, fixed_batch(), 1, True, drpo_parameters={"delta": 0.05})
    assert difference(found, reference(settings, fixed_batch(), "token_mean")) <= 1e-6
    batch = fixed_batch()
    shift = (batch.logprobs.exp() - batch.behavior_logprobs.exp()).abs()[batch.mask]
    assert float(metrics[0]["drpo/beyond_delta"]) == float((shift > 0.05).sum())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"use_tis": True}, "use_tis=True would be ignored"),
        ({"entropy_coef": 0.01}, "entropy_coef"),
        ({"use_kl_loss": True}, "use_kl_loss"),
        ({"context_parallel_size": 2}, "context_parallel_size"),
        ({"rollout_top_p": 0.9}, "rollout_top_p"),
        ({"use_score_centering": True}, "use_score_centering"),
        ({"drpo_objective": "m2po"}, "optimizer step"),
        ({"drpo_objective": "minirl"}, "needs proximal_logprobs"),
    ],
)
def test_slime_refuses(slime, args, words):
    with pytest.raises(ConfigError, match=words):
        slime_gradient(slime, fixed_batch(), 1, True, **args)
    with pytest.raises(ConfigError, match="use-rollout-logprobs"):
        slime(SimpleNamespace(), {"rollout_log_probs": None}, None, None)


INVALID = 1.0  # open-instruct's log-probability where there is none


@pytest.fixture
def open_instruct(monkeypatch):
    def theirs(new_logprobs, ratio, advantages, ref_logprobs, config, rho_weights):
        return None, None, torch.full_like(new_logprobs, 0.25)

    monkeypatch.setitem(sys.modules, "open_instruct", ModuleType("open_instruct"))
    utils = ModuleType("open_instruct.utils")
    vars(utils)["INVALID_LOGPROB"] = INVALID
    monkeypatch.setitem(sys.modules, "open_instruct.utils", utils)
    grpo_utils = ModuleType("open_instruct.grpo_utils")
    vars(grpo_utils)["compute_grpo_loss"] = theirs
    vars(sys.modules["open_instruct"])["grpo_utils"] = grpo_utils
    return adapter("open-instruct.md", monkeypatch)


def open_instruct_gradient(loss, padded: Padded, micro_batches, config=None):
    """open-instruct's calls: log-probabilities masked by a value, a ratio with a graph, a divisor of the whole step."""
    config = config or SimpleNamespace(use_vllm_logprobs=True, loss_fn="dapo")
    rows, beyond = [], 0.0
    for part in padded.micro_batches(micro_batches):
        leaf = part.logprobs.clone().requires_grad_(True)
        new = leaf.masked_fill(~part.mask, INVALID)
        old = part.behavior_logprobs.masked_fill(~part.mask, INVALID).nan_to_num(INVALID)
        advantages = part.advantages.unsqueeze(1).expand_as(part.mask)
        found, clipped, kl = loss(new, (new - old).exp(), advantages, None, config, torch.ones_like(new))
        assert float(kl.mean()) == 0.25
        rows.append(torch.autograd.grad((found * part.mask).sum() / padded.mask.sum(), leaf)[0])
        beyond += float((clipped * part.mask).sum())
    return torch.cat(rows), beyond


def is_over_responses(name):
    """Whether the loss of a token depends on which response it is in."""
    padded, objective = fixed_batch(), drpo.make_objective(name)
    whole = drpo.TokenBatch.from_padded(padded.logprobs, padded.behavior_logprobs, padded.advantages, padded.mask)
    merged = drpo.TokenBatch(whole.logprobs, whole.behavior_logprobs, whole.advantages)
    return not torch.equal(objective(whole).loss, objective(merged).loss)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_open_instruct(open_instruct, name):
    namespace = open_instruct.compute_grpo_loss.__globals__
    namespace.update(OBJECTIVE=name, PARAMETERS={})
    assert (name in open_instruct.OVER_RESPONSES) == is_over_responses(name)
    if name in open_instruct.OVER_RESPONSES:
        with pytest.raises(ConfigError, match="may decide over a response"):
            open_instruct_gradient(open_instruct.compute_grpo_loss, fixed_batch(), 1)
        return
    for count in (1, 2, 4):
        found, beyond = open_instruct_gradient(open_instruct.compute_grpo_loss, fixed_batch(5.0), count)
        assert difference(found, reference({"name": name}, fixed_batch(), "token_mean")) <= 1e-9
        batch = fixed_batch()
        shift = (batch.logprobs.exp() - batch.behavior_logprobs.exp()).abs()[batch.mask]
        assert beyond == float((shift > drpo.integrations.padded.region(drpo.make_objective(name))).sum())


def test_open_instruct_leaves_out_tokens_without_mu(open_instruct):
    padded, without = fixed_batch(), fixed_batch()
    padded.behavior_logprobs[0, 0] = torch.nan
    without.mask[0, 0] = False
    found, _ = open_instruct_gradient(open_instruct.compute_grpo_loss, padded, 1)
    tokens = int(padded.mask.sum())
    expected = reference({"name": "drpo"}, without, "token_mean") * (tokens - 1) / tokens
    assert difference(found, expected) <= 1e-9


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"use_vllm_logprobs": False}, "--use_vllm_logprobs"), ({"loss_fn": "cispo"}, "loss_fn=cispo would be ignored")],
)
def test_open_instruct_refuses(open_instruct, changes, words):
    config = SimpleNamespace(**{"use_vllm_logprobs": True, "loss_fn": "dapo", **changes})
    with pytest.raises(ConfigError, match=words):
        open_instruct_gradient(open_instruct.compute_grpo_loss, fixed_batch(), 1, config)
