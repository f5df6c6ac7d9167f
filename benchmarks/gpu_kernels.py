"""Each kernel of a decoder layer on a GPU, against the time that copying the bytes it reads takes.

Fused linear layers (norm and bias of queries, keys and values; residual of the output; norm and gate of the MLP) beside
torch's, and attention of one row and of branches behind a long shared prefix. Several sets of weights are used in turn, so that
they are not in a cache, and each measurement is a captured CUDA graph, so that launches are not timed.

    python -m benchmarks.gpu_kernels
    python -m benchmarks.gpu_kernels --shape 7b --tiles      # other tiles of the linear layers, too
    python -m benchmarks.gpu_kernels --device cpu --shape tiny    # in Triton's interpreter: shows that everything runs
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.gpu import add_device, config_of, copy_bandwidth
from benchmarks.machine import describe
from benchmarks.options import make_parser
from multiverse.backends.batch import Family
from multiverse.backends.cuda.attention import TiledAttention
from multiverse.backends.cuda.buffers import send
from multiverse.backends.cuda.layers import LinearTile, TritonLinear, TritonNorm
from multiverse.backends.cuda.plan import plan
from multiverse.backends.kv_pool import Call

_WEIGHT_BYTES = 400_000_000
"""Bytes of the sets of weights together: several times a GPU's cache."""
_REPEATS = 7
_ROWS = (1, 8)
_CONTEXTS, _BRANCHES, _OWN = (8192, 32768), (1, 4, 16), 64
_TILES = {
    1: [(8, 512, 4, 3), (2, 2048, 8, 3), (4, 512, 4, 3), (2, 1024, 4, 3), (4, 512, 2, 3)],
    8: [(64, 128, 4, 4), (16, 256, 2, 4), (16, 512, 4, 3), (32, 128, 4, 5), (128, 128, 8, 3)],
}


class Layer(NamedTuple):
    """One linear layer: outputs and inputs of its weights, and the operations fused into it."""

    name: str
    out: int
    size: int
    normed: bool = False
    biased: bool = False
    gated: bool = False
    added: bool = False


def layers_of(config: Any) -> list[Layer]:
    """The four linear layers of a decoder layer of Qwen2."""
    hidden, inner = config.hidden_size, config.intermediate_size
    heads = hidden + 2 * hidden // config.num_attention_heads * config.num_key_value_heads
    return [
        Layer("queries, keys, values", heads, hidden, normed=True, biased=True),
        Layer("output", hidden, hidden, added=True),
        Layer("gate and up", 2 * inner, hidden, normed=True, gated=True),
        Layer("down", hidden, inner, added=True),
    ]


def seconds(calls: Sequence[Callable[[], object]], device: str) -> float:
    """Median seconds per call."""
    for call in calls[:2]:  # compiles
        call()
    if device == "cpu":
        start = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - start) / len(calls)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    times: list[float] = []
    for _ in range(_REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / len(calls))
    return median(times)


