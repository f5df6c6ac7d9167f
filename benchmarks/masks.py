"""Cost of the attention mask of a structured document in training, by length: dense and block-sparse.

One attention layer on one document of blocks of four paths, which hold two thirds of its tokens. Both sides are measured in
turn; figures are medians over the repeats. FlexAttention has no backward on CPU, so only forwards are compared there; on CUDA a
step is forward and backward. `released` is the size of a float mask of four bytes per entry, as in the paper's released code.

    python -m benchmarks.masks --json docs/figures/masks.json
    python -m benchmarks.masks --lengths 1024 2048 --repeats 2
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.machine import describe, synchronize
from benchmarks.options import make_parser
from multiverse.attention.packed import Visibility

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
PATHS, HEAD = 4, 64
MIB = 1 << 20


def document(length: int, device: str) -> Visibility:
    """Sections of up to 1,536 tokens: a sixth trunk, four paths of a sixth each, a sixth trunk."""
    section = min(length, 6 * 256)
    segment_L, position_L = torch.zeros(length, dtype=torch.long), torch.zeros(length, dtype=torch.long)
    segments, position, part = 1, 0, section // 6
    apart: list[tuple[int, int]] = []
    for start in range(0, length, section):
        for number in range(6):
            here = slice(start + number * part, min(start + (number + 1) * part if number < 5 else start + section, length))
            count = max(0, here.stop - here.start)
            inside = 0 < number < 5
            position_L[here] = position + torch.arange(count)
            if inside:
                segment_L[here] = segments
                apart += [(segments, segments + other) for other in range(1 - number, PATHS + 1 - number) if other]
                segments += 1
            if not inside or number == 4:
                position += count
    table_SS = torch.ones(segments, segments, dtype=torch.bool)
    for one, other in apart:
        table_SS[one, other] = False
    return Visibility(segment_L[None].to(device), table_SS[None].to(device), position_L[None].to(device))


def seconds(run: Callable[[], Any], device: str) -> float:
    """Wall-clock seconds of one call."""
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - began


def mask_bytes(mask: Tensor | BlockMask) -> int:
    """Bytes of a mask."""
    if isinstance(mask, Tensor):
        return mask.nbytes
    return sum(t.nbytes for t in mask.as_tuple() if isinstance(t, Tensor))


def measure(length: int, heads: int, repeats: int, device: str) -> dict[str, Any]:
    """One length: bytes of the mask, seconds to make it, seconds of a step."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    seen = document(length, device)
    backward = device == "cuda"
    query, key, value = (
        torch.randn(1, heads, length, HEAD, device=device, dtype=dtype, requires_grad=backward) for _ in range(3)
    )
    compiled = torch.compile(flex_attention, dynamic=False)
    made: dict[str, list[float]] = {"dense": [], "block": []}
    took: dict[str, list[float]] = {"dense": [], "block": []}
    sizes: dict[str, int] = {}
    computed = 0.0

    def dense(mask: Any) -> Tensor:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def block(mask: Any) -> Tensor:
        out: Tensor = compiled(query, key, value, block_mask=mask)
        return out

    def step(attend: Callable[[Any], Tensor], mask: Any) -> None:
        out = attend(mask)
        if backward:
            out.sum().backward()

    for repeat in range(repeats + 1):  # the first compiles, and is not recorded
        for name, attend in (("dense", dense), ("block", block)):
            fresh = Visibility(seen.segment_BL, seen.table_BSS, seen.position_BL, kind=name)  # type: ignore[arg-type]
            making = seconds(fresh.mask, device)
            mask = fresh.mask()
            stepping = seconds(lambda attend=attend, mask=mask: step(attend, mask), device)  # type: ignore[misc]
            sizes[name] = mask_bytes(mask)
            if isinstance(mask, BlockMask):
                computed = 1 - mask.sparsity() / 100
            if repeat:
                made[name].append(making)
                took[name].append(stepping)
    return {
        "length": length,
        "bytes": sizes,
        "released_bytes": 4 * length**2,
        "make_s": {name: median(values) for name, values in made.items()},
        "step_s": {name: median(values) for name, values in took.items()},
        "ratio": median(a / b for a, b in zip(took["dense"], took["block"], strict=True)),
        "blocks_computed": computed,
    }


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    what = "forward and backward" if record["backward"] else "forward"
    lines = [
        f"| tokens | released, MiB | dense, MiB | block, KiB | blocks computed | make dense / block, ms "
        f"| {what} dense / block, ms | dense / block |",
        f"|{'---|' * 8}",
    ]
    for row in record["rows"]:
        cells = (
            f"{row['length']:,}",
            f"{row['released_bytes'] / MIB:,.0f}",
            f"{row['bytes']['dense'] / MIB:,.0f}",
            f"{row['bytes']['block'] / 1024:,.0f}",
            f"{row['blocks_computed']:.0%}",
            f"{1e3 * row['make_s']['dense']:,.0f} / {1e3 * row['make_s']['block']:,.0f}",
            f"{1e3 * row['step_s']['dense']:,.0f} / {1e3 * row['step_s']['block']:,.0f}",
            f"{row['ratio']:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"One layer, {record['heads']} heads of {HEAD}. {record['machine']}"])


def main() -> None:
    parser = make_parser(__doc__, json="after every length")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="multiples of 128")
    parser.add_argument("--heads", type=int, default=2 if not torch.cuda.is_available() else 14)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: dict[str, Any] = {"machine": describe(), "heads": options.heads, "backward": device == "cuda", "rows": []}
    for length in track(options.lengths, "masks", console=Console(stderr=True), transient=True):
        record["rows"].append(measure(length, options.heads, options.repeats, device))
        if options.json is not None:
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
