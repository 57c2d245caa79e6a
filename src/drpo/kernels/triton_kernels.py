"""The Triton kernels. Imported only where Triton is installed; launched by ``triton_backend``.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary, ``S`` stretches of it, ``C`` rows of a chunk.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


def interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, that is, were imported under TRITON_INTERPRET=1."""
    return not isinstance(measure, triton.JITFunction) and not isinstance(tl.sum, triton.JITFunction)


@triton.jit
def _logits(
    hidden,
    weight,
    temperature,
    rows,
    columns,
    H,
    hidden_row,
    hidden_column,
    weight_row,
    weight_column,
    temperature_row,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
    FACTOR: tl.constexpr,
    WIDE: tl.constexpr,
):
    """A tile of hidden · weightᵀ / temperature; ``rows`` and ``columns`` must exist."""
    width = tl.arange(0, BLOCK_H)
    left_at = hidden + rows.to(tl.int64)[:, None] * hidden_row + width[None, :] * hidden_column
    right_at = weight + columns.to(tl.int64)[None, :] * weight_row + width[:, None] * weight_column
    x = tl.zeros((BLOCK_N, BLOCK_V), dtype=WIDE)
    for start in range(0, H, BLOCK_H):
        left = tl.load(left_at, mask=width[None, :] < H - start, other=0.0)
        right = tl.load(right_at, mask=width[:, None] < H - start, other=0.0)
        x = tl.dot(left.to(FACTOR), right.to(FACTOR), x, input_precision="ieee", out_dtype=WIDE)
        left_at += BLOCK_H * hidden_column
        right_at += BLOCK_H * weight_column
    return x / tl.load(temperature + rows * temperature_row)[:, None]


