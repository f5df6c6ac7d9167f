"""Compile the kernels for Hopper, without one: prints the most registers and bytes of stack that any of them takes.

python -m tests.backends.cuda.compile_kernels narrow|wide|small|linears
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from multiverse.backends.cuda import attention, layers
from multiverse.backends.cuda import attention_kernels as kernels
from multiverse.backends.cuda import layer_kernels as small

HOPPER = GPUTarget("cuda", 90, 32)
# Qwen2.5-7B: 28 query heads, 4 key/value heads of 128.
SIZES = {"HEADS": 28, "VALUE_SIZE": 128, "VALUE_PADDED": 128, "EARLY": True}
ATTEND = SIZES | {"FOLDS": 7, "SIZE": 128, "PADDED": 128, "BLOCK": attention.BLOCK}
POINTERS = {"partial_PHV": "*fp32", "lse_PH": "*fp32"} | dict.fromkeys(
    ("slots", "entries", "tiles", "count", "partials", "offsets"), "*i32"
)


def usage(kernel: Any, constants: dict[str, int], warps: int, stages: int = 3, **kinds: str) -> tuple[int, int]:
    """Registers, and bytes of stack, of one kernel in bfloat16; `kinds` are the types of what names do not tell."""
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = "constexpr" if name in constants else kinds.get(name, POINTERS.get(name))
        signature[name] = kind or ("*bf16" if name[-1].isupper() else "i32")
        if kind not in ("constexpr", "fp32"):
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(
        source, target=HOPPER, options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    )
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.asm["cubin"])
        said = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


def linear(tile: layers.LinearTile, kernel: Any, **more: Any) -> tuple[int, int]:
    """Of a linear layer with everything that can be fused into it."""
    around = dict.fromkeys(("BIASED", "GATED", "ADDED", *(name for name in more if name.isupper())), True)
    constants = {"SIZE": 3584, "OUT": 18944, "BLOCK_F": tile.block_f, "BLOCK_E": tile.block_e} | around
    kinds = {name: kind for name, kind in more.items() if name.islower()}
    return usage(kernel, constants, tile.warps, tile.stages, **kinds)


def main(kind: str) -> None:
    narrow, wide = attention.lanes(ATTEND["FOLDS"])
    if kind == "small":
        found = [
            usage(small.rms_norm, {"SIZE": 3584, "PADDED": 4096, "EARLY": True}, 8, epsilon="fp32"),
            usage(small.gate, {"OUT": 18944, "BLOCK": 1024}, 4),
            usage(
                small.rotate_and_store,
                {"HEADS": 28, "KV_HEADS": 4, "SIZE": 128, "HALF": 64, "NORMED": True, "EARLY": True},
                1,
                epsilon="fp32",
                slot_N="*i64",
            ),
        ]
    elif kind == "linears":
        alone = {"NORMED": True, "EARLY": True, "epsilon": "fp32"}
        found = [linear(tile, small.gemv, **alone) for tile in (layers._GEMV, layers._GEMV_LONG)]
        found += [linear(tile, small.small_gemm, rows="i32") for tile in (layers._SMALL, layers._SMALL_LARGE)]
    else:
        lanes = narrow if kind == "narrow" else wide
        found = [usage(kernels.attend_tiles, ATTEND | {"LANES": lanes}, attention.WARPS, scale_log2="fp32")]
        found.append(usage(kernels.merge_partials, SIZES | {"PARTIALS": attention.MERGED_PARTIALS}, attention.MERGE_WARPS))
    print(*map(max, zip(*found, strict=True)))


if __name__ == "__main__":
    main(sys.argv[1])
