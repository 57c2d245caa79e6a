"""Part ``compilation``: every Triton kernel compiled for cards that need not be here.

The arguments are described as Triton would find them in a call with contiguous tensors of usual sizes (addresses, sizes
and row strides that 16 divides, columns that lie side by side), and of size 1, which it compiles in as a constant.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from triton import knobs  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, timed
from drpo.bench.gpu import Cases
from drpo.errors import ConfigError
from drpo.kernels import triton_backend as backend
from drpo.kernels import triton_kernels as kernels

POINTERS = {"hidden", "weight", "out"}
WIDE_POINTERS = {
    "temperature",
    "tops",
    "totals",
    "moments",
    "chosen",
    "normalizers",
    "upstream",
    "scales",
    "x",
}
#: Compute capability × 10, dtype of the factors, and the blocks that are taken there.
WAYS = [
    (90, "bf16", backend.HOPPER),
    (80, "bf16", backend.SMALLER),
    (90, "fp32", backend.EXACT),
    (80, "fp64", backend.EXACT),
]
KERNELS = {kernel.__name__: kernel for kernel in (kernels.measure, kernels.slopes, kernels.exponentials)}
TYPES = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32, "fp64": tl.float64}


def cases(settings: Settings) -> Cases:
    """Every kernel in every way that it is launched, with a support, and at the size 1; one way in a quick run."""
    if kernels.interpreted():
        raise ConfigError("nothing is compiled under TRITON_INTERPRET=1; set it to 0")
    if settings.quick:
        yield way(*WAYS[0], KERNELS)
        return
    for card, dtype, blocks in WAYS:
        yield way(card, dtype, blocks, KERNELS)
    yield way(90, "bf16", backend.HOPPER, KERNELS, N=1, V=1, H=1)
    for card, dtype, blocks in WAYS[:2]:
        yield way(card, dtype, blocks, ("measure", "slopes"), RESTRICTED=True)


def way(
    card: int, dtype: str, blocks: backend.Blocks, names: Iterable[str], **constants: int
) -> tuple[str, Callable[[Watch], list[Row]]]:
    """The case of the kernels ``names``.

    Args:
        card: compute capability × 10.
        dtype: of the factors.
        blocks: their sizes.
        names: of :data:`KERNELS`.
        constants: arguments that are compiled in.
    """
    title = ", ".join([f"compiled for sm_{card}", dtype, *(f"{name} = {value}" for name, value in constants.items())])

    def work(watch: Watch) -> list[Row]:
        turns = {name: (lambda name=name: turn(name, card, dtype, blocks, constants)) for name in names}
        case = Case(title=title, sizes={"card": card}, variants=turns, rounds=1, warm_up=0)
        return measure(case, watch, survive=(Exception,))

    return title, work


def turn(name: str, card: int, dtype: str, blocks: backend.Blocks, constants: dict[str, int]) -> Turn:
    """The compiler's time, the shared memory that the kernel takes, and how many matrix instructions it has."""
    found: list[Any] = []
    with tempfile.TemporaryDirectory() as folder, knobs.cache.scope():
        knobs.cache.dir = folder  # what an earlier call compiled would take no time
        seconds = timed(lambda: found.append(build(KERNELS[name], card, dtype, blocks, constants))).seconds
    code = found[0].asm["ptx"]
    figures = {"wgmma": code.count("wgmma.mma"), "mma": code.count("mma.sync")}
    return Turn(seconds, figures={"shared_bytes": found[0].metadata.shared, **figures})


def build(kernel: Any, card: int, dtype: str, blocks: backend.Blocks, constants: dict[str, int]) -> Any:
    """Compile ``kernel`` for inputs of ``dtype`` on compute capability ``card`` / 10."""
    wide = "fp64" if dtype == "fp64" else "fp32"
    fixed: dict[str, Any] = {
        "BLOCK_N": blocks.rows,
        "BLOCK_V": blocks.columns,
        "BLOCK_H": blocks.width,
        "STRETCH": backend.STRETCH,
        "GROUP": backend.GROUP,
        "FACTOR": TYPES[dtype],
        "WIDE": TYPES[wide],
        "BLOCK": backend.ROW_BLOCK,
        "hidden_column": 1,
        "weight_column": 1,
        "temperature_row": 0,
        "scale_row": 0,
        "RESTRICTED": False,
        **constants,
    }
    signature, given, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in fixed:
            signature[name], given[(place,)] = "constexpr", fixed[name]
            continue
        attributes[(place,)] = [["tt.divisibility", 16]]
        if name in POINTERS:
            signature[name] = f"*{dtype}"
        elif name in WIDE_POINTERS:
            signature[name] = f"*{wide}"
        else:
            signature[name] = {"targets": "*i64", "support": "*i32"}.get(name, "i32")
    source = ASTSource(fn=kernel, signature=signature, constexprs=given, attrs=attributes)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    return triton.compile(source, target=GPUTarget("cuda", card, 32), options=options)
