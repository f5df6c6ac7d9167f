"""Linear layers of a decode step, bfloat16 on CPU: this project's native kernel against oneDNN's packed weights.

The layers have one shape (by default that of gate or up in Qwen2.5-0.5B) and 418 MB together, so that weights come from memory
and not from a cache. Both sides are measured in turn; figures are medians.

    python -m benchmarks.linears
    python -m benchmarks.linears --outputs 896 --inputs 4864     # down
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from benchmarks.machine import describe
from benchmarks.options import make_parser
from multiverse.backends.cpu.build import kernels
from multiverse.backends.cpu.packed_linears import PackedLinear

BYTES = 418_000_000


def seconds(run: Callable[[], None]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = make_parser(__doc__, json=None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--outputs", type=int, default=4864)
    parser.add_argument("--inputs", type=int, default=896)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    library = kernels()
    if library is None:
        sys.exit("this machine has no native kernels: they need a C++ compiler and AVX-512 for bfloat16")
    torch.manual_seed(0)
    inputs, outputs = options.inputs, options.outputs
    layers = max(1, BYTES // (2 * inputs * outputs))
    linears = [nn.Linear(inputs, outputs, bias=False).bfloat16() for _ in range(layers)]
    packed = [PackedLinear(linear) for linear in linears]
    for rows in options.rows:
        x_MK, y_MN = torch.randn(rows, inputs).bfloat16(), torch.empty(rows, outputs, dtype=torch.bfloat16)

        def native(x: int = x_MK.data_ptr(), y: int = y_MN.data_ptr(), rows: int = rows) -> None:
            for linear in linears:
                library.multiverse_linear(x, linear.weight.data_ptr(), None, y, rows, inputs, outputs)

        @torch.inference_mode()
        def onednn(x_MK: torch.Tensor = x_MK) -> None:
            for linear in packed:
                linear(x_MK)

        pairs = [(seconds(native), seconds(onednn)) for _ in range(1 + options.repeats)][1:]
        own, other = (layers * outputs * inputs * 2 / median(side) / 1e9 for side in zip(*pairs, strict=True))
        ratio = median(b / a for a, b in pairs)
        print(f"{rows:3} rows: native {own:5.1f}, oneDNN {other:5.1f} GB of weights a second; native / oneDNN {ratio:.2f}")
    print(describe())


if __name__ == "__main__":
    main()
