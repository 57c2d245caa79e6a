"""Make an embedded base: a small policy that starts mediocre, so that RL has something to do.

    python -m drpo.train.warm_start            # writes src/drpo/assets/arithmetic, about 15 minutes on 2 cores

A Qwen3-shaped model and a byte-level BPE tokenizer are trained from scratch on worked solutions of a
reasoning-gym data set. Most of the solutions carry one wrong intermediate result, so that the model *can* calculate
(its likeliest answer is right five times in six) but, sampled at temperature 1, is right only one time in three.
Held-out examples of the task are never seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from drpo.rollouts import InProcessSampler
from drpo.tasks import make_task
from drpo.tasks.base import Task
from drpo.tasks.grading import Grader
from drpo.train.config import TrainConfig
from drpo.train.evaluate import evaluate
from drpo.train.policy import EMBEDDED, load_policy

END = "<|endoftext|>"
END_ID = 0  # the tokenizer's first token; it pads, too
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """How one embedded base is made; the defaults make the one that ships."""

    task: str = "reasoning_gym:chain_sum"
    task_parameters: dict[str, Any] = field(
        default_factory=lambda: {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
    )
    wrong_share: float = 0.65
    vocabulary: int = 384
    hidden: int = 128
    layers: int = 4
    steps: int = 1400
    batch: int = 128
    learning_rate: float = 3e-3
    seed: int = 0


def noisy_solution(expression: str, wrong_share: float, rng: random.Random) -> str:
    """The terms of ``expression`` (integers joined by + and −) added one by one, then the answer in its tag.

    With probability ``wrong_share`` one intermediate result is wrong, and the rest follows from it.
    """
    first, *rest = expression.split()
    operations = list(zip(rest[::2], rest[1::2], strict=True))
    wrong_at = rng.randrange(len(operations)) if rng.random() < wrong_share else None
    value, lines = int(first), []
    for index, (sign, term) in enumerate(operations):
        result = value + int(term) if sign == "+" else value - int(term)
        if index == wrong_at:
            result += rng.choice([-10, -2, -1, 1, 2, 10])
        lines.append(f"{value} {sign} {term} = {result}")
        value = result
    return "\n".join(lines) + f"\n<answer>{value}</answer>"


def examples(spec: WarmStart, task: Task) -> Iterator[tuple[str, str]]:
    """Endless (prompt, noisy solution) pairs from the training side of the task."""
    rng = random.Random(spec.seed)
    for index in itertools.count():
        example = task.training_example(spec.seed + 10_000, index)
        yield example.prompt + "\n", noisy_solution(example.data["metadata"]["expression"], spec.wrong_share, rng)


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (any text is representable), every digit a token of its own as in Qwen3."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END, model_max_length=1024)


def new_model(spec: WarmStart, end: int) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 of the given size."""
    torch.manual_seed(spec.seed)
    config = Qwen3Config(
        vocab_size=spec.vocabulary, hidden_size=spec.hidden, intermediate_size=3 * spec.hidden,
        num_hidden_layers=spec.layers, num_attention_heads=4, num_key_value_heads=2, head_dim=spec.hidden // 4,
        max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=end, bos_token_id=None, pad_token_id=end,
    )
    return Qwen3ForCausalLM(config)


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


def warm_start(spec: WarmStart, log: Callable[[int, float], None]) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and model; ``log(step, loss)`` is called now and then."""
    task = make_task(spec.task, **spec.task_parameters)
    stream = examples(spec, task)
    texts = (prompt + answer for prompt, answer in itertools.islice(stream, 5000))
    tokenizer = train_tokenizer(texts, spec.vocabulary)
    model = new_model(spec, END_ID)
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = spec.steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.02, 1 - (step - warmup) / (spec.steps - warmup)))
    )
    for step in range(1, spec.steps + 1):
        ids, labels = collate([next(stream) for _ in range(spec.batch)], tokenizer)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log(step, loss.item())
    return model, tokenizer


def sampled_accuracy(directory: Path, spec: WarmStart) -> dict[str, Any]:
    """Held-out accuracy of the saved base, sampled as training samples it."""
    task = make_task(spec.task, **spec.task_parameters)
    policy = load_policy(str(directory), torch.device("cpu"))
    sampler = InProcessSampler(policy.model, policy.stop_ids)
    with Grader(task) as grader:
        examples = task.heldout_examples(256)
        record, _ = evaluate(policy, sampler, grader, examples, 4, TrainConfig().sampling(), spec.seed)
    return record


def main() -> None:
    """Make the base, measure it, and keep how it was made beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=EMBEDDED["arithmetic"])
    parser.add_argument("--steps", type=int, default=WarmStart.steps)
    arguments = parser.parse_args()
    spec = WarmStart(steps=arguments.steps)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)  # noqa: T201

    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = warm_start(spec, lambda step, loss: say(f"step {step}/{spec.steps}  loss {loss:.4f}"))
    model.bfloat16().save_pretrained(arguments.out)  # half the size; loaded as float32
    tokenizer.save_pretrained(arguments.out)
    record = sampled_accuracy(arguments.out, spec)
    made = {**asdict(spec), "parameters": model.num_parameters(), "heldout": record, "torch": torch.__version__}
    (arguments.out / "warm_start.json").write_text(json.dumps(made, indent=2) + "\n")
    say(f"{arguments.out}: sampled held-out accuracy {record['accuracy']:.3f}")


if __name__ == "__main__":
    main()
