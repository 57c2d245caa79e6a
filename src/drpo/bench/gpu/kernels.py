"""Part ``kernels``: the loss at the sizes of Qwen3-4B's head, against the card's own matrix products.

N = 8,192 and 32,768 hidden states, H = 2,560, V = 151,936, bf16. First the card's own rate: the three products that any
method needs, into memory that is there. Then every way from hidden states to both gradients, in turns. TFLOP/s counts
these three products and no recomputation, so that the share of the card's rate says how much of its time a method
spends on what cannot be avoided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, release_memory, timed
from drpo.bench.gpu import Cases
from drpo.bench.kernels import ON_GPU, QUICK, measure_losses
from drpo.bench.losses import Size

PRODUCTS = "three products"
#: Rows of hidden states in one product: enough for the card to be at its best, and 2.5 GB of logits at most.
ROWS = 8192


def cases(settings: Settings) -> Cases:
    """The card's rate and the losses at each size."""
    for size, default in (QUICK if settings.quick else ON_GPU).items():
        here = dataclasses.replace(size, device=settings.device, dtype="bfloat16")
        rounds = settings.rounds or default

        def work(watch: Watch, here: Size = here, rounds: int = rounds) -> list[Row]:
            (products,) = measure_products(here, rounds, watch)
            rows = measure_losses(here, rounds, settings.compiled, watch, survive=(Exception,))
            rated = [products, *(with_rate(row, here) for row in rows if row.variant == "floor")]
            card = max((row.figures["tflops"] for row in rated if row.skipped is None), default=None)
            return [products, *(with_rate(row, here, card) for row in rows)]

        yield here.title(), work


def measure_products(size: Size, rounds: int, watch: Watch) -> list[Row]:
    """The three products alone."""
    work = products(size)
    case = Case(title=size.title(), sizes=size.numbers(), variants={PRODUCTS: work}, rounds=rounds, warm_up=2)
    rows = [with_rate(row, size) for row in measure(case, watch)]
    release_memory()
    return rows


def products(size: Size) -> Callable[[], Turn]:
    """A turn of the three products of every chunk of rows, into memory that is there."""
    dtype, device, rows = getattr(torch, size.dtype), size.device, min(ROWS, size.tokens)
    hidden = torch.randn(size.tokens, size.hidden, device=device, dtype=dtype)
    weight = torch.randn(size.vocabulary, size.hidden, device=device, dtype=dtype)
    logits = torch.empty(rows, size.vocabulary, device=device, dtype=dtype)
    to_hidden, to_weight = torch.empty_like(hidden[:rows]), torch.empty_like(weight)

    def work() -> None:
        for chunk in hidden.split(rows):
            torch.mm(chunk, weight.T, out=logits)
            torch.mm(logits, weight, out=to_hidden)
            torch.mm(logits.T, chunk, out=to_weight)

    return lambda: timed(work, device)


def with_rate(row: Row, size: Size, card: float | None = None) -> Row:
    """The row with its TFLOP/s, counting three products, and their share of the card's."""
    if row.skipped is not None:
        return row
    rate = 3 * 2 * size.tokens * size.hidden * size.vocabulary / row.median / 1e12
    share = {} if card is None else {"gemm_share": rate / card}
    return dataclasses.replace(row, figures={**row.figures, "tflops": rate, **share})
