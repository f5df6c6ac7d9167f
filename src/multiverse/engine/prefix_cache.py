"""Prefix cache: a radix tree over (token, position) that keeps computed slots for prompts with the same beginning. Torch-free.

The key of a token is its id and its position, in document order. After a join positions go back and on, so joined text and
the same text written in a line never share a node, although their tokens are the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from .slots import SlotPool

Keys = NDArray[np.int64]


def make_keys(token_ids: NDArray[np.int64], positions: NDArray[np.int64]) -> Keys:
    """Token id and position of each token, packed into one integer; positions of long texts are raised by `LONG`."""
    return (positions << 32) | token_ids


class Node:
    """A stretch of tokens that follows what its ancestors hold.

    Attributes:
        keys, slots: one entry a token.
        locks: how many running requests use it or a node below it; a locked node is not evicted.
        used: when it was last looked up, in ticks of the cache.
    """

    __slots__ = ("children", "keys", "locks", "parent", "slots", "used")

    def __init__(self, keys: Keys, slots: NDArray[np.int64], parent: Node | None) -> None:
        self.keys, self.slots, self.parent = keys, slots, parent
        self.children: dict[int, Node] = {}
        self.locks = 0
        self.used = 0


class PrefixCache:
    """Keeps slots of finished and preempted requests until the pool runs short.

    Attributes:
        queries: tokens that admitted requests looked up.
        hits: those that were found.
        evicted: tokens that were evicted.
        evictable: slots that no running request uses.
        version: changes whenever a lookup could have another result.
    """

    def __init__(self, pool: SlotPool, *, enabled: bool = True) -> None:
        self.pool = pool
        self.enabled = enabled
        self.root = Node(np.empty(0, np.int64), np.empty(0, np.int64), None)
        self.queries = self.hits = self.evicted = self.evictable = self.version = 0
        self._clock = count(1)

    def find(self, keys: Keys) -> Node:
        """The node at which the longest cached beginning of the keys ends; its tokens are those on the way from the root."""
        node, at, now = self.root, 0, next(self._clock)
        while self.enabled and at < len(keys):
            child = node.children.get(int(keys[at]))
            if child is None:
                break
            same = _common(child.keys, keys[at:])
            if same < len(child.keys):
                child = self._split(child, same)
            node, at = child, at + same
            node.used = now
        return node

    def count(self, queries: int, hits: int) -> None:
        """A request was admitted that looked up so many tokens, and found so many."""
        self.queries += queries
        self.hits += hits

    def length(self, node: Node) -> int:
        """Number of tokens from the root to this node."""
        return sum(len(step.slots) for step in _upward(node))

    def path(self, node: Node) -> NDArray[np.int64]:
        """Slots of everything from the root to this node."""
        parts = [step.slots for step in _upward(node)][::-1]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def insert(self, keys: Keys, slots: NDArray[np.int64]) -> tuple[Node, NDArray[np.int64]]:
        """Insert computed tokens of a request.

        The slots of tokens that were not cached go over to the cache; for the others the cache has its own slots, and the
        request keeps those it came with.

        Returns:
            The node at which the keys end, and the cache's slots for all of them.
        """
        node = self.find(keys)
        known = self.path(node)
        if len(known) == len(keys) or not self.enabled:
            return node, known
        at = len(known)
        leaf = Node(keys[at:].copy(), slots[at:].copy(), node)
        leaf.used = next(self._clock)
        node.children[int(keys[at])] = leaf
        self.pool.cache(leaf.slots)
        self.evictable += len(leaf.slots)
        self.version += 1
        return leaf, np.concatenate([known, leaf.slots])

    def lock(self, node: Node) -> None:
        """A running request uses this node and all above it."""
        self.version += 1
        for step in _upward(node):
            if not step.locks:
                self.evictable -= len(step.slots)
            step.locks += 1

    def unlock(self, node: Node) -> None:
        """Undo one `lock`."""
        self.version += 1
        for step in _upward(node):
            step.locks -= 1
            assert step.locks >= 0, "a node was unlocked more often than locked"
            if not step.locks:
                self.evictable += len(step.slots)

    def evict(self, count: int) -> None:
        """Free at least `count` slots, least recently used first, from the ends of the tree."""
        self.version += 1
        assert count <= self.evictable, f"{count} slots wanted, {self.evictable} can be evicted"
        heap = [(node.used, id(node), node) for node in self._nodes() if not node.children and not node.locks]
        heapq.heapify(heap)
        while count > 0:
            _, _, node = heapq.heappop(heap)
            # Only as much as is needed: the beginning of a long stretch stays useful without its end.
            gone = min(count, len(node.slots))
            keep = len(node.slots) - gone
            self.pool.evict(node.slots[keep:])
            self.evictable -= gone
            self.evicted += gone
            count -= gone
            if keep:
                node.keys, node.slots = node.keys[:keep], node.slots[:keep]
                return
            parent = node.parent
            assert parent is not None
            del parent.children[int(node.keys[0])]
            if parent is not self.root and not parent.children and not parent.locks:
                heapq.heappush(heap, (parent.used, id(parent), parent))

    def discard(self, node: Node) -> None:
        """Evict a node whose contents may be wrong, and what is above it, as far as no running request uses it."""
        self.version += 1
        step: Node | None = node
        while step is not None and step.parent is not None and not step.children and not step.locks:
            self.pool.evict(step.slots)
            self.evictable -= len(step.slots)
            del step.parent.children[int(step.keys[0])]
            step = step.parent

    def clear(self) -> None:
        """Evict everything that no running request uses."""
        self.evict(self.evictable)

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two; returns the upper half."""
        assert node.parent is not None
        upper = Node(node.keys[:at], node.slots[:at], node.parent)
        upper.locks, upper.used = node.locks, node.used
        upper.children[int(node.keys[at])] = node
        node.parent.children[int(node.keys[0])] = upper
        node.keys, node.slots, node.parent = node.keys[at:], node.slots[at:], upper
        return upper

    def _nodes(self) -> Iterator[Node]:
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    def check_integrity(self, locked: list[Node]) -> NDArray[np.int64]:
        """Prove the tree, given the node that each running request has locked; returns the slots that it keeps.

        Raises:
            AssertionError: a node is empty, misplaced, or not locked as often as requests use it.
        """
        locks: dict[int, int] = {}
        for node in locked:
            for step in _upward(node):
                locks[id(step)] = locks.get(id(step), 0) + 1
        slots = [np.empty(0, np.int64)]
        evictable = 0
        for node in self._nodes():
            assert len(node.keys) == len(node.slots) > 0, "a node is empty"
            assert node.parent is not None
            assert node.parent.children.get(int(node.keys[0])) is node, "a node is not where it is looked for"
            assert node.locks == locks.get(id(node), 0), f"a node is locked {node.locks} times, by {locks.get(id(node), 0)}"
            evictable += 0 if node.locks else len(node.slots)
            slots.append(node.slots)
        assert evictable == self.evictable, f"{evictable} slots can be evicted, {self.evictable} are counted"
        return np.concatenate(slots)


def _upward(node: Node) -> Iterator[Node]:
    """The node and its ancestors, without the root, which holds nothing."""
    step: Node | None = node
    while step is not None and step.parent is not None:
        yield step
        step = step.parent


def _common(a: Keys, b: Keys) -> int:
    """Length of the common beginning."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length
