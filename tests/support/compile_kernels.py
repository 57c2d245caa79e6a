"""Compiles every Triton kernel for cards that need not be here; prints kernel, card, dtype, shared memory, product.

The arguments are described as Triton would find them in a call with contiguous tensors of usual sizes (addresses, sizes
and row strides that 16 divides, columns that lie side by side), and of size 1, which it compiles in as a constant.
"""

from __future__ import annotations

import sys
from typing import Any

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

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
TYPES = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32, "fp64": tl.float64}


def build(kernel: Any, card: int, dtype: str, blocks: backend.Blocks, **sizes: int) -> None:
    """Compile ``kernel`` for inputs of ``dtype`` on compute capability ``card`` / 10."""
    wide = "fp64" if dtype == "fp64" else "fp32"
    constants = {
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
        **sizes,
    }
    signature, given, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], given[(place,)] = "constexpr", constants[name]
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
    built: Any = triton.compile(source, target=GPUTarget("cuda", card, 32), options=options)
    code = built.asm["ptx"]
    product = "wgmma" if "wgmma.mma" in code else "mma" if "mma.sync" in code else "none"
    sys.stdout.write(f"{kernel.__name__} {card} {dtype} {built.metadata.shared} {product}\n")


def main() -> None:
    """Every kernel in every way that it is launched."""
    assert not kernels.interpreted(), "set TRITON_INTERPRET=0"
    ways = [
        (90, "bf16", backend.HOPPER),
        (80, "bf16", backend.SMALLER),
        (90, "fp32", backend.EXACT),
        (80, "fp64", backend.EXACT),
    ]
    for card, dtype, blocks in ways:
        for kernel in (kernels.measure, kernels.slopes, kernels.exponentials):
            build(kernel, card, dtype, blocks)
    for kernel in (kernels.measure, kernels.slopes, kernels.exponentials):
        build(kernel, 90, "bf16", backend.HOPPER, N=1, V=1, H=1)
    for kernel in (kernels.measure, kernels.slopes):
        build(kernel, 90, "bf16", backend.HOPPER, RESTRICTED=True)
        build(kernel, 80, "bf16", backend.SMALLER, RESTRICTED=True)


if __name__ == "__main__":
    main()
