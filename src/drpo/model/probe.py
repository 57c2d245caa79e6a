"""A few made-up sequences and what a plain forward pass of each alone, without cache or padding, says of them.

Every faster way through a model (padding, a KV cache, a prompt's pass shared by its responses) is compared with that
before it is used. Whether a way is right depends on the architecture, and not on the weights.

Shapes: ``N`` response tokens of all sequences, ``V`` vocabulary, ``T`` positions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from drpo.errors import ConfigError
from drpo.model.precision import Quantized
from drpo.model.rope_regimes import RopeRegimes

#: Largest difference (nats) in float32, and largest expected one in less, where a way is the plain one up to rounding.
EXACT, ROUNDED = 1e-5, 0.05
#: In float32 large logits round further: by this share of the largest |log π|.
RELATIVE = 4e-6
#: A way may differ by so many times as much as two sequences in one batch do, up to these bounds.
NOISE, MOST_EXACT, MOST_ROUNDED = 10.0, 1e-3, 0.3
#: Tokens less probable than this (nats) are left out of the comparison.
PLAUSIBLE = -10.0
#: Windows of attention up to this many tokens are crossed by a sequence of the probe.
CROSSED = 1024
#: Settings that name how far a token sees.
WINDOWS = re.compile(r"window|attention_chunk|local_attn|index_topk|block_size")


@dataclass(frozen=True, slots=True)
class Probe:
    """Prompts of different length and the responses to each: ``pairs`` of one prompt stand together."""

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def pairs(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(prompt, response), one each."""
        return [(prompt, r) for prompt, group in zip(self.prompts, self.responses, strict=True) for r in group]


def probes(model: Any) -> list[Probe]:
    """The probes of ``model``: one of short sequences, and one that crosses each window that :data:`CROSSED` allows."""
    config = model.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None) or 1 << 30
    wanted: list[tuple[int, ...]] = [(2, 5, 11)]
    for window in sorted(windows(model)):
        if window <= CROSSED:
            wanted.append((3, max(window - 2, 1), window + 5))
    original = RopeRegimes.of(model).longrope
    if original is not None and original <= CROSSED:
        wanted.append((original + 2, original + 7))
    vocabulary = model.get_input_embeddings().num_embeddings
    found = []
    for lengths in wanted:
        fitting = [length for length in lengths if length + 6 <= room]
        if len(fitting) > 1 and (not found or fitting == list(lengths)):
            found.append(_probe(fitting, vocabulary, _pad_id(config)))
    return found or [_probe([1, 2], vocabulary, _pad_id(config))]


def windows(model: Any) -> set[int]:
    """How many tokens each kind of limited attention of ``model`` sees, from its configuration; those that no sequence
    is long enough for are left out."""
    config = model.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None) or 1 << 30
    found: set[int] = set()
    for name, value in config.to_dict().items():
        if WINDOWS.search(name):
            values = value if isinstance(value, list | tuple) else [value]
            found.update(v for v in values if isinstance(v, int) and not isinstance(v, bool) and 1 < v < room)
    return found


@dataclass(frozen=True, slots=True)
class Reference:
    """log π ``[N, V]`` of the plain passes of a probe, in order, and the largest difference that counts as rounding."""

    probe: Probe
    logprobs: torch.Tensor
    tolerance: float
    exact: bool

    def difference(self, found: torch.Tensor) -> float:
        """How far ``found`` ``[N, V]`` is from the plain passes in nats: the largest difference of a plausible token in
        float32, the largest expected one of a position in less."""
        return difference(found, self.logprobs, self.exact)


def difference(found: torch.Tensor, right: torch.Tensor, exact: bool) -> float:
    """See :meth:`Reference.difference`."""
    apart = (found.double() - right.double()).abs()
    if exact:
        apart = apart[right > PLAUSIBLE]
        return float("inf") if bool(apart.isnan().any()) else float(apart.detach().max())
    expected = torch.where(right > PLAUSIBLE, apart * right.double().exp(), 0.0).sum(-1).mean().detach()
    return float("inf") if bool(expected.isnan()) else float(expected)


