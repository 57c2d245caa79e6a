"""Tokenizer and model of a base, trained from scratch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from drpo.model.source import embedded_directory
from tools.warm_start.spec import END, END_ID, IGNORED, WarmStart


def train_tokenizer(texts: Iterator[str], vocabulary: int, whole_words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (any text is representable), every digit a token of its own as in Qwen3."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(whole_words), special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([AddedToken(word, normalized=False) for word in whole_words])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END, model_max_length=1024)


def new_tokenizer(spec: WarmStart, stream: Iterator[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """The tokenizer of the base that this one starts from, or else one made from the beginning of ``stream``."""
    if spec.start is None:
        return train_tokenizer(spec.corpus(stream), spec.vocabulary, spec.whole_words)
    return PreTrainedTokenizerFast.from_pretrained(embedded_directory(spec.start))


def new_model(spec: WarmStart) -> Any:
    """A randomly initialized causal LM of the base's shape, with what it takes from the base that it starts from."""
    torch.manual_seed(spec.seed)
    model = transformers.AutoModelForCausalLM.from_config(spec.config())
    if spec.start is not None:
        given = load_file(embedded_directory(spec.start) / "model.safetensors")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                fits = name in given and given[name].shape == parameter.shape
                if fits and any(part in name for part in spec.takes):
                    parameter.copy_(given[name])
    return model


def collate(pairs: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, T]`` token ids and labels; prompts and padding are not learned."""
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    answers = tokenizer([answer + END for _, answer in pairs])["input_ids"]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(pairs), length), END_ID)
    labels = torch.full((len(pairs), length), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, labels


def batches(spec: WarmStart, stream: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Endless batches of texts; ``spec.pool`` of them at a time are sorted, so that texts of like length stand together
    and little is padded."""
    rng = random.Random(spec.seed)
    while True:
        pool = list(itertools.islice(stream, spec.pool * spec.batch))
        if spec.pool > 1:
            pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        starts = range(0, len(pool), spec.batch)
        for start in rng.sample(starts, len(starts)):
            yield pool[start : start + spec.batch]


def warm_start(spec: WarmStart, log: Callable[[int, float], None]) -> tuple[Any, PreTrainedTokenizerFast]:
    """Train tokenizer and model; ``log(step, loss)`` is called now and then."""
    stream = spec.texts()
    tokenizer = new_tokenizer(spec, stream)
    model = new_model(spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = max(1, spec.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.02, 1 - (step - warmup) / (spec.steps - warmup)))
    )
    for step, pairs in enumerate(itertools.islice(batches(spec, stream), spec.steps), 1):
        ids, labels = collate(pairs, tokenizer)
        loss = spec.loss(model, ids, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log(step, loss.item())
    return model, tokenizer
