"""Training on GSM8K-like problems with TRL: ``python -m drpo.integrations.trl.gsm8k key=value …``.

The keys are the fields of :class:`Problems` and of DRPOConfig; ``objective_parameters.delta=0.2`` sets one entry of a
mapping. ``accelerate launch -m`` instead of ``python -m`` starts it on several GPUs. ``drpo recipe show
trl/qwen3-0.6b-gsm8k`` prints a complete command.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer

from drpo.errors import ConfigError, DataError, DrpoError, suggest
from drpo.integrations.trl import DRPOConfig, DRPOTrainer, InProcessRollouts
from drpo.tasks.grading.gsm8k import INSTRUCTION, final_number, grade

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-6 as a number, and "no" (a strategy of TRL's) as a word."""


_BOOL, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _BOOL]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"true|false|True|False"), list("tTfF"))
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789"))


@dataclass(frozen=True, kw_only=True)
class Problems:
    """The model and the problems.

    Args:
        model: a directory, or a name on the hub.
        train_data, eval_data: a JSONL or Parquet file with ``question`` and ``answer`` (its number after ``####``), or
            the name of a data set of the datasets package, of which ``train`` and ``test`` are used.
        data_config: the configuration of a named data set.
        eval_problems: evaluate on this many problems from the start of the data; None takes all.
        instruction: put behind every question.
    """

    model: str
    train_data: str
    eval_data: str | None = None
    data_config: str | None = None
    eval_problems: int | None = None
    instruction: str = INSTRUCTION


def exact_number(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """TRL's reward function: 1.0 where the response ends with the right number."""
    texts = [entry if isinstance(entry, str) else entry[-1]["content"] for entry in completions]
    return [grade(text, expected) for text, expected in zip(texts, answer, strict=True)]


def read_problems(source: str, split: str, config: str | None) -> Dataset:
    """The rows of a file or of a named data set, checked.

    Raises:
        DataError: there is no such file, a column is missing, or an answer holds no number.
    """
    path = Path(source).expanduser()
    if path.suffix in FORMATS:
        if not path.is_file():
            raise DataError(f"{path} does not exist. Give train_data=FILE (JSONL, Parquet), or the name of a data set.")
        rows = load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
    else:
        rows = load_dataset(source, config, split=split)
    assert isinstance(rows, Dataset)
    if missing := {"question", "answer"} - set(rows.column_names):
        raise DataError(
            f"{source} has no column {', '.join(sorted(missing))}; it has {', '.join(rows.column_names)}. "
            'A line looks like {"question": "2 + 3?", "answer": "2 + 3 = 5\\n#### 5"}.'
        )
    if not len(rows):
        raise DataError(f"{source} holds no problem")
    for number, text in enumerate(rows["answer"], start=1):
        if final_number(str(text)) is None:
            raise DataError(f"{source}, row {number}: the answer {str(text)[-60:]!r} ends with no number")
    return rows


def make_prompts(rows: Dataset, instruction: str, chat: bool) -> Dataset:
    """TRL's columns: ``prompt`` (a chat if the tokenizer has a template for one) and ``answer``."""

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        text = f"{row['question']}\n{instruction}"
        return {"prompt": [{"role": "user", "content": text}] if chat else text, "answer": str(row["answer"])}

    return rows.map(convert, remove_columns=rows.column_names)


def parse(arguments: list[str]) -> tuple[Problems, DRPOConfig]:
    """``key=value`` texts as the problems and TRL's configuration; a later one replaces an earlier one.

    Raises:
        ConfigError: an unknown key, a missing one, or a value that DRPOConfig refuses.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument!r} is not key=value. Write for example learning_rate=1e-6")
        name, _, entry = key.partition(".")
        if entry:
            before = values.get(name)
            values[name] = {**(before if isinstance(before, dict) else {}), entry: _value(text)}
        else:
            values[name] = _value(text)
    own = {field.name for field in fields(Problems)}
    host = {field.name for field in fields(DRPOConfig) if field.init}
    for name in values:
        if name not in own | host:
            nearest = suggest(name, own | host).partition(" Known:")[0]  # TRL has 200 of them
            raise ConfigError(
                f"unknown setting {name!r}.{nearest} Known: {', '.join(sorted(own))}, and the fields of "
                "DRPOConfig (which are TRL's GRPOConfig and docs/integrations/trl.md)."
            )
    for name in ("model", "train_data"):
        if not values.get(name):
            raise ConfigError(f"{name} is not set. Give {name}=…")
    problems = Problems(**{name: value for name, value in values.items() if name in own})
    return problems, DRPOConfig(**{name: value for name, value in values.items() if name not in own})


def _value(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is not a YAML value: {error}") from error


def train(problems: Problems, config: DRPOConfig) -> DRPOTrainer:
    """Train, and save the model under ``config.output_dir``.

    Raises:
        DataError: the problems cannot be read.
        ConfigError: DRPOTrainer refuses the configuration.
    """
    tokenizer = AutoTokenizer.from_pretrained(problems.model, trust_remote_code=False)

    def prepared(source: str, split: str) -> Dataset:
        rows = read_problems(source, split, problems.data_config)
        return make_prompts(rows, problems.instruction, tokenizer.chat_template is not None)

    evaluation = prepared(problems.eval_data, "test") if problems.eval_data else None
    if evaluation is not None and problems.eval_problems is not None:
        evaluation = evaluation.select(range(min(problems.eval_problems, len(evaluation))))
    trainer = DRPOTrainer(
        model=problems.model,
        args=config,
        processing_class=tokenizer,
        reward_funcs=exact_number,
        train_dataset=prepared(problems.train_data, "train"),
        eval_dataset=evaluation,
        rollout_func=None if config.use_vllm else InProcessRollouts(),
    )
    trainer.train()
    trainer.save_model(config.output_dir)
    return trainer


def dry_run(arguments: list[str]) -> dict[str, Any]:
    """The answer for ``drpo recipe launch --dry-run``."""
    here = [] if torch.cuda.is_available() else ["use_cpu=true"]  # TRL refuses bf16 where no GPU is
    try:
        problems, config = parse([*arguments, *here])
    except Exception as error:  # whatever TRL or the plug-in raise is the answer
        return {"error": f"{type(error).__name__}: {error}"}
    sampler = "vLLM" if config.use_vllm else "the trained model itself"
    return {
        "validated": [
            f"DRPOConfig of TRL {version('trl')}, no unknown key",
            f"objective {config.make_objective()}, aggregation {config.aggregation}",
            f"μ from {sampler}; {config.generation_batch_size} responses in groups of {config.num_generations}",
        ],
        "not_validated": [
            f"the model {problems.model} and the data: nothing is loaded",
            "memory",
            *(["what the GPU can do: this machine has none"] if here else []),
        ],
    }


def main(arguments: list[str]) -> int:
    """0; 2 with one message for a mistake in the settings or the data."""
    if "--dry-run" in arguments:
        answer = dry_run([argument for argument in arguments if argument != "--dry-run"])
        sys.stdout.write(f"\nDRY-RUN {json.dumps(answer)}\n")
        return 0
    try:
        train(*parse(arguments))
    except DrpoError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
