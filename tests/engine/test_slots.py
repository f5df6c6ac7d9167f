"""The account of slots."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.engine import SlotPool


@given(size=st.integers(1, 40), rng=st.randoms(use_true_random=False), steps=st.integers(1, 60))
def test_every_slot_is_free_or_owned(size: int, rng: random.Random, steps: int) -> None:
    pool = SlotPool(size)
    owned: list[list[int]] = []
    for _ in range(steps):
        if owned and rng.random() < 0.5:
            slots = owned.pop(rng.randrange(len(owned)))
            pool.give_back(np.array(slots, dtype=np.int64) if rng.random() < 0.5 else slots)
        else:
            slots = pool.take(rng.randrange(pool.free + 1))
            owned.append(slots)
        everyone = [slot for slots in owned for slot in slots]
        assert len(set(everyone)) == len(everyone)
        assert all(0 <= slot < size for slot in everyone)
        assert pool.free == size - len(everyone)
        pool.check_integrity()
    for slots in owned:
        pool.give_back(slots)
    pool.check_integrity()
    assert sorted(pool.take(size)) == list(range(size))


def test_more_than_is_free_cannot_be_taken() -> None:
    pool = SlotPool(4)
    pool.take(3)
    with pytest.raises(AssertionError, match="2 slots wanted, 1 free"):
        pool.take(2)
    pool.check_integrity()
    assert pool.free == 1


def test_what_nobody_owns_cannot_be_returned() -> None:
    pool = SlotPool(4)
    slots = pool.take(2)
    pool.give_back(slots)
    with pytest.raises(AssertionError, match="nobody owned"):
        pool.give_back(slots)
    with pytest.raises(AssertionError, match="nobody owned"):
        pool.give_back([0])
    pool.check_integrity()


@pytest.mark.parametrize("spoil", ["free twice", "free and owned", "neither"])
def test_a_false_account_is_found_out(spoil: str) -> None:
    pool = SlotPool(4)
    slots = pool.take(2)
    if spoil == "free twice":
        pool._free.append(pool._free[0])
    elif spoil == "free and owned":
        pool._free.append(slots[0])
    else:
        pool._free.pop()
    with pytest.raises(AssertionError, match=spoil if spoil != "free twice" else "free list twice"):
        pool.check_integrity()