@triton.jit
def _inside(x, support, words, rows, columns, end):
    """``x`` with −inf outside the support: bit v % 32 of word v // 32 of a row says whether token v is inside."""
    at = support + rows.to(tl.int64)[:, None] * words + (columns // 32)[None, :]
    bits = tl.load(at, mask=columns[None, :] < end, other=0) >> (columns % 32)[None, :]
    return tl.where((bits & 1) != 0, x, float("-inf"))


@triton.jit
def measure(
    hidden,
    weight,
    targets,
    temperature,
    support,
    tops,
    totals,
    moments,
    chosen,
    N,
    V,
    H,
    hidden_row,
    hidden_column,
    weight_row,
    weight_column,
    temperature_row,
    words,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
    STRETCH: tl.constexpr,
    GROUP: tl.constexpr,
    FACTOR: tl.constexpr,
    WIDE: tl.constexpr,
    RESTRICTED: tl.constexpr,
):
    """For BLOCK_N rows and a stretch of the vocabulary: max x, Σ e, Σ e (x − max x) with e = exp(x − max x), and the
    target's x, or −inf where the target is elsewhere; into ``[N, S]`` each."""
    stretches = tl.cdiv(V, STRETCH * BLOCK_V)
    program = tl.program_id(0)
    block, stretch = tl.swizzle2d(program // stretches, program % stretches, tl.cdiv(N, BLOCK_N), stretches, GROUP)
    rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
    # Rows and columns past the end repeat the last one: no masks in the product.
    existing = tl.minimum(rows, N - 1)
    target = tl.load(targets + existing)
    # Low but finite, so that a stretch whose logits are all −inf adds 0 instead of NaN.
    top = tl.full((BLOCK_N,), -1e30, dtype=WIDE)
    total = tl.zeros((BLOCK_N,), dtype=WIDE)
    moment = tl.zeros((BLOCK_N,), dtype=WIDE)
    at_target = tl.full((BLOCK_N,), float("-inf"), dtype=WIDE)
    for start in range(stretch * STRETCH * BLOCK_V, tl.minimum(V, (stretch + 1) * STRETCH * BLOCK_V), BLOCK_V):
        columns = start + tl.arange(0, BLOCK_V)
        x = _logits(
            hidden,
            weight,
            temperature,
            existing,
            tl.minimum(columns, V - 1),
            H,
            hidden_row,
            hidden_column,
            weight_row,
            weight_column,
            temperature_row,
            BLOCK_N,
            BLOCK_V,
            BLOCK_H,
            FACTOR,
            WIDE,
        )
        x = tl.where(columns[None, :] < V, x, float("-inf"))
        if RESTRICTED:
            x = _inside(x, support, words, existing, columns, V)
        at_target = tl.maximum(at_target, tl.max(tl.where(columns[None, :] == target[:, None], x, float("-inf")), 1))
        higher = tl.maximum(top, tl.max(x, 1))
        shifted = x - higher[:, None]
        e = tl.exp(shifted)
        fall = top - higher
        decay = tl.exp(fall)
        # 0 · log 0 = 0, by keeping the logarithm finite.
        moment = decay * (moment + total * fall) + tl.sum(e * tl.maximum(shifted, -1e30), 1)
        total = decay * total + tl.sum(e, 1)
        top = higher
    at = rows.to(tl.int64) * stretches + stretch
    tl.store(tops + at, top, mask=rows < N)
    tl.store(totals + at, total, mask=rows < N)
    tl.store(moments + at, moment, mask=rows < N)
    tl.store(chosen + at, at_target, mask=rows < N)


@triton.jit
def slopes(
    hidden,
    weight,
    targets,
    temperature,
    support,
    normalizers,
    upstream,
    out,
    N,
    first,
    last,
    H,
    hidden_row,
    hidden_column,
    weight_row,
    weight_column,
    temperature_row,
    words,
    out_row,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
    GROUP: tl.constexpr,
    FACTOR: tl.constexpr,
    WIDE: tl.constexpr,
    RESTRICTED: tl.constexpr,
):
    """(onehot − π) · upstream / temperature for BLOCK_N rows and BLOCK_V of the tokens from ``first`` to ``last``."""
    across = tl.cdiv(last - first, BLOCK_V)
    program = tl.program_id(0)
    block, part = tl.swizzle2d(program // across, program % across, tl.cdiv(N, BLOCK_N), across, GROUP)
    rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = first + part * BLOCK_V + tl.arange(0, BLOCK_V)
    existing = tl.minimum(rows, N - 1)
    x = _logits(
        hidden,
        weight,
        temperature,
        existing,
        tl.minimum(columns, last - 1),
        H,
        hidden_row,
        hidden_column,
        weight_row,
        weight_column,
        temperature_row,
        BLOCK_N,
        BLOCK_V,
        BLOCK_H,
        FACTOR,
        WIDE,
    )
    if RESTRICTED:
        x = _inside(x, support, words, existing, columns, last)
    probabilities = tl.exp(x - tl.load(normalizers + existing)[:, None])
    chosen = (columns[None, :] == tl.load(targets + existing)[:, None]).to(WIDE)
    share = tl.load(upstream + existing) / tl.load(temperature + existing * temperature_row)
    at = out + rows.to(tl.int64)[:, None] * out_row + (columns - first)[None, :]
    mask = (rows[:, None] < N) & (columns[None, :] < last)
    tl.store(at, ((chosen - probabilities) * share[:, None]).to(out.dtype.element_ty), mask=mask)


@triton.jit
def exponentials(x, scales, out, tops, totals, V, x_row, scale_row, out_row, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """One row of exp(x / scale − max), its maximum and its sum: x is read twice and the exponentials written once."""
    row = tl.program_id(0).to(tl.int64)
    scale = tl.load(scales + row * scale_row)
    top = tl.full((), -1e30, dtype=WIDE)
    total = tl.full((), 0.0, dtype=WIDE)
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        part = tl.load(x + row * x_row + columns, mask=columns < V, other=float("-inf")) / scale
        higher = tl.maximum(top, tl.max(part, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(part - higher), 0)
        top = higher
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        part = tl.load(x + row * x_row + columns, mask=columns < V, other=float("-inf")) / scale
        tl.store(out + row * out_row + columns, tl.exp(part - top).to(out.dtype.element_ty), mask=columns < V)
    tl.store(tops + row, top)
    tl.store(totals + row, total)