@torch.no_grad()
def reference(model: Any, probe: Probe) -> Reference:
    """The plain passes of ``probe``.

    Raises:
        ConfigError: the model does not take token ids alone; a token's log π depends on later tokens, or on other
            sequences of its batch.
    """
    name = type(model).__name__
    try:
        with _noted_autocast(model) as noted:
            whole = [plain(model, [[*prompt, *response]])[0] for prompt, response in probe.pairs]
    except Exception as error:
        raise ConfigError(
            f"model: {name} cannot be trained here: a plain forward pass over token ids fails with "
            f"{describe(error)}. Use a causal LM that needs only token ids."
        ) from error
    if not bool(whole[0].isfinite().any()):
        raise ConfigError(
            f"model: {name} gives log-probabilities that are not finite on test tokens. Its weights are damaged, or "
            "its precision overflows."
        )
    exact = is_exact(model) and not any(noted)
    parts = [
        logprobs[len(prompt) - 1 : len(prompt) + len(response) - 1]
        for logprobs, (prompt, response) in zip(whole, probe.pairs, strict=True)
    ]
    prompt, response = probe.pairs[0]
    twice = plain(model, [[*prompt, *response]] * 2)
    noise = difference(twice, whole[0].expand_as(twice), exact)
    logprobs = torch.cat(parts)
    furthest = -float(logprobs[logprobs.isfinite()].min())
    floor, most = (max(EXACT, RELATIVE * furthest), MOST_EXACT) if exact else (ROUNDED, MOST_ROUNDED)
    if not noise <= most:
        raise ConfigError(
            f"model: {name} gives the same sequence a different log π in a batch of two (by {noise:.2g} nats): log π "
            "depends on the batch."
        )
    found = Reference(probe, logprobs, max(floor, min(NOISE * noise, most)), exact)
    _check_causal(model, found, whole)
    return found


def _check_causal(model: Any, found: Reference, whole: Sequence[torch.Tensor]) -> None:
    """That a token's log π does not change with what comes after it."""
    prompt, response = found.probe.pairs[-1]
    for length in (len(prompt), len(prompt) + 1):
        before = plain(model, [[*prompt, *response][:length]])[0, -1:]
        apart = difference(before, whole[-1][length - 1 : length], found.exact)
        if not apart <= found.tolerance:
            raise ConfigError(
                f"model: {type(model).__name__} is not causal: log π of a token changes with the tokens after it "
                f"({apart:.2g} nats). Use a decoder-only language model (or, of an encoder, a checkpoint with "
                "is_decoder=true in its config.json)."
            )


def plain(model: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """log π ``[R, T, V]`` (float32 or wider) after every position of ``rows`` of one length, by nothing but the
    model."""
    ids = torch.tensor(rows, device=model.device)
    logits = model(input_ids=ids, **without_cache(model)).logits
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def without_cache(module: Any) -> dict[str, Any]:
    """The arguments of a forward pass of ``module`` that keeps no cache."""
    parameters = inspect.signature(module.forward).parameters
    takes = "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {"use_cache": False} if takes else {}


def is_exact(model: Any) -> bool:
    """Whether ``model`` computes in float32 or wider throughout, as far as it and the present autocast tell."""
    if model.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(model.device.type):
        return False
    return not any(isinstance(module, Quantized) for module in model.modules())


@contextmanager
def _noted_autocast(model: Any) -> Iterator[list[bool]]:
    """Whether each pass within it is in autocast, which accelerate puts inside the forward of a model."""
    noted: list[bool] = []

    def note(*_: Any) -> None:
        noted.append(torch.is_autocast_enabled(model.device.type))

    handle = model.get_input_embeddings().register_forward_pre_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Within it the model is in evaluation mode; its modes and the random state are restored."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def describe(error: Exception) -> str:
    """An error of somebody else's code, in one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:159] + '…'}"


def _probe(lengths: Sequence[int], vocabulary: int, pad: int | None) -> Probe:
    usable = [token for token in range(min(vocabulary, 4096)) if token != pad] or [0]
    usable = usable[3:] if len(usable) > 8 else usable  # the first are often special

    def tokens(count: int, seed: int) -> tuple[int, ...]:
        return tuple(usable[(7 * seed + 5 * i + i * i) % len(usable)] for i in range(count))

    prompts = tuple(tokens(length, seed) for seed, length in enumerate(lengths))
    counts = ((6, 3), (6,), (4,))
    responses = [
        [tokens(count, 11 + 3 * row + j) for j, count in enumerate(group)]
        for row, group in enumerate(counts[: len(prompts)])
    ]
    if pad is not None and 0 <= pad < vocabulary:
        # A policy can draw the padding token, which some models take for the end of their positions.
        first = responses[0][0]
        responses[0][0] = (*first[:2], pad, *first[3:])
    return Probe(prompts, tuple(map(tuple, responses)))


def _pad_id(config: Any) -> int | None:
    return getattr(config, "pad_token_id", None)
