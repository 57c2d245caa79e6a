"""What a run will hold in memory, from its configuration and the model's shape alone: no weights are loaded.

Weights, gradients, optimizer states, sampler copies and the KV cache are counted; activations and working space are
estimates. Not counted: what libraries hold (some 0.5 GiB, the CUDA context included) and what an allocator wastes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from drpo.kernels.chunks import CHUNK_NUMBERS, CHUNK_ROWS, GPU_CHUNK_ROWS
from drpo.kernels.logprobs import AUTO_LIMIT
from drpo.model.decoding.lean import copied_numbers
from drpo.model.loading import load_sketch
from drpo.model.lora import linear_names
from drpo.model.lora_settings import Lora
from drpo.model.source import find_model
from drpo.rollouts import InProcessOptions, VllmOptions
from drpo.rollouts.vllm.engine import DEFAULT_CPU_CACHE_GIB, DEFAULT_GPU_SHARE, GIB
from drpo.train.config import TrainConfig
from drpo.train.settings import forward_settings

#: Prompt tokens, where no prompt was seen.
ASSUMED_PROMPT = 256
FLOAT32 = 4
#: Bytes a number of the model takes in each precision.
WIDTH = {"fp32": 4, "bf16": 2, "fp8": 2}
#: Beside the weights, what they are quantized to is kept, in bfloat16.
CODES = {"fp32": 0, "bf16": 0, "fp8": 2}
#: Bytes a logit costs while a token is drawn: logits, log-probabilities, probabilities, and their sum in float64.
DRAWING = 20

Phase = Literal["always", "training", "sampling"]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that takes memory: ``bytes`` of it, in one phase or ``always``; ``how`` it was counted."""

    name: str
    bytes: int
    when: Phase
    how: str


@dataclass(frozen=True, slots=True)
class Need:
    """Everything that takes memory."""

    parts: tuple[Part, ...]

    def during(self, phase: Phase) -> int:
        """Bytes at the worst moment of ``training`` or ``sampling``."""
        return sum(part.bytes for part in self.parts if part.when in ("always", phase))

    @property
    def peak(self) -> int:
        """Bytes at the worst moment of the run."""
        return max(self.during("training"), self.during("sampling"))


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's memory depends on. ``adapted`` counts the inputs and outputs of its adapted linear layers."""

    parameters: int
    adapted: int
    vocabulary: int
    hidden: int
    layers: int
    cache_numbers: int  # of a row and position, in layers that keep all of them
    window_numbers: int  # of a row and position, in layers that keep the last ``window``
    window: int
    state_numbers: int  # of a row, in layers with a recurrent state
    layer_numbers: int  # that a layer keeps of a position for the way back
    mlp: int  # numbers a layer's MLP holds of a position while it works
    copied: int  # weights that a decoding step on a CPU copies


def sketch(name: str, lora: Lora | None = None, trust_remote_code: bool = False) -> Shape:
    """The shape of the model ``name`` (a directory, org/name, or embedded:NAME), from its config.json.

    Raises:
        ConfigError: there is no such model, or a target of ``lora`` is not in it.
    """
    directory = find_model(name, trust_remote_code, weights=False)
    return shape_of(load_sketch(directory, trust_remote_code), lora)


def shape_of(model: Any, lora: Lora | None = None) -> Shape:
    """The shape of ``model``, which may be on the meta device."""
    text = model.config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = (getattr(text, "num_key_value_heads", None) or heads) * width
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    full, sliding = kinds.count("full_attention"), kinds.count("sliding_attention")
    recurrent = len(kinds) - full - sliding
    state = (
        (getattr(text, "linear_num_value_heads", 0) or 0)
        * getattr(text, "linear_key_head_dim", 0)
        * getattr(text, "linear_value_head_dim", 0)
    )
    mlp = _mlp_width(text)
    names = set() if lora is None else linear_names(model) if lora.targets == "all-linear" else set(lora.targets)
    head = model.get_output_embeddings()
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        adapted=sum(
            module.in_features + module.out_features
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head and name.rpartition(".")[2] in names
        ),
        vocabulary=text.vocab_size,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        cache_numbers=full * 2 * keys,
        window_numbers=sliding * 2 * keys,
        window=getattr(text, "sliding_window", None) or 0,
        state_numbers=recurrent * state,
        # Inputs and scales of norms, projections, rotated and repeated heads, gate, its activation, and their product.
        layer_numbers=6 * text.hidden_size + 6 * heads * width + 2 * keys + 4 * mlp,
        mlp=3 * mlp + 2 * text.hidden_size,
        copied=copied_numbers(model),
    )


