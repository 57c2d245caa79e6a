"""The text of a response: what ends it is taken off, and every other special token stays, in real tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from drpo.model.policy import Policy
from drpo.tasks.grading.answers import extract_answer
from drpo.tasks.grading.math.grade import boxed_answer
from support import tiny

CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n{% endif %}"
)
OWN = (
    "{% for turn in messages %}<<{{ turn.role }}>>{{ turn.content }}<<over>>{% endfor %}"
    "{% if add_generation_prompt %}<<assistant>>{% endif %}"
)
PICKY = "{{ raise_exception('no assistant turns') }}"
TAGS = ["<answer>", "</answer>", "<think>", "</think>", "<|fim_middle|>"]


def tokenizer(template: str | None, markers: list[str], kind: str = "bytes") -> Any:
    """A tokenizer trained here: byte-level BPE, or BPE with a sign for spaces as SentencePiece models have it."""
    core = Tokenizer(models.BPE(unk_token=None if kind == "bytes" else "<unk>", byte_fallback=kind != "bytes"))
    bytes_split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.pre_tokenizer = bytes_split if kind == "bytes" else pre_tokenizers.Metaspace()  # pyright: ignore
    core.decoder = decoders.ByteLevel() if kind == "bytes" else decoders.Metaspace()  # pyright: ignore
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else ["<", ">", "\\", "{", "}"]
    special = ["<|endoftext|>", *([] if kind == "bytes" else ["<unk>"]), *markers, *TAGS]
    texts = ["so the answer is \\boxed{42} user assistant 0123456789 model over"]
    core.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[*markers, *TAGS],
    )
    made.chat_template = template
    return made


CASES = {
    "chat template": (CHATML, ["<|im_start|>", "<|im_end|>"], "bytes", "<|im_end|><|endoftext|><|endoftext|>"),
    "no template": (None, ["<|im_start|>", "<|im_end|>"], "bytes", "<|im_end|>"),
    "Llama 3": (None, ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"], "bytes", "<|eot_id|>"),
    "Gemma": (None, ["<start_of_turn>", "<end_of_turn>"], "metaspace", "<end_of_turn>"),
    "markers of its own": (OWN, ["<<user>>", "<<assistant>>", "<<over>>"], "bytes", "<<over>><|endoftext|>"),
    "a template that takes no such turns": (PICKY, ["<|im_end|>"], "bytes", "<|im_end|>"),
}


@pytest.mark.parametrize("case", CASES)
def test_only_ends_and_markers_of_turns_are_removed(case: str) -> None:
    template, markers, kind, end = CASES[case]
    tokens = tokenizer(template, markers, kind)
    policy = Policy(tiny.model(len(tokens)), tokens)
    text = "<think>so</think>the answer is <answer>42</answer>"
    ids = tokens(text + end, add_special_tokens=False)["input_ids"]
    assert tokens.convert_tokens_to_ids("<answer>") in ids
    decoded = policy.decode(ids)
    assert decoded.replace(" ", "") == text.replace(" ", "")
    assert extract_answer(decoded) == "42"
    assert "answer" not in tokens.decode(ids, skip_special_tokens=True).replace("the answer", "")


def test_a_special_token_inside_an_answer_counts() -> None:
    tokens = tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"])
    policy = Policy(tiny.model(len(tokens)), tokens)

    def decoded(text: str) -> str:
        return policy.decode(tokens(text, add_special_tokens=False)["input_ids"])

    assert decoded("\\boxed{4<|fim_middle|>2}<|im_end|>") == "\\boxed{4<|fim_middle|>2}"
    assert boxed_answer(decoded("\\boxed{4<|fim_middle|>2}<|im_end|>")) == "4<|fim_middle|>2"
    assert extract_answer(decoded("<answer>42</answer><|im_end|>")) == "42"
    assert decoded("4<|im_end|>2<|im_start|>") == "42"
    assert decoded("") == ""


def test_the_stop_tokens_of_the_model_are_removed_too() -> None:
    tokens = tokenizer(None, ["<stop here>"])
    stop = tokens.convert_tokens_to_ids("<stop here>")
    policy = Policy(tiny.model(len(tokens), eos_token_id=[0, stop]), tokens)
    assert policy.decode([*tokens("42", add_special_tokens=False)["input_ids"], stop]) == "42"