class Linears:
    """A linear layer with several sets of weights.

    Args:
        total: bytes of all sets together.
    """

    def __init__(self, layer: Layer, device: str, total: int) -> None:
        self.layer, self.device = layer, device
        self.bytes = 2 * layer.out * layer.size

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, device=device).to(torch.float32 if device == "cpu" else torch.bfloat16)

        norm = TritonNorm(normal(layer.size), 1e-6) if layer.normed else None
        bias = normal(layer.out) if layer.biased else None
        self.normal = normal
        self.linears = [
            TritonLinear(normal(layer.out, layer.size) * layer.size**-0.5, bias, norm, gated=layer.gated)
            for _ in range(max(2, min(48, total // self.bytes)))
        ]

    def seconds(self, rows: int, tile: LinearTile | None = None, *, ours: bool = True) -> float:
        """Seconds of one linear layer; with `tile` instead of the default ones, or torch's if not `ours`."""
        x_NE = self.normal(rows, self.layer.size)
        width = self.layer.out // (2 if self.layer.gated else 1)
        residual = self.normal(rows, width) if self.layer.added else None
        calls = []
        for own in self.linears:
            cut = copy(own)
            if tile is not None:
                cut.tile = lambda _: tile  # type: ignore[method-assign, assignment]
            calls.append(partial(cut if ours else cut.gemm, x_NE, residual))
        return seconds(calls, self.device)


def branches(context: int, count: int) -> Family:
    """`count` branches behind a shared prefix, each with `_OWN` tokens, the newest of which is its row; or a single row."""
    if count == 1:
        order = np.arange(context)
        return Family(np.arange(1), order, order, np.zeros(context, dtype=np.int64), np.ones((1, 1), dtype=bool))
    own = np.tile(np.arange(1, count + 1), _OWN)
    owners = np.concatenate([np.zeros(context, dtype=np.int64), own])
    visible = np.eye(count + 1, dtype=bool)
    visible[0], visible[:, 0] = True, True
    positions = np.concatenate([np.arange(context), context + np.repeat(np.arange(_OWN), count)])
    return Family(np.arange(count), np.arange(len(owners)), positions, owners, visible)


def attention(config: Any, context: int, count: int, device: str, programs: int) -> tuple[float, int]:
    """Seconds of one layer's attention, and the bytes of keys and values that it reads at least."""
    family = branches(context, count)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = config.hidden_size // heads
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    kernels = TiledAttention(programs)
    kernels.heads = heads, kv_heads
    work = send(plan([family], count, kernels.tiling), torch.device(device))
    query = torch.randn(count, heads, size, device=device).to(dtype)
    calls = []
    for _ in range(4):
        pools = [torch.randn(len(family.slots), kv_heads, size, device=device).to(dtype) for _ in range(2)]
        call = Call(query, pools[0], pools[1], torch.empty_like(query), size**-0.5, None)
        calls.append(partial(kernels.launch, call, work))
    return seconds(calls, device), 2 * 2 * len(family.slots) * kv_heads * size


@torch.inference_mode()
def table(shape: str, device: str, *, tiles: bool, bandwidth: float) -> Table:
    """All kernels of one shape."""
    config = config_of(shape)
    shown = Table(title=f"Qwen2.5 {shape}, {bandwidth / 1e12:.2f} TB/s copied", title_justify="left")
    for column in ("kernel", "rows", "floor us", "ours us", "of floor", "torch us", "ours is"):
        shown.add_column(column, justify="left" if column == "kernel" else "right", no_wrap=True)
    for layer in layers_of(config):
        measured = Linears(layer, device, _WEIGHT_BYTES if device == "cuda" else 0)
        floor = measured.bytes / bandwidth
        for rows in _ROWS:
            theirs, own = measured.seconds(rows, ours=False), measured.seconds(rows)
            shown.add_row(*_cells(layer.name, rows, floor, own), f"{1e6 * theirs:.1f}", f"{theirs / own:.2f}x as fast")
            for tile in _TILES[rows][: 5 if device == "cuda" else 1] if tiles else ():
                shown.add_row(*_cells(f"  {tile}", rows, floor, measured.seconds(rows, LinearTile(*tile))), "", "")
    programs = 2 * torch.cuda.get_device_properties(0).multi_processor_count if device == "cuda" else 2
    for context in _CONTEXTS if device == "cuda" else (32,):
        for count in _BRANCHES if device == "cuda" else (1, 3):
            own, read = attention(config, context, count, device, programs)
            shown.add_row(*_cells(f"attention, {context} shared", count, read / bandwidth, own), "", "")
    return shown


def _cells(name: str, rows: int, floor: float, own: float) -> tuple[str, ...]:
    return name, str(rows), f"{1e6 * floor:.1f}", f"{1e6 * own:.1f}", f"{floor / own:.1%}"


def main(arguments: list[str] | None = None) -> None:
    """Measure and show."""
    parser = make_parser(__doc__, json=None)
    add_device(parser)
    parser.add_argument("--tiles", action="store_true", help="measure other tiles of the linear layers, too")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device: TRITON_INTERPRET=1 and --device cpu --shape tiny show that it runs")
    bandwidth = copy_bandwidth(options.device)
    console = Console(width=120)
    for shape in options.shape:
        console.print(table(shape, options.device, tiles=options.tiles, bandwidth=bandwidth))
    console.print(describe(options.device), highlight=False)
    if options.device != "cuda":
        console.print("Measured on a CPU: this shows only that the benchmark runs.", highlight=False)


if __name__ == "__main__":
    main()