def _mlp_width(text: Any) -> int:
    """Inner numbers of a position in a layer's MLP: of the experts that see it, where there are experts."""
    experts = getattr(text, "num_experts_per_tok", None)
    if not experts:
        return getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    # Every expert gets a copy of the state, and gives one back.
    inner = experts * (text.moe_intermediate_size + text.hidden_size // 2)
    return inner + (getattr(text, "shared_expert_intermediate_size", 0) or 0)


def estimate(shape: Shape, config: TrainConfig, device: torch.device, prompt_tokens: int) -> Need:
    """What a run of ``config`` holds on ``device``, its prompts no longer than ``prompt_tokens``."""
    trained = shape.parameters if config.lora is None else config.lora.rank * shape.adapted
    positions = prompt_tokens + config.max_new_tokens
    extra = "" if config.lora is None else f" and {trained:,} of adapters"
    held = shape.parameters + (0 if config.lora is None else trained)
    width, codes = WIDTH[config.precision], CODES[config.precision]
    masters = 0 if config.precision == "fp32" else FLOAT32 * trained
    return Need(
        (
            Part(
                "weights",
                (width + codes) * held,
                "always",
                f"{shape.parameters:,} parameters{extra}, {config.precision}",
            ),
            Part("master weights", masters, "always", f"{trained:,} parameters, float32" if masters else "the weights"),
            Part("optimizer", 2 * FLOAT32 * trained, "always", f"two moments of {trained:,} parameters, float32"),
            Part("older weights", width * held * config.rollout_lag, "always", f"of {config.rollout_lag} steps"),
            Part("gradients", FLOAT32 * trained, "training", f"of {trained:,} parameters, float32"),
            *_training(shape, config, device, positions),
            *_sampler(held, config, device),
            *_sampling(shape, config, device, prompt_tokens, positions),
        )
    )


def _sampler(held: int, config: TrainConfig, device: torch.device) -> tuple[Part, ...]:
    options, precision = config.make_sampler_options(), config.sampling_precision
    copy = (WIDTH[precision] + CODES[precision]) * held
    if isinstance(options, InProcessOptions):
        if config.shares_model:
            return (Part("sampler copies", 0, "always", "none: the in-process sampler runs the trained weights"),)
        return (Part("sampler copies", copy, "always", f"weights of its own, {precision}"),)
    if not isinstance(options, VllmOptions):
        return (Part("sampler", 0, "always", f"not estimated for sampler={config.sampler.name}"),)
    if device.type == "cpu":
        cache = int((options.cache_gib or DEFAULT_CPU_CACHE_GIB) * GIB)
        # Once where both processes see them, and once in vLLM.
        return (Part("vLLM", 2 * copy + cache, "always", f"weights, {precision}, and sampler.cache_gib"),)
    share = options.gpu_memory_utilization or DEFAULT_GPU_SHARE
    total = torch.cuda.get_device_properties(device).total_memory if torch.cuda.is_available() else 0
    taken = copy + int(options.cache_gib * GIB) if options.cache_gib else int(share * total)
    return (
        Part(
            "vLLM",
            taken,
            "sampling" if options.sleep else "always",
            f"{share:.0%} of the card" if options.cache_gib is None else f"weights, {precision}, and sampler.cache_gib",
        ),
    )


def _training(shape: Shape, config: TrainConfig, device: torch.device, positions: int) -> tuple[Part, Part]:
    budget = forward_settings(config, device).micro_batch_tokens
    responses = -(-config.prompts_per_step * config.group_size // config.updates_per_step)
    tokens = max(positions, min(budget, responses * positions))
    prompts = min(config.prompts_per_step, responses) * (positions - config.max_new_tokens)
    plain = not (config.gradient_checkpointing or shape.window_numbers or shape.state_numbers)
    if plain and prompts <= budget and responses > config.prompts_per_step:
        # The prompts pass once an update, and what they keep stays beside every micro-batch of responses.
        length = config.max_new_tokens
        tokens = prompts + max(length, min(budget, responses * length))
    kept, layers = shape.layer_numbers, shape.layers
    numbers = layers * shape.hidden + kept if config.gradient_checkpointing else layers * kept
    how = "each layer's input, and one layer" if config.gradient_checkpointing else f"{layers} layers"
    vocabulary, objective = shape.vocabulary, config.make_objective()
    head = vocabulary * shape.hidden if config.lora is None else 0
    if objective.topk or ("entropy" in objective.needs and tokens * vocabulary <= AUTO_LIMIT):
        logits, rows = 5 * tokens * vocabulary, tokens  # whole logits, what is made from them, and their gradient
    else:
        rows = min(tokens, max(GPU_CHUNK_ROWS if device.type == "cuda" else CHUNK_ROWS, CHUNK_NUMBERS // vocabulary))
        logits = rows * vocabulary
    return (
        Part(
            "activations",
            WIDTH[config.precision] * tokens * (numbers + 4 * shape.hidden),
            "training",
            f"estimate: a micro-batch of {tokens:,} positions, {how}",
        ),
        Part(
            "logits",
            FLOAT32 * (logits + head),
            "training",
            f"estimate: {rows:,} rows of {vocabulary:,}{', and the gradient of the LM head' if head else ''}",
        ),
    )


def _sampling(
    shape: Shape, config: TrainConfig, device: torch.device, prompt_tokens: int, positions: int
) -> tuple[Part, ...]:
    options = config.make_sampler_options()
    if not isinstance(options, InProcessOptions):
        return ()
    width, most = WIDTH[config.sampling_precision], options.max_rows
    sizes = (config.evaluation_size(0), config.evaluation_size(config.steps))
    batches = ((config.prompts_per_step, config.group_size), *((size.examples, size.samples) for size in sizes))
    rows = max(max(each, min(most, prompts * each)) for prompts, each in batches)
    prompts = max(min(prompts, max(1, most // each)) for prompts, each in batches)
    window = min(shape.window, positions)
    cache = rows * (positions * shape.cache_numbers + window * shape.window_numbers + shape.state_numbers)
    work = max(DRAWING * rows * shape.vocabulary, width * prompts * prompt_tokens * shape.mlp)
    lean = device.type == "cpu" and config.sampling_precision == "fp32" and not options.compiled and config.lora is None
    copied = shape.copied if lean else 0
    return (
        Part("copied weights", FLOAT32 * copied, "sampling", f"{copied:,} weights side by side, for decoding on a CPU"),
        Part(
            "KV cache",
            width * cache,
            "sampling",
            f"{rows:,} rows × {positions:,} positions × {shape.layers} layers, {config.sampling_precision}",
        ),
        Part(
            "drawing",
            work,
            "sampling",
            f"estimate: {rows:,} rows of {shape.vocabulary:,} logits, or a layer over {prompts:,} prompts",
        ),
    )
