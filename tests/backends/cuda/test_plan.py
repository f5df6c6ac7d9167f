"""Plans against masks written out; the kernels, and the same in plain torch, against one softmax per row."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.backends.batch import Family
from multiverse.backends.cuda.attention import TiledAttention
from multiverse.backends.cuda.buffers import Capacity, DevicePlan, PlanBuffers
from multiverse.backends.cuda.plan import Plan, Tiling, plan
from multiverse.backends.kv_pool import Call
from tests.backends.cuda.families import TorchTiles, expected, on, random_call, random_family, run, seen
from tests.conftest import DEVICE, cuda

CPU = torch.device("cpu")
SLOTS = 1200

shapes = st.fixed_dictionaries(
    {
        "kv_heads": st.sampled_from([1, 2, 3]),
        "folds": st.sampled_from([1, 2, 5, 7]),
        "size": st.sampled_from([8, 16, 24]),
        "value_size": st.sampled_from([8, 16, 20]),
        "window": st.sampled_from([None, None, 1, 2, 9]),
    }
).map(lambda shape: shape | {"heads": shape["kv_heads"] * shape["folds"]})


def draw_families(seed: int, count: int) -> list[Family]:
    rng = random.Random(seed)
    slots = list(range(SLOTS))
    rng.shuffle(slots)
    families: list[Family] = []
    for _ in range(count):
        families.append(random_family(rng, sum(len(family.rows) for family in families), slots))
    return families


def reads(found: Plan, rows: int) -> list[list[int]]:
    """The slots that each row reads, by its partials."""
    tiles = np.concatenate([found.narrow, found.wide])
    slots_of: dict[int, list[int]] = {}
    row_of: dict[int, int] = {}
    for first_entry, count, first, end, first_partial in tiles:
        for number in range(count):
            row, begin, stop = found.entries[first_entry + number]
            slots_of[first_partial + number] = found.slots[max(first, begin) : max(first, begin, min(end, stop))].tolist()
            row_of[first_partial + number] = row
    lists: list[list[int]] = []
    for row in range(rows):
        own = found.partials[found.offsets[row] : found.offsets[row + 1]].tolist()
        assert all(row_of[partial] == row for partial in own)
        lists.append([slot for partial in own for slot in slots_of[partial]])
    assert sorted(found.partials.tolist()) == sorted(slots_of)
    return lists


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 4),
    window=st.sampled_from([None, None, 1, 3, 10]),
    tiling=st.builds(
        Tiling, st.sampled_from([1, 2]), st.sampled_from([3, 9]), st.sampled_from([4, 16]), st.sampled_from([1, 20])
    ),
)
@settings(max_examples=60)
def test_every_row_reads_what_it_may_and_nothing_twice(seed: int, count: int, window: int | None, tiling: Tiling) -> None:
    families = draw_families(seed, count)
    rows = sum(len(family.rows) for family in families)
    found = plan(families, rows + 2, tiling, window)
    lists = reads(found, rows + 2)
    assert lists[rows:] == [[], []]
    for family in families:
        for row, mask in zip(family.rows, seen(family, window), strict=True):
            assert sorted(lists[row]) == sorted(family.slots[mask.numpy()].tolist())
    for tiles, most in ((found.narrow, tiling.narrow), (found.wide, tiling.wide)):
        assert all(0 < count <= most and end > first for _, count, first, end, _ in tiles)
    # The bounds by which memory is set aside.
    assert len(found.narrow) + len(found.wide) <= tiling.tiles + len(found.entries)
    assert len(found.partials) <= tiling.wide * tiling.tiles + len(found.entries)


def test_the_plan_of_the_module_docstring() -> None:
    # a b | c d | e, rows d and e.
    visible = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=bool)
    family = Family(np.arange(2), np.array([9, 8, 7, 6, 5]), np.array([0, 1, 2, 3, 2]), np.array([0, 0, 1, 1, 2]), visible)
    found = plan([family], 2, Tiling(1, 4, 16, 1))
    assert found.slots.tolist() == [9, 8, 7, 6, 5]
    assert found.entries.tolist() == [[0, 0, 2], [1, 0, 2], [0, 2, 4], [1, 4, 5]]
    assert found.wide.tolist() == [[0, 2, 0, 2, 0]]
    assert found.narrow.tolist() == [[2, 1, 2, 4, 2], [3, 1, 4, 5, 3]]
    assert found.partials.tolist() == [0, 2, 1, 3]
    assert found.offsets.tolist() == [0, 2, 4]


def test_a_shared_trunk_is_in_the_plan_once() -> None:
    # Sixteen branches behind a trunk of a thousand: its slots are there once, for all of them.
    trunk, width = 1000, 16
    visible = np.ones((width + 1, width + 1), dtype=bool)
    visible[1:, 1:] = np.eye(width, dtype=bool)
    owners = np.concatenate([np.zeros(trunk, dtype=np.int64), np.tile(np.arange(1, width + 1), 3)])
    count = len(owners)
    positions = np.concatenate([np.arange(trunk), np.repeat(np.arange(trunk, trunk + 3), width)])
    family = Family(np.arange(width), np.arange(count), positions, owners, visible)
    found = plan([family], width, Tiling(2, 16, 64, 8))
    assert len(found.slots) == count
    assert found.wide[:, 1].tolist() == [width] * len(found.wide)
    assert sum(end - first for _, _, first, end, _ in found.wide) == trunk
    assert len(found.narrow) == width


@given(seed=st.integers(0, 2**31), count=st.integers(1, 3), shape=shapes)
@settings(max_examples=25)
def test_plain_torch_agrees_with_one_softmax_per_row(seed: int, count: int, shape: dict[str, Any]) -> None:
    families = draw_families(seed, count)
    call = random_call(seed, shape, families, SLOTS, spare=1)
    out_NHV = run(TorchTiles(), call, families)
    torch.testing.assert_close(out_NHV, expected(call, families), atol=1e-5, rtol=1e-4)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 3), shape=shapes)
@settings(max_examples=4)
def test_the_kernels_agree_with_one_softmax_per_row(seed: int, count: int, shape: dict[str, Any]) -> None:
    # On the CPU in Triton's interpreter, under `make gpu-check` on the GPU.
    pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")
    families = draw_families(seed, count)
    call = random_call(seed, shape, families, SLOTS, spare=1)
    out_NHV = run(TiledAttention(programs=4), on(call, DEVICE), families)
    torch.testing.assert_close(out_NHV, expected(call, families), atol=1e-5, rtol=1e-4)


# The interpreter multiplies the bits of bfloat16 as whole numbers.
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=cuda)])
def test_the_kernels_in_half_precision(dtype: torch.dtype) -> None:
    # Inputs are rounded for both sides, so what is left is the rounding of weights and of the output.
    pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")
    families = draw_families(7, 2)
    shape = {"heads": 14, "kv_heads": 2, "size": 16, "value_size": 16, "window": None}
    call = on(random_call(7, shape, families, SLOTS), DEVICE, dtype)
    out_NHV = run(TiledAttention(programs=4), call, families)
    torch.testing.assert_close(out_NHV, expected(on(call, "cpu", torch.float32), families), atol=2e-2, rtol=2e-2)


def test_kernels_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")
    attention = TiledAttention(programs=4)
    attention.check(torch.device(DEVICE), torch.float32)
    launch = attention.launch

    def wrong(call: Call, work: DevicePlan) -> None:
        launch(call, work)
        call.out_NHV[1, 3] += 0.1

    monkeypatch.setattr(attention, "launch", wrong)
    with pytest.raises(RuntimeError, match="other results than torch"):
        attention.check(torch.device(DEVICE), torch.float32)


@pytest.mark.parametrize(
    "kind", ["narrow", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("wide", "small", "linears"))]
)
def test_the_kernels_compile_for_a_gpu_that_is_not_there(kind: str) -> None:
    # Triton brings NVIDIA's assembler. Not in this process, where Triton's functions are made for the interpreter.
    pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    program = [sys.executable, "-W", "error", "-m", "tests.backends.cuda.compile_kernels", kind]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    # The largest numbers of registers and of bytes spilled to memory.
    registers, spilled = map(int, done.stdout.split())
    assert registers <= 255
    assert spilled <= 64  # a few numbers of the wide tiles': twice the warps spill none, and take twice as long


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_buffers_are_written_again_and_again(seed: int) -> None:
    # The tensors stay where they are; what an earlier plan left in them does no harm.
    plans = [(draw_families(seed + i, 1 + i % 3), i) for i in range(4)]
    tiling = Tiling(2, 9, 16, 8)
    made = [plan(families, sum(len(f.rows) for f in families), tiling) for families, _ in plans]
    largest = Capacity(*(max(column) for column in zip(*map(Capacity.of, made), strict=True)))
    buffers = PlanBuffers(largest._replace(rows=largest.rows + 3), CPU)
    shape = {"heads": 4, "kv_heads": 2, "size": 8, "value_size": 8, "window": None}
    places = [part.data_ptr() for part in buffers.plan[:-1]]  # type: ignore[union-attr]
    for (families, number), one in zip(plans, made, strict=True):
        rows = sum(len(family.rows) for family in families)
        call = random_call(number, shape, families, SLOTS, spare=largest.rows + 3 - rows)
        TorchTiles().launch(call, buffers.fill(one))
        torch.testing.assert_close(call.out_NHV, expected(call, families), atol=1e-5, rtol=1e-4)
    assert places == [part.data_ptr() for part in buffers.plan[:-1]]  # type: ignore[union-attr]


def test_a_capacity_knows_what_it_holds() -> None:
    (family,) = draw_families(3, 1)
    found = plan([family], len(family.rows), Tiling(2, 9, 16, 8))
    exact = Capacity.of(found)
    assert exact.holds(found)
    for name in exact._fields:
        if getattr(exact, name):
            assert not exact._replace(**{name: getattr(exact, name) - 1}).holds(found)
