"""Suite ``curves``: what it costs as the work grows. Tokens, vocabulary and support size of a loss; group size and
response length of sampling and of a training step; the model's size of a training step."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from math import prod
from pathlib import Path

from drpo.bench.floor import FLOOR
from drpo.bench.frame import Case, Row, Settings, Watch, measure, missing
from drpo.bench.kernels import loss_case
from drpo.bench.losses import NUCLEI, Size
from drpo.bench.model_step import OURS, step_case
from drpo.bench.models import make_model
from drpo.bench.sampler import GENERATE, variants
from drpo.bench.step import configure, our_steps
from drpo.installation import install

LOSSES = ["floor", "fused_loss", "naive"]
SUPPORTED = "fused_loss over supports"
STEP = "training step"
#: Models of a step, from the demo's size to that of SmolLM2.
MODELS = ("Llama-1M", "Llama-3M", "Llama-18M", "Llama-54M", "SmolLM2-135M")
TOKENS, VOCABULARY = (256, 512, 1024, 2048, 4096), (4_096, 16_384, 65_536, 151_936)
GROUPS, LENGTHS = (2, 4, 8, 16, 32), (16, 32, 64, 128, 256)
QUICK = (2, 4)


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """A case for every point of every curve."""
    rounds = settings.rounds or (1 if settings.quick else 3)
    for size, curve in loss_sizes(settings):
        yield measure(loss_case(size, LOSSES, rounds, curve=curve), watch)
    for case in support_cases(settings, rounds):
        yield measure(case, watch)
    if reason := missing("transformers", install("train")):
        watch(f"no curves of sampling: {reason}")
        return
    prompts = 2 if settings.quick else 16
    for count in QUICK if settings.quick else GROUPS:
        length = 4 if settings.quick else 64
        turns = variants(settings.device, prompts, count, length, stops=False)
        yield measure(sampling_case("group", prompts, count, length, turns, rounds), watch)
    count = 2 if settings.quick else 8
    for length in QUICK if settings.quick else LENGTHS:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = configure(
                settings.device, f"prompts_per_step={prompts}", f"group_size={count}", f"max_new_tokens={length}"
            )
            step = stack.enter_context(our_steps(config, folder, stop_ids=()))
            turns = variants(settings.device, prompts, count, length, stops=False)
            yield measure(sampling_case("length", prompts, count, length, {**turns, STEP: step}, rounds), watch)
    for name in ("tiny Llama", "tiny Qwen3") if settings.quick else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            yield measure(model_case(settings, make_model(Path(folder), name), name, min(rounds, 2)), watch)


def support_cases(settings: Settings, rounds: int) -> Iterator[Case]:
    """Supports of more and more tokens, beside the whole vocabulary."""
    size = (
        Size(tokens=32, hidden=16, vocabulary=512)
        if settings.quick
        else Size(tokens=512, hidden=256, vocabulary=151_936)
    )
    size = dataclasses.replace(size, device=settings.device)
    for nucleus in (one for one in NUCLEI if one <= size.vocabulary):
        case = loss_case(size, ["floor", "fused_loss", restricted := f"nuclei of {nucleus:,}"], rounds, curve="support")
        turns = {SUPPORTED if name == restricted else name: turn for name, turn in case.variants.items()}
        yield dataclasses.replace(case, variants=turns, sizes={**case.sizes, "support": nucleus})


def model_case(settings: Settings, model: Path, name: str, rounds: int) -> Case:
    """A whole step of ours with the model in the directory ``model``, and its floor."""
    sizes = (2, 2, 4) if settings.quick else (8, 8, 24)
    case = step_case(settings, model, name, sizes, rounds)
    turns = {STEP if variant == OURS else variant: turn for variant, turn in case.variants.items()}
    return dataclasses.replace(
        case,
        curve="parameters",
        variants={variant: turns[variant] for variant in (STEP, FLOOR)},
        sizes={**case.sizes, "parameters": parameters(model)},
        baselines=(FLOOR,),
        skipped={},
    )


def parameters(model: Path) -> int:
    """How many a model's directory has, a tied head counted once."""
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def loss_sizes(settings: Settings) -> Iterator[tuple[Size, str]]:
    """Sizes of the loss, each with the number that grows."""
    device = settings.device
    dtype = "bfloat16" if device.startswith("cuda") else "float32"
    width = 16 if settings.quick else 256
    for tokens in (32, 64) if settings.quick else TOKENS:
        vocabulary = 256 if settings.quick else 32_000
        yield Size(tokens=tokens, hidden=width, vocabulary=vocabulary, device=device, dtype=dtype), "tokens"
    for vocabulary in (256, 512) if settings.quick else VOCABULARY:
        tokens = 32 if settings.quick else 512
        yield Size(tokens=tokens, hidden=width, vocabulary=vocabulary, device=device, dtype=dtype), "vocabulary"


def sampling_case(curve: str, prompts: int, count: int, length: int, turns: dict, rounds: int) -> Case:
    """All responses of full length, whatever they say."""
    return Case(
        title=f"{prompts} × {count} responses of {length} tokens",
        curve=curve,
        variants=turns,
        rounds=rounds,
        sizes={"prompts": prompts, "group": count, "length": length},
        baselines=(GENERATE,),
        per_token=True,
    )
