"""The account of slots."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.engine import SlotPool


@given(size=st.integers(1, 40), rng=st.randoms(use_true_random=False), steps=st.integers(1, 60))
@settings(max_examples=60)
def test_every_slot_is_free_cached_or_owned(size: int, rng: random.Random, steps: int) -> None:
    pool = SlotPool(size)
    owned: list[list[int]] = []
    cached: list[list[int]] = []
    for _ in range(steps):
        kind = rng.choice(["take", "give back", "cache", "evict"])
        if kind == "take":
            owned.append(pool.take(rng.randrange(pool.free + 1)).tolist())
        elif kind == "evict" and cached:
            pool.evict(np.array(cached.pop(rng.randrange(len(cached))), dtype=np.int64))
        elif owned:
            slots = owned.pop(rng.randrange(len(owned)))
            if kind == "cache":
                pool.cache(np.array(slots, dtype=np.int64))
                cached.append(slots)
            else:
                pool.give_back(np.array(slots, dtype=np.int64) if rng.random() < 0.5 else slots)
        everyone = [slot for slots in owned + cached for slot in slots]
        assert len(set(everyone)) == len(everyone)
        assert all(0 <= slot < size for slot in everyone)
        assert pool.free == size - len(everyone)
        assert pool.cached == sum(map(len, cached))
        assert pool.owned == sum(map(len, owned))
        own = [slot for slots in owned for slot in slots]
        kept = [slot for slots in cached for slot in slots]
        assert pool.owns(np.arange(size)).tolist() == [slot in own for slot in range(size)]
        pool.check_integrity(own, kept)
        pool.check_integrity()
    for slots in owned:
        pool.give_back(slots)
    for slots in cached:
        pool.evict(np.array(slots, dtype=np.int64))
    pool.check_integrity([], [])
    assert sorted(pool.take(size)) == list(range(size))


def test_more_than_is_free_cannot_be_taken() -> None:
    pool = SlotPool(4)
    pool.take(3)
    with pytest.raises(AssertionError, match="2 slots wanted, 1 free"):
        pool.take(2)
    pool.check_integrity()
    assert pool.free == 1


def test_only_what_is_owned_can_be_returned_or_cached_and_only_what_is_cached_evicted() -> None:
    pool = SlotPool(6)
    returned, cached, owned = pool.take(2), pool.take(2), pool.take(1)
    pool.give_back(returned)
    pool.cache(cached)
    free = returned
    moves = ((pool.give_back, free), (pool.give_back, cached), (pool.cache, free), (pool.cache, cached), (pool.evict, owned))
    for move, slots in (*moves, (pool.give_back, np.array([5])), (pool.give_back, np.concatenate([owned, free]))):
        before = pool._state.copy()
        with pytest.raises(AssertionError, match="not in the expected state"):
            move(slots)
        assert (pool._state == before).all()


@pytest.mark.parametrize("move", ["give_back", "cache"])
def test_a_slot_listed_twice_is_an_error(move: str) -> None:
    pool = SlotPool(4)
    slot = int(pool.take(2)[0])
    with pytest.raises(AssertionError, match="listed twice"):
        getattr(pool, move)(np.array([slot, slot]))


def test_nothing_can_be_moved_at_no_cost() -> None:
    pool = SlotPool(3)
    nothing = pool.take(0)
    for move in (pool.give_back, pool.cache, pool.evict):
        move(nothing)
    assert (pool.free, pool.cached, pool.owned) == (3, 0, 0)
    pool.check_integrity([], [])


@pytest.mark.parametrize("spoil", ["in the free list twice", "both free and taken", "slot counts do not add up"])
def test_an_inconsistent_pool_is_an_error(spoil: str) -> None:
    pool = SlotPool(4)
    slots = pool.take(2)
    if spoil == "in the free list twice":
        pool._stack[0] = pool._stack[1]
    elif spoil == "both free and taken":
        pool._stack[0] = slots[0]
    else:
        pool.free -= 1
    with pytest.raises(AssertionError, match=spoil):
        pool.check_integrity()


def test_given_slots_are_compared_with_the_states() -> None:
    pool = SlotPool(6)
    own, kept = pool.take(2).tolist(), pool.take(1).tolist()
    pool.cache(np.array(kept))
    pool.check_integrity(own, kept)
    claims: tuple[tuple[list[int], list[int], str], ...] = (
        (own[:1], kept, "owned slots differ"),
        ([*own, 5], kept, "owned slots differ"),
        ([*own, own[0]], kept, "owned twice"),
        (own, [], "cached slots differ"),
        (own, own, "cached slots differ"),
        (own, kept * 2, "cached twice"),
    )
    for owned, cached, problem in claims:
        with pytest.raises(AssertionError, match=problem):
            pool.check_integrity(owned, cached)
