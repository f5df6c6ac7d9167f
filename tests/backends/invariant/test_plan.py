"""The plan of batch-invariant attention, in plain torch and by the native kernels: right, and the same bits in every batch."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multiverse.backends.batch import Family
from multiverse.backends.cpu.backend import CpuBackend
from multiverse.backends.cpu.build import kernels
from multiverse.backends.invariant.attention import TilePlans
from multiverse.backends.invariant.plan import plan_tiles
from multiverse.backends.kv_pool import Call
from multiverse.backends.torch import TorchBackend
from tests.backends.cuda.families import expected

SLOTS = 2400


def forked_family(rng: random.Random, start: int, slots: list[int], *, trunk: int, rows: int) -> Family:
    """The newest rows of a request: a trunk, three paths (a block of two in the second), the trunk again, generated in turn."""
    parents = [-1, 0, 0, 0, 2, 2]
    visible = np.ones((6, 6), dtype=bool)
    for one, other in ((1, 2), (1, 3), (2, 3), (1, 4), (1, 5), (3, 4), (3, 5), (4, 5)):
        visible[one, other] = visible[other, one] = False
    tokens = [(0, position) for position in range(trunk)]
    inner = trunk + 5
    outer = [(branch, trunk + at) for branch, size in ((1, 9), (2, 5), (3, 13)) for at in range(size)]
    nested = [(branch, inner + at) for branch, size in ((4, 7), (5, 4)) for at in range(size)]
    rng.shuffle(outer)
    outer.sort(key=lambda token: token[1])
    tokens += [*outer, *nested, *((2, inner + 7 + at) for at in range(3)), *((0, inner + 10 + at) for at in range(6))]
    assert len(parents) == len(visible)
    owners, positions = (np.array(column) for column in zip(*tokens, strict=True))
    own = np.array([slots.pop() for _ in tokens])
    return Family(np.arange(start, start + rows), own, positions, owners, visible, ranks=np.array([0, 1, 2, 5, 3, 4]))


def families_of(seed: int) -> tuple[list[Family], int]:
    """Requests of all kinds in one forward: long and short, decoding and prefilling; and the number of rows."""
    rng = random.Random(seed)
    slots = list(range(SLOTS))
    rng.shuffle(slots)
    families, start = [], 0
    for trunk, rows in ((3, 50), (300, 9), (520, 2), (130, 70), (256, 1), (41, 20)):
        families.append(forked_family(rng, start, slots, trunk=trunk, rows=rows))
        start += rows
    for length, rows in ((1, 1), (257, 1), (64, 33)):  # plain ones
        every = np.arange(length)
        own = np.array([slots.pop() for _ in every])
        families.append(Family(np.arange(start, start + rows), own, every, every * 0, np.ones((1, 1), dtype=bool)))
        start += rows
    return families, start


def random_call(rows: int, shape: dict[str, Any], window: int | None, dtype: torch.dtype) -> Call:
    generator = torch.Generator().manual_seed(3)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(dtype)

    heads, kv_heads = shape["heads"], shape["kv_heads"]
    query, key = normal(rows, heads, shape["size"]), normal(SLOTS, kv_heads, shape["size"])
    out = torch.full((rows, heads, shape["value_size"]), math.nan, dtype=dtype)
    return Call(query, key, normal(SLOTS, kv_heads, shape["value_size"]), out, 0.3, window)


def attend(backend: TorchBackend, call: Call, families: list[Family], most_partials: int | None = None) -> Tensor:
    """A copy of the output."""
    rows = len(call.query_NHD)
    plans = TilePlans(families, rows, chunk=backend.chunk, tile_rows=backend.tile_rows, most_partials=most_partials)
    for tiles in plans.of(call.window):
        backend.attend_tiles(call, tiles)
    return call.out_NHV.clone()


def native() -> CpuBackend:
    library = kernels()
    if library is None:
        pytest.skip("no compiler, or a processor without AVX-512 for bfloat16")
    backend = CpuBackend(deterministic=True)
    backend.use_library(library)
    return backend


BACKENDS = {"torch": TorchBackend, "native": native}
PLAIN, ODD = (
    {"heads": 6, "kv_heads": 2, "size": 64, "value_size": 64},
    {"heads": 4, "kv_heads": 4, "size": 24, "value_size": 40},
)


@pytest.mark.parametrize("make", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize(
    ("shape", "window", "dtype"),
    [
        (PLAIN, None, torch.float32),
        (PLAIN, 19, torch.bfloat16),
        (PLAIN, None, torch.bfloat16),
        (ODD, 19, torch.float32),
        (ODD, None, torch.bfloat16),
    ],
)
def test_right_and_the_same_bits_alone_together_and_row_by_row(
    make: Any, shape: dict[str, Any], window: int | None, dtype: torch.dtype
) -> None:
    backend: TorchBackend = make()
    families, rows = families_of(0)
    call = random_call(rows, shape, window, dtype)
    found_NHV = attend(backend, call, families)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        found_NHV.float(), expected(call._replace(query_NHD=call.query_NHD), families), atol=tolerance, rtol=tolerance
    )
    assert torch.equal(attend(backend, call, families, most_partials=40), found_NHV)  # in several plans
    for family in families:
        first, last = int(family.rows[0]), int(family.rows[-1]) + 1
        for start, end in ((first, last), (last - 1, last), (first, first + 1)):
            cut = last - end
            alone = family._replace(
                rows=np.arange(end - start),
                slots=family.slots[: len(family.slots) - cut],
                positions=family.positions[: len(family.positions) - cut],
                owners=family.owners[: len(family.owners) - cut],
            )
            own = call._replace(query_NHD=call.query_NHD[start:end].clone(), out_NHV=torch.zeros_like(call.out_NHV[start:end]))
            assert torch.equal(attend(backend, own, [alone]), found_NHV[start:end])


def test_the_order_of_computation_and_the_slots_change_nothing() -> None:
    backend = TorchBackend()
    (family, *_), _ = families_of(0)
    family = family._replace(rows=np.arange(1))
    call = random_call(1, PLAIN, None, torch.float32)
    found_NHV = attend(backend, call, [family])
    # In document order, and elsewhere in memory.
    assert family.ranks is not None
    order = np.lexsort((family.positions, family.ranks[family.owners]))
    order = np.concatenate([order[order != len(order) - 1], [len(order) - 1]])  # the row is the newest
    moved = np.arange(len(order)) + 1000
    key_SKD, value_SKV = call.key_SKD.clone(), call.value_SKV.clone()
    key_SKD[moved], value_SKV[moved] = call.key_SKD[family.slots[order]], call.value_SKV[family.slots[order]]
    other = family._replace(slots=moved, positions=family.positions[order], owners=family.owners[order])
    assert torch.equal(attend(backend, call._replace(key_SKD=key_SKD, value_SKV=value_SKV), [other]), found_NHV)


def test_what_all_branches_share_is_read_once() -> None:
    rng = random.Random(0)
    family = forked_family(rng, 0, list(range(600)), trunk=300, rows=1)
    # Three paths, the newest token of each a row.
    keep = np.concatenate([np.arange(300), *(np.flatnonzero(family.owners == branch)[:3] for branch in (1, 2, 3))])
    keep = np.concatenate([keep[:300], keep[300:].reshape(3, 3).T.flatten()])
    family = family._replace(
        rows=np.arange(3), slots=family.slots[keep], positions=family.positions[keep], owners=family.owners[keep]
    )
    (plan,) = plan_tiles([family], 3, chunk=100, tile_rows=8)
    sizes = sorted((int(high - low), int(count)) for _, count, low, high in plan.tiles)
    assert sizes == [(3, 1), (3, 1), (3, 1), (100, 3), (100, 3), (100, 3)]
    assert len(plan.slots) == 300 + 3 * 3
    assert plan.offsets.tolist() == [0, 4, 8, 12]


def test_rows_of_no_family_are_left_alone() -> None:
    for backend in (TorchBackend(), native()):
        call = random_call(3, PLAIN, None, torch.float32)
        family = Family(np.array([1]), np.arange(5), np.arange(5), np.zeros(5, dtype=np.int64), np.ones((1, 1), dtype=bool))
        found_NHV = attend(backend, call, [family])
        assert found_NHV[1].isfinite().all()
        assert found_NHV[[0, 2]].isnan().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    families, rows = families_of(1)
    call = random_call(rows, PLAIN, None, torch.bfloat16)
    found_NHV, before = attend(native(), call, families), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(attend(native(), call, families), found_NHV)
    finally:
        torch.set_num_threads(before)
