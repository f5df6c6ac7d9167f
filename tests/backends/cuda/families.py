"""Random families for tests of plans, and the Triton kernels in plain torch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiverse import LLM
from multiverse.backends.batch import Family
from multiverse.backends.cuda.attention import TiledAttention
from multiverse.backends.cuda.backend import CudaBackend
from multiverse.backends.cuda.buffers import NARROW, WIDE, DevicePlan, send
from multiverse.backends.cuda.cuda_graphs import Step
from multiverse.backends.cuda.plan import plan
from multiverse.backends.kv_pool import Call
from multiverse.engine.scripted import ScriptedSampler


class TorchTiles(TiledAttention):
    """What the kernels do, tile by tile, in plain torch: quick enough for long runs on a CPU."""

    def __init__(self, programs: int = 8, *, deterministic: bool = False) -> None:
        super().__init__(programs, deterministic=deterministic)

    def launch(self, call: Call, work: DevicePlan) -> None:
        heads, kv_heads = call.query_NHD.shape[1], call.value_SKV.shape[1]
        head_H = torch.arange(heads) * kv_heads // heads
        partial_PHV = torch.full((work.capacity, heads, call.value_SKV.shape[2]), math.nan)
        lse_PH = torch.full((work.capacity, heads), math.nan)
        for tiles, count in ((work.narrow, NARROW), (work.wide, WIDE)):
            for first_entry, rows, first, end, first_partial in tiles[: 5 * int(work.counts[count])].view(-1, 5).tolist():
                entry = work.entries[3 * first_entry : 3 * (first_entry + rows)].view(-1, 3).long()
                slots = work.slots[first:end].long()
                key, value = call.key_SKD[slots].float()[:, head_H], call.value_SKV[slots].float()[:, head_H]
                score = torch.einsum("rhd,uhd->rhu", call.query_NHD[entry[:, 0]].float(), key) * call.scale
                index = torch.arange(first, end)
                seen = (index >= entry[:, 1:2]) & (index < entry[:, 2:3])
                score.masked_fill_(~seen[:, None], -math.inf)
                lse = score.logsumexp(-1)
                weight = (score - torch.where(lse.isfinite(), lse, 0.0)[..., None]).exp()
                partial_PHV[first_partial : first_partial + rows] = torch.einsum("rhu,uhv->rhv", weight, value)
                lse_PH[first_partial : first_partial + rows] = lse
        for row in range(len(call.out_NHV)):
            own = work.partials[int(work.offsets[row]) : int(work.offsets[row + 1])].long()
            share = lse_PH[own].softmax(0) if len(own) else lse_PH[own]
            call.out_NHV[row] = (share[..., None] * partial_PHV[own]).sum(0)


def replay_in_place(step: Step) -> tuple[Callable[[], object], Tensor]:
    """Instead of a CUDA graph: the step itself, whose result goes to the same place every time."""
    logits = step().clone()
    return lambda: logits.copy_(step()), logits


def on_cuda_backend(llm: LLM, attention: TiledAttention, *, graphs: bool = True) -> LLM:
    """Let an engine run by the CUDA backend, on the CPU."""
    engine, capture = llm.engine, replay_in_place if graphs else None
    backend = CudaBackend(torch.device("cpu"), attention, capture, packed_linears=False)
    backend.prepare(engine.loaded.model, engine.loaded.path)
    engine.backend = backend.allocate(engine.backend.num_slots * backend._probe())
    engine.sampler = ScriptedSampler()
    return llm


def random_family(rng: random.Random, start: int, slots: list[int]) -> Family:
    """A request somewhere in its life: nested blocks open and closed, a prompt half read, several tokens of a branch at once.

    Args:
        start: first of its rows in the forward.
        slots: free slots, of which it takes what it needs.
    """
    parents, hidden, owners, positions = [-1], set(), [], []
    position = [0]
    for _ in range(rng.randint(0, 5)):
        parent = rng.randrange(len(parents))
        for _ in range(rng.randint(0, 12)):
            owners.append(parent)
            positions.append(position[parent])
            position[parent] += 1
        children = range(len(parents), len(parents) + rng.randint(1, 4))
        for child in children:
            # It sees whom its parent sees, its siblings excepted.
            hidden |= {(child, other) for other in range(len(parents)) if (parent, other) in hidden}
            hidden |= {(child, sibling) for sibling in children if sibling != child}
            hidden |= {(other, child) for other in range(len(parents)) if (other, parent) in hidden}
            parents.append(parent)
            position.append(position[parent])
        line = [child for child in children for _ in range(rng.randint(0, 9))]
        rng.shuffle(line)
        for child in line:
            owners.append(child)
            positions.append(position[child])
            position[child] += 1
        if rng.random() < 0.5:  # joined: the trunk goes on behind the longest
            position[parent] = max(position[child] for child in children)
    rows = rng.randint(1, 14)
    for _ in range(rows):
        branch = rng.randrange(len(parents))
        owners.append(branch)
        positions.append(position[branch])
        position[branch] += 1
    count = len(parents)
    visible = np.ones((count, count), dtype=bool)
    for one, other in hidden:
        visible[one, other] = visible[other, one] = False
    own = [slots.pop() for _ in owners]
    return Family(np.arange(start, start + rows), np.array(own), np.array(positions), np.array(owners), visible)


def seen(family: Family, window: int | None) -> Tensor:
    """Which of the family's reads each of its rows may read [R, U], written out."""
    count, rows = len(family.slots), len(family.rows)
    order = np.arange(count)
    mask = order[None, :] <= order[-rows:, None]
    mask &= family.visible[family.owners[-rows:]][:, family.owners]
    if window is not None:
        mask &= family.positions[-rows:, None] - family.positions[None, :] < window
    return torch.from_numpy(mask)


