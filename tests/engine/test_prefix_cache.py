"""The prefix cache, against a plain table of prefixes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multiverse.engine import SlotPool
from multiverse.engine.prefix_cache import Keys, Node, PrefixCache, make_keys
from multiverse.structure import Block, Document, encode
from tests.structure.adapted import TOKENS

Ints = NDArray[np.int64]
Prefix = tuple[int, ...]


def keys_of(text: Prefix | str, start: int = 0) -> Keys:
    """Keys of tokens (of letters) one position after the other."""
    ids = [ord(letter) for letter in text] if isinstance(text, str) else list(text)
    return make_keys(np.array(ids, dtype=np.int64), np.arange(start, start + len(ids), dtype=np.int64))


def stored(cache: PrefixCache) -> dict[Prefix, int]:
    """Every prefix that the tree holds, with the slot of its last key."""
    found: dict[Prefix, int] = {}
    stack: list[tuple[Node, Prefix]] = [(cache.root, ())]
    while stack:
        node, before = stack.pop()
        for number, slot in enumerate(node.slots.tolist(), 1):
            found[(*before, *node.keys[:number].tolist())] = slot
        stack += [(child, (*before, *node.keys.tolist())) for child in node.children.values()]
    return found


@dataclass
class Account:
    """A pool with a cache, the locks that are held, and the slots that requests own."""

    pool: SlotPool
    cache: PrefixCache
    locked: list[tuple[Node, Prefix]] = field(default_factory=list)
    owned: list[int] = field(default_factory=list)

    def check(self) -> None:
        kept = self.cache.check_integrity([node for node, _ in self.locked])
        self.pool.check_integrity(self.owned, kept)

    def write(self, keys: Keys) -> tuple[Ints, Node]:
        """What a request does: look up, read the rest into slots of its own, keep all of it; returns the slots kept, locked."""
        node = self.cache.find(keys)
        known = self.cache.path(node)
        self.cache.lock(node)
        own = self.pool.take(len(keys) - len(known))
        end, slots = self.cache.insert(keys, np.concatenate([known, own]))
        self.cache.lock(end)
        self.cache.unlock(node)
        return slots, end


def account(size: int = 60) -> Account:
    pool = SlotPool(size)
    return Account(pool, PrefixCache(pool))


def keep(one: Account, text: str) -> Ints:
    """Write a text and let go of it."""
    slots, node = one.write(keys_of(text))
    one.cache.unlock(node)
    one.check()
    return slots


def known(one: Account, text: str) -> str:
    """As much of a text as the cache knows."""
    found = text[: len(one.cache.path(one.cache.find(keys_of(text))))]
    one.check()
    return found


@given(data=st.data(), rng=st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_the_tree_holds_what_a_table_of_prefixes_holds(data: st.DataObject, rng: random.Random) -> None:
    one = account(data.draw(st.integers(4, 50)))
    pool, cache = one.pool, one.cache
    table: dict[Prefix, int] = {}
    gone = 0
    for step in data.draw(st.lists(st.sampled_from("fiiiluued"), min_size=1, max_size=60)):
        keys = keys_of(tuple(rng.randrange(2) for _ in range(rng.randrange(8))))
        prefixes = [tuple(keys[:n].tolist()) for n in range(1, len(keys) + 1)]
        longest = sum(prefix in table for prefix in prefixes)
        if step in "fl":
            node = cache.find(keys)
            assert cache.path(node).tolist() == [table[prefix] for prefix in prefixes[:longest]]
            assert cache.length(node) == longest
            if step == "l":
                cache.lock(node)
                one.locked.append((node, tuple(keys[:longest].tolist())))
        elif step == "i" and len(keys) <= pool.free:
            # The request has read all of it by itself, whatever the cache had.
            slots = pool.take(len(keys))
            node, after = cache.insert(keys, slots)
            assert after[:longest].tolist() == [table[prefix] for prefix in prefixes[:longest]]
            assert after[longest:].tolist() == slots[longest:].tolist()
            assert cache.path(node).tolist() == after.tolist()
            table |= zip(prefixes, after.tolist(), strict=True)
            one.owned += slots[:longest].tolist()
        elif step == "u" and one.locked:
            cache.unlock(one.locked.pop(rng.randrange(len(one.locked)))[0])
        elif step == "u" and one.owned:
            pool.give_back(one.owned)
            one.owned = []
        elif step == "e":
            held = {path[:n] for _, path in one.locked for n in range(1, len(path) + 1)}
            assert cache.evictable == len(table) - len(held)
            count = rng.randrange(cache.evictable + 1)
            gone += count
            cache.evict(count)
            left = stored(cache)
            assert held <= left.keys() <= table.keys()
            assert len(left) == len(table) - count
            table = {prefix: slot for prefix, slot in table.items() if prefix in left}
        elif step == "d":
            node = cache.find(keys)
            assert cache.length(node) == longest
            cache.discard(node)
            left = stored(cache)
            path = {prefix for prefix in prefixes[:longest] if prefix not in left}
            # Of that way alone, from its end up to where others branch off or somebody reads.
            assert table.keys() - left.keys() == path
            shared = {p[:n] for p in table if p not in prefixes for n in range(len(p))}
            shared |= {p[:n] for _, p in one.locked for n in range(len(p) + 1)}
            assert path == {prefix for prefix in prefixes[:longest] if prefix not in shared}
            table = {prefix: slot for prefix, slot in table.items() if prefix in left}
        one.check()
        assert stored(cache) == table
        assert (pool.cached, pool.owned) == (len(table), len(one.owned))
        assert cache.evicted == gone
    for node, _ in one.locked:
        cache.unlock(node)
    one.locked = []
    cache.clear()
    one.check()
    assert not stored(cache)
    assert (pool.cached, cache.evictable, pool.free) == (0, 0, pool.size - len(one.owned))


def test_nodes_part_where_texts_part() -> None:
    one = account()
    first = keep(one, "abcdef")
    second = keep(one, "abcxy")
    assert second[:3].tolist() == first[:3].tolist()
    assert not set(second[3:]) & set(first)
    assert one.pool.cached == 8
    (top,) = one.cache.root.children.values()
    assert len(top.keys) == 3
    assert sorted(len(node.keys) for node in top.children.values()) == [2, 3]
    assert known(one, "abcdxx") == "abcd"
    assert known(one, "abcxyz") == "abcxy"
    assert known(one, "bc") == ""
    keep(one, "ab")  # known already
    assert one.pool.cached == 8


def test_a_lock_holds_through_a_split() -> None:
    one = account()
    slots, node = one.write(keys_of("abcdef"))
    one.locked.append((node, ()))
    one.check()
    assert known(one, "abx") == "ab"  # cuts the locked node in two
    keep(one, "abxy")
    assert one.cache.path(node).tolist() == slots.tolist()
    assert one.cache.evictable == 2
    one.cache.clear()
    one.check()
    assert (known(one, "abcdef"), known(one, "abxy")) == ("abcdef", "ab")
    one.cache.unlock(node)
    one.locked = []
    one.check()
    assert one.cache.evictable == 6


def test_what_was_used_last_is_evicted_last() -> None:
    one = account()
    for text in ("aaaa", "bbbb", "cccc"):
        keep(one, text)
    assert known(one, "aaaa") == "aaaa"
    one.cache.evict(4)
    one.check()
    assert set(map(chr, (int(key) & 0xFFFFFFFF for key in one.cache.root.children))) == {"a", "c"}
    one.cache.evict(4)
    one.check()
    assert set(map(chr, (int(key) & 0xFFFFFFFF for key in one.cache.root.children))) == {"a"}


def test_ends_go_before_beginnings() -> None:
    one = account()
    keep(one, "headone")
    keep(one, "headtwo")
    one.cache.evict(1)
    # The older end loses its last token; the beginning that both share was used by the newer.
    assert (known(one, "headone"), known(one, "headtwo")) == ("headon", "headtwo")
    one.cache.evict(2 + 3)
    assert (known(one, "headone"), known(one, "headtwo")) == ("head", "head")
    one.cache.evict(1)
    assert known(one, "headtwo") == "hea"
    one.cache.evict(3)
    assert one.pool.free == one.pool.size
    assert one.cache.evicted == 10


def test_only_as_much_is_evicted_as_is_wanted() -> None:
    one = account()
    keep(one, "abcdefgh")
    for count, left in ((3, "abcde"), (0, "abcde"), (4, "a"), (1, "")):
        one.cache.evict(count)
        assert known(one, "abcdefgh") == left
    keep(one, "abcdefgh")
    assert known(one, "abcdefghi") == "abcdefgh"


def test_what_somebody_reads_is_not_evicted() -> None:
    one = account()
    keep(one, "abcdef")
    node = one.cache.find(keys_of("abc"))
    one.cache.lock(node)
    one.cache.lock(node)
    one.locked = [(node, ()), (node, ())]
    assert one.cache.evictable == 3
    with pytest.raises(AssertionError, match="4 slots wanted, 3 can be evicted"):
        one.cache.evict(4)
    one.cache.clear()
    assert known(one, "abcdef") == "abc"
    one.cache.unlock(node)
    one.locked.pop()
    one.check()
    assert one.cache.evictable == 0
    one.cache.unlock(node)
    one.locked.pop()
    one.check()
    assert one.cache.evictable == 3
    with pytest.raises(AssertionError, match="unlocked more often than locked"):
        one.cache.unlock(node)


def test_what_is_not_to_be_trusted_is_given_up() -> None:
    one = account()
    keep(one, "abcd")
    keep(one, "abxy")
    one.cache.discard(one.cache.find(keys_of("abcd")))
    one.check()
    assert (known(one, "abcd"), known(one, "abxy")) == ("ab", "abxy")
    node = one.cache.find(keys_of("abxy"))
    one.cache.lock(node)
    one.cache.discard(node)  # somebody reads it
    one.cache.unlock(node)
    assert known(one, "abxy") == "abxy"
    one.cache.discard(node)
    assert known(one, "abxy") == ""
    one.cache.discard(one.cache.root)
    assert one.pool.free == one.pool.size


def test_the_same_text_at_another_position_is_another_text() -> None:
    one = account()
    slots, node = one.write(keys_of("abab"))
    one.cache.unlock(node)
    assert len(one.cache.path(one.cache.find(keys_of("ab", start=2)))) == 0
    others, node = one.write(keys_of("ab", start=2))
    one.cache.unlock(node)
    one.check()
    assert not set(slots.tolist()) & set(others.tolist())


def test_joined_and_linear_text_never_alias() -> None:
    # The same tokens, once as a block with two paths and once in a line: they part where the second path begins.
    tokens = TOKENS["multiverse"]
    document = Document(("t", Block(("a", "b"), (("one",), ("two, longer",)), "c"), "after"), "A")
    encoded = encode(document, tokens)
    ids = np.array(encoded.token_ids, dtype=np.int64)
    joined = make_keys(ids, np.array(encoded.layout.positions, dtype=np.int64))
    linear = make_keys(ids, np.arange(len(ids), dtype=np.int64))
    second = next(i for i, position in enumerate(encoded.layout.positions) if position != i)
    one = account(2 * len(ids))
    first, node = one.write(joined)
    one.cache.unlock(node)
    assert len(one.cache.path(one.cache.find(linear))) == second < len(ids)
    others, node = one.write(linear)
    one.cache.unlock(node)
    one.check()
    assert set(first.tolist()) & set(others.tolist()) == set(first[:second].tolist())
    assert one.cache.path(one.cache.find(joined)).tolist() == first.tolist()


def test_keys_hold_any_token_and_position() -> None:
    ids, positions = np.array([0, (1 << 31) - 1, 5]), np.array([(1 << 30), 0, 5])
    keys = make_keys(ids, positions)
    assert ((keys & 0xFFFFFFFF) == ids).all()
    assert ((keys >> 32) == positions).all()


def test_a_cache_that_is_off_keeps_nothing() -> None:
    pool = SlotPool(10)
    cache = PrefixCache(pool, enabled=False)
    slots = pool.take(4)
    node, kept = cache.insert(keys_of("abcd"), slots)
    assert (node, len(kept)) == (cache.root, 0)
    assert cache.find(keys_of("abcd")) is cache.root
    assert pool.cached == 0
    pool.give_back(slots)
    pool.check_integrity([], cache.check_integrity([]))


@pytest.mark.parametrize("spoil", ["locked", "evictable", "misplaced", "empty"])
def test_a_false_tree_is_found_out(spoil: str) -> None:
    one = account()
    keep(one, "abcd")
    (node,) = one.cache.root.children.values()
    if spoil == "locked":
        node.locks = 1
    elif spoil == "evictable":
        one.cache.evictable -= 1
    elif spoil == "misplaced":
        node.keys = node.keys[::-1].copy()
    else:
        node.keys, node.slots = node.keys[:0], node.slots[:0]
    messages = {"locked": "locked 1 times, by 0", "evictable": "3 are counted", "misplaced": "looked for", "empty": "is empty"}
    with pytest.raises(AssertionError, match=messages[spoil]):
        one.cache.check_integrity([])
