"""Suite ``model-step``: a training step of a model of real size, ours against TRL's GRPOTrainer.

SmolLM2-135M's shape with random weights (or the model of ``--model DIR``), 8 prompts × 8 responses of at most 24
tokens, one optimizer step, float32. Every turn is a process of its own that makes one step to warm up and measures the
next, so that its peak memory is its own. Half of the responses count as right, so that each has a backward pass on
every side. The floor is that of :mod:`drpo.bench.floor`, at the rate of matrix products measured in the same round.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from drpo.bench.floor import FLOOR, STEP, floor_turn, forward_flops
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, missing
from drpo.bench.models import make_model
from drpo.errors import TrainingError
from drpo.files import read_json
from drpo.installation import install

if TYPE_CHECKING:
    from drpo.bench.one_step import Work

OURS, TRL, LIGER = "drpo Trainer", "TRL GRPOTrainer", "TRL with Liger"


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """The one case."""
    if reason := missing("transformers", install("train")):
        yield [Row(case="a training step", variant=OURS, sizes={}, skipped=reason)]
        return
    with tempfile.TemporaryDirectory() as folder:
        name = "tiny Llama" if settings.quick else "SmolLM2-135M"
        model, title = settings.model, str(settings.model)
        if model is None:
            watch(f"{name}: making random weights")
            model, title = make_model(Path(folder) / "model", name), f"{name}'s shape"
        sizes = (2, 2, 4) if settings.quick else (8, 8, 24)
        yield measure(step_case(settings, model, title, sizes, rounds=3), watch)


def step_case(settings: Settings, model: Path, title: str, sizes: tuple[int, int, int], rounds: int) -> Case:
    """Every library with the model in the directory ``model``.

    Args:
        settings: what the user asked for.
        model: a Hugging Face directory.
        title: what the model is, for people.
        sizes: prompts, responses to each, and their tokens at most.
        rounds: measured rounds, where the user did not say.
    """
    from drpo.bench.one_step import Work

    prompts, group, length = sizes
    on_gpu = settings.device.startswith("cuda")
    work = Work(
        model=str(model),
        device=settings.device,
        prompts=prompts,
        group=group,
        length=length,
        compiled=on_gpu,
        bf16=on_gpu,
        steps=2 if on_gpu else 1,
    )
    made = [float(prompts * group * length)]
    skipped = obstacles(on_gpu)
    variants = {name: library_turn(name, work, made) for name in (OURS, TRL, LIGER) if name not in skipped}
    shape, lengths = read_json(model / "config.json"), prompt_lengths(work)
    variants[FLOOR] = floor_turn(
        lambda: STEP * forward_flops(shape, lengths, group, made[-1] / (prompts * group)),
        lambda: made[-1],
        settings.device,
        "bfloat16" if on_gpu else "float32",
        settings.quick,
    )
    return Case(
        title=f"{title}, a step of {prompts} × {group} responses of at most {length} tokens",
        sizes={"prompts": prompts, "group": group, "length": length, "prompt_tokens": sum(lengths)},
        baselines=(FLOOR, TRL),
        warm_up=0,
        rounds=settings.rounds or (1 if settings.quick else rounds),
        skipped=skipped,
        variants=variants,
    )


def obstacles(on_gpu: bool) -> dict[str, str]:
    """Variant → why it cannot run here."""
    no_trl = missing("trl", install("trl"))
    no_liger = no_trl or missing("liger_kernel", install("bench"))
    found = {TRL: no_trl, LIGER: no_liger or (None if on_gpu else "Liger's kernels for the layers need a GPU")}
    return {name: reason for name, reason in found.items() if reason}


def prompt_lengths(work: Work) -> list[int]:
    """Tokens of each prompt."""
    from transformers import AutoTokenizer

    from drpo.model.prompts import PromptEncoder, PromptSettings
    from drpo.tasks import make_task

    task = make_task("sums")
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    encoder = PromptEncoder(tokenizer, len(tokenizer), PromptSettings())
    return [len(encoder.encode(task.training_example(0, index).prompt)) for index in range(work.prompts)]


def library_turn(library: str, work: Work, made: list[float]) -> Callable[[], Turn]:
    """A turn in a process of its own; it adds the tokens of its responses to ``made`` if it is ours."""

    def turn() -> Turn:
        found = in_process_of_its_own(library, work)
        turns = [Turn(**values) for values in found["turns"]]
        figures = {key: sum(turn.figures[key] for turn in turns) / len(turns) for key in turns[0].figures}
        if found["peak_bytes"] is not None:
            figures["peak_bytes"] = found["peak_bytes"]
        tokens = sum(turn.tokens or 0.0 for turn in turns) / len(turns)
        if library == OURS:
            made.append(tokens)
        return Turn(sum(turn.seconds for turn in turns) / len(turns), tokens, figures)

    return turn


def in_process_of_its_own(library: str, work: Work) -> dict[str, Any]:
    """What :mod:`drpo.bench.one_step` prints.

    Raises:
        OutOfMemoryError: the device had no memory for it.
        TrainingError: it ended with an error, the last lines of which the message has.
    """
    given = json.dumps({"library": library, "work": asdict(work)})
    command = [sys.executable, "-m", "drpo.bench.one_step", given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        said = "\n".join(lines[-12:])
        raise TrainingError(f"{library}: its process exited with status {done.returncode}: {lines[-1]}\n{said}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found.get("out_of_memory"):
        raise torch.OutOfMemoryError(f"{library}: out of memory")
    return found