def expected(call: Call, families: list[Family]) -> Tensor:
    """Output of every row by one masked softmax over its family's slots; zeros for rows of no family."""
    out_NHV = torch.zeros(*call.query_NHD.shape[:2], call.value_SKV.shape[2])
    heads, kv_heads = call.query_NHD.shape[1], call.value_SKV.shape[1]
    head_H = torch.arange(heads) * kv_heads // heads
    for family in families:
        rows, slots = torch.from_numpy(family.rows), torch.from_numpy(family.slots)
        key, value = call.key_SKD[slots].double()[:, head_H], call.value_SKV[slots].double()[:, head_H]
        score = torch.einsum("rhd,uhd->rhu", call.query_NHD[rows].double(), key) * call.scale
        score.masked_fill_(~seen(family, call.window)[:, None], -math.inf)
        out_NHV[rows] = torch.einsum("rhu,uhv->rhv", score.softmax(-1), value).float()
    return out_NHV


def random_call(seed: int, shape: dict[str, Any], families: list[Family], slots: int, spare: int = 0) -> Call:
    """Random queries and pools for these families, the output full of not-a-number; `spare` more rows belong to nobody."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    rows = sum(len(family.rows) for family in families) + spare
    heads, kv_heads, size, value_size = shape["heads"], shape["kv_heads"], shape["size"], shape["value_size"]
    return Call(
        normal(rows, heads, size),
        normal(slots, kv_heads, size),
        normal(slots, kv_heads, value_size),
        torch.full((rows, heads, value_size), math.nan),
        0.3,
        shape["window"],
    )


def run(attention: TiledAttention, call: Call, families: list[Family]) -> Tensor:
    """The call's output, from the plan that the attention's tiling gives."""
    attention.heads = call.query_NHD.shape[1], call.value_SKV.shape[1]
    attention.launch(call, send(plan(families, len(call.query_NHD), attention.tiling, call.window), call.query_NHD.device))
    return call.out_NHV.float().cpu()


def on(call: Call, device: str, dtype: torch.dtype = torch.float32) -> Call:
    """The same call elsewhere, or in another type."""
    return call._replace(
        query_NHD=call.query_NHD.to(device, dtype),
        key_SKD=call.key_SKD.to(device, dtype),
        value_SKV=call.value_SKV.to(device, dtype),
        out_NHV=call.out_NHV.to(device, dtype),
    )
