"""Suite ``support``: what renormalizing over the tokens of truncated sampling costs, and two ways to keep these tokens.

The first case is `fused_loss` with and without a support, forward and backward. The last ones put −inf outside the
supports of one chunk of logits, from sorted ids (:class:`drpo.Support`) and from a bit for each token of the
vocabulary. Between them the sampler draws a token a row, as far as logits are known: with the temperature alone, and
under each truncation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, release_memory, timed
from drpo.bench.kernels import loss_case, with_peak
from drpo.bench.losses import NUCLEI, Size, some_support
from drpo.kernels.chunks import CHUNK_ROWS
from drpo.rollouts import SamplingParameters
from drpo.rollouts.in_process import draw

WITHOUT, WHOLE = "fused_loss", "nothing truncated"
#: Variant → how a token is drawn.
CUTS: dict[str, dict[str, float]] = {
    WHOLE: {},
    "top_p=0.9": {"top_p": 0.9},
    "top_k=50": {"top_k": 50},
    "min_p=0.05": {"min_p": 0.05},
    "all three": {"top_p": 0.9, "top_k": 50, "min_p": 0.05},
}
ON_CPU, ROUNDS = Size(tokens=4096, hidden=256, vocabulary=151_936), 3
ON_GPU = Size(tokens=8_192, hidden=2560, vocabulary=151_936, length=2048, dtype="bfloat16")
QUICK = Size(tokens=128, hidden=16, vocabulary=512)


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """What a step costs, and what each form of a support does."""
    on_gpu = settings.device.startswith("cuda")
    size = QUICK if settings.quick else ON_GPU if on_gpu else ON_CPU
    size = dataclasses.replace(size, device=settings.device)
    nuclei = [nucleus for nucleus in NUCLEI if nucleus <= size.vocabulary]
    case = loss_case(size, [WITHOUT, *(f"nuclei of {nucleus:,}" for nucleus in nuclei)], settings.rounds or ROUNDS)
    rows = measure(dataclasses.replace(case, baselines=(WITHOUT,)), watch)
    release_memory()
    yield [with_peak(row, size, watch) for row in rows]
    yield measure(drawing_case(size, 2 if settings.quick else 7), watch)
    for nucleus in nuclei:
        yield measure(forms_case(size, nucleus, 2 if settings.quick else 7), watch)


def drawing_case(size: Size, rounds: int) -> Case:
    """A token for each of 64 rows whose most likely tokens stand out, as those of a language model do."""
    rows, generator = 64, torch.Generator(size.device).manual_seed(0)
    # The token of rank i has the logit −2 log i: half the mass is on the first token, and the tail is long.
    ranks = torch.rand(rows, size.vocabulary, generator=generator, device=size.device).argsort(1) + 1
    logits = -2 * ranks.float().log()
    uniforms = torch.rand(rows, generator=generator, device=size.device)

    def turn(cut: dict[str, float]) -> Turn:
        parameters = SamplingParameters(max_new_tokens=1, temperature=1.0, **cut)  # pyright: ignore[reportArgumentType]

        def work() -> None:
            draw(logits, uniforms, parameters)

        return timed(work, size.device)

    return Case(
        title=f"drawing a token for each of {rows} rows of V={size.vocabulary:,}",
        sizes={"rows": rows, "vocabulary": size.vocabulary},
        rounds=rounds,
        baselines=(WHOLE,),
        variants={name: lambda cut=cut: turn(cut) for name, cut in CUTS.items()},
    )


def forms_case(size: Size, nucleus: int, rounds: int) -> Case:
    """Ids and bits of supports of ``nucleus`` tokens, on the CPU."""
    rows = min(CHUNK_ROWS, size.tokens)
    logits = torch.zeros(rows, size.vocabulary)
    targets = torch.randint(size.vocabulary, (rows,), generator=torch.Generator().manual_seed(0))
    support = some_support(targets, size.vocabulary, nucleus)
    packed = support.bitmask(size.vocabulary)
    held = {"ids": support.ids.nbytes + support.offsets.nbytes, "bits": packed.nbytes}

    def by_ids() -> None:
        support.restrict_(logits)

    def by_bits() -> None:
        octets = packed.numpy().view(np.uint8)
        outside = 1 - np.unpackbits(octets, axis=1, count=size.vocabulary, bitorder="little")
        logits.masked_fill_(torch.from_numpy(outside).view(torch.bool), -torch.inf)

    works = {"ids": by_ids, "bits": by_bits}
    return Case(
        title=f"−inf outside nuclei of {nucleus:,} in {rows} rows of V={size.vocabulary:,}",
        sizes={"rows": rows, "vocabulary": size.vocabulary, "nucleus": nucleus},
        rounds=rounds,
        baselines=("ids",),
        variants={
            name: lambda work=work, name=name: dataclasses.replace(
                timed(work), figures={"bytes_per_token": held[name] / rows}
            )
            for name, work in works.items()
        },
    )
