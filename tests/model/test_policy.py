"""Loading policies, and what the trainer recomputes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import ConfigError
from drpo.model.forward import PACKED, PADDED, SHARED, Sequences, micro_batches
from drpo.model.master_weights import MasterWeights
from drpo.model.policy import Policy, load_policy
from drpo.model.source import embedded_directory
from drpo.rollouts import Precision
from support import tiny

CPU = torch.device("cpu")


def test_logprobs_match_a_plain_forward_pass() -> None:
    policy = Policy(tiny.model(sharpness=4.0), tiny.tokenizer())
    sequences = [Sequences([5, 6, 7], [8, 9]), Sequences([4], [3, 2, 7, 0]), Sequences([9, 9], [1])]
    logprobs, entropy = policy.response_logprobs(sequences, 0.8)
    expected, entropies = [], []
    for sequence in sequences:
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.token_ids]])
        table = (policy.model(input_ids=ids).logits[0].double() / 0.8).log_softmax(-1)
        for offset, token in enumerate(sequence.token_ids):
            row = table[len(sequence.prompt_ids) - 1 + offset]
            expected.append(row[token])
            entropies.append(-(row.exp() * row).sum())
    assert torch.allclose(logprobs.double(), torch.stack(expected), atol=1e-5)
    assert torch.allclose(entropy.double(), torch.stack(entropies), atol=1e-5)


def test_topk_logprobs_agree_with_the_sampled_ones() -> None:
    policy = Policy(tiny.model(sharpness=4.0), tiny.tokenizer())
    sequences = [Sequences([5, 6, 7], [8, 9]), Sequences([4], [3, 2, 7, 0])]
    topk_ids = torch.tensor([[8, 1], [1, 2], [4, 3], [2, 5], [0, 7], [1, 2]])
    logprobs, entropy, topk, sampled = policy.topk_logprobs(sequences, 0.8, topk_ids)
    expected, expected_entropy = policy.response_logprobs(sequences, 0.8)
    assert torch.allclose(logprobs, expected, atol=1e-5) and torch.allclose(entropy, expected_entropy, atol=1e-5)
    assert sampled.tolist() == [[True, False], [False, False], [False, True], [True, False], [False, True], [False] * 2]
    assert torch.allclose(topk[sampled], logprobs[sampled.any(1)])
    (slope,) = torch.autograd.grad(topk.sum(), policy.model.get_input_embeddings().weight)
    assert bool(slope.any())


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), min_size=1, max_size=40)


@given(ROWS, st.integers(1, 200), st.sampled_from([PACKED, SHARED, PADDED]))
def test_micro_batches_cover_everything_once_within_the_budget(
    rows: list[tuple[int, int]], budget: int, way: str
) -> None:
    """Rows of (prompt, response length); the prompts are 3, 6, 9 and 12 tokens long."""
    sequences = [Sequences([prompt] * 3 * (prompt + 1), [1] * length) for prompt, length in rows]
    parts = micro_batches(sequences, budget, way)
    assert sorted(index for part in parts for index in part) == list(range(len(rows)))
    for part in parts:
        assert len(part) == 1 or computed([sequences[row] for row in part], way) <= budget


def computed(part: list[Sequences], way: str) -> int:
    """Positions, padding included."""
    prompts = {tuple(sequence.prompt_ids) for sequence in part}
    if way == PACKED:
        return sum(map(len, prompts)) + sum(len(sequence.token_ids) - 1 for sequence in part)
    if way == SHARED and len(prompts) < len(part):
        inner = max(len(sequence.token_ids) for sequence in part) - 1
        return len(prompts) * max(map(len, prompts)) + len(part) * inner
    return len(part) * max(len(sequence) for sequence in part)


def test_prompts_that_are_done_take_no_place() -> None:
    sequences = [Sequences([prompt] * 100, [1] * length) for length in (2, 5, 9) for prompt in (1, 2)]
    assert micro_batches(sequences, 4 * 4, SHARED, prompts_done=True) == [[0, 1, 2, 3], [4, 5]]


def test_a_long_prompt_is_computed_once_where_that_is_less() -> None:
    sequences = [Sequences([prompt] * 100, [1] * length) for length in (2, 5, 9) for prompt in (1, 2)]
    parts = micro_batches(sequences, 130, SHARED)
    assert [{sequences[row].prompt_ids[0] for row in part} for part in parts] == [{1}, {2}]
    short = [Sequences([prompt], [1] * length) for length in (2, 50) for prompt in (1, 2)]
    assert micro_batches(short, 110, SHARED) == [[0, 1], [2, 3]]


def test_a_chat_template_is_used_where_there_is_one() -> None:
    letters = tiny.tokenizer()
    policy = Policy(tiny.model(), letters)
    assert policy.decode(policy.encode("ab")) == "ab\n"
    turns = "{% for m in messages %}:{{ m.content }}{% endfor %}"
    letters.chat_template = turns + "{% if add_generation_prompt %}:{% endif %}"
    assert policy.decode(policy.encode("ab")) == ":ab:"
    assert policy.decode(policy.encode("ab", chat=False)) == "ab"


def test_every_stop_token_counts(copyist: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(copyist, directory)
    settings = json.loads((directory / "generation_config.json").read_text())
    (directory / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [0, 7]}))
    assert load_policy(str(directory), CPU).stop_ids == {0, 7}


def test_the_embedded_base_is_small_and_loads_in_float32() -> None:
    policy = load_policy("embedded:arithmetic", CPU)
    assert 500_000 <= policy.model.num_parameters() <= 2_000_000
    assert policy.model.dtype == torch.float32
    assert sum(file.stat().st_size for file in embedded_directory("arithmetic").iterdir()) < 4_000_000


def test_what_cannot_be_loaded_is_explained(tmp_path: Path, copyist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def load(name: object) -> None:
        load_policy(str(name), CPU)

    with pytest.raises(ConfigError, match=r"no embedded model 'arithmetics'. Known: arithmetic"):
        load("embedded:arithmetics")
    with pytest.raises(ConfigError, match=r"is not a directory here, .*`hf download Qwen/Qwen3-0.6B"):
        load("Qwen/Qwen3-0.6B")
    with pytest.raises(ConfigError, match=r"Hugging Face model directory \(no config.json\)"):
        load(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(copyist, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ConfigError, match=r"has no tokenizer .* tokenizer.save_pretrained"):
        load(bare)
    broken = tmp_path / "broken"
    shutil.copytree(copyist, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot be loaded as a causal LM"):
        load(broken)


def test_pickled_weights_are_never_loaded(tmp_path: Path, copyist: Path) -> None:
    directory = tmp_path / "pickled"
    shutil.copytree(copyist, directory)
    (directory / "model.safetensors").unlink()
    torch.save(tiny.model().state_dict(), directory / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        load_policy(str(directory), CPU)


def test_a_model_that_never_stops_is_refused() -> None:
    letters = tiny.tokenizer()
    network = tiny.model(eos_token_id=None)
    network.generation_config.eos_token_id = None  # pyright: ignore[reportOptionalMemberAccess]
    letters.eos_token = None
    with pytest.raises(ConfigError, match=r"no response would ever stop|names an end-of-sequence token"):
        Policy(network, letters)


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_logprobs_are_float32_whatever_the_model_computes_in(precision: Precision) -> None:
    """From the model's own states, the head's product is not rounded to bfloat16: whether only the sampled token is
    looked at or all are."""
    network = tiny.model(sharpness=4.0)
    policy = Policy(network, tiny.tokenizer(), MasterWeights(network, precision))
    sequences = [Sequences([5, 6, 7], [8, 9])]
    logprobs, entropy = policy.response_logprobs(sequences, 0.8)
    assert policy.head is not None and policy.head.dtype == torch.bfloat16
    states = policy.response_states(sequences).detach().double()
    table = (states @ policy.head.detach().double().T / 0.8).log_softmax(-1)
    whole, _, topk, _ = policy.topk_logprobs(sequences, 0.8, torch.tensor([[1], [2]]))
    for found, right in (
        (logprobs, table[[0, 1], [8, 9]]),
        (whole, table[[0, 1], [8, 9]]),
        (topk.squeeze(1), table[[0, 1], [1, 2]]),
    ):
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), right, atol=1e-5)
    assert entropy.dtype == torch.float32
