"""What a rollout's forks are worth: which paths have content of their own, and how many tokens of the answer are work.

A fork can be made to look like parallel work without being any: paths that are empty, that say again what the question, the
trunk or another path says, or that repeat themselves; blocks with one path. So every path is compared, in runs of four words,
with all that was said before it (of a block's paths the longest comes first), and counts if at least half of its runs are new
and it was not cut off at a limit. A block counts if two of its paths do. The tokens of paths that do not count, and the
repeated share of those that do, are no work; except on the longest path of a block, whose tokens cost time in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....structure.tree import Block, Body
from ..rollout import Question, Rollout

if TYPE_CHECKING:
    from ....engine import Generation

_RUN = 4
"""Words of a run."""
_NEW = 0.5
"""Share of a path's runs that have to be new."""

# Han, kana and hangul have no spaces between words: each character is one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


@dataclass(frozen=True)
class PathWork:
    """One path of a block, measured.

    Attributes:
        tokens: its own, without those of blocks in it.
        new: share of what it says that was not said before.
        finished: it was not closed for a limit.
        blocks: the blocks in it.
    """

    tokens: int
    new: float
    finished: bool
    blocks: tuple[BlockWork, ...]

    @property
    def counts(self) -> bool:
        """Whether it has content of its own."""
        return self.finished and (self.new >= _NEW or any(block.counts for block in self.blocks))

    @property
    def total(self) -> int:
        """Its tokens and those of blocks in it."""
        return self.tokens + sum(path.total for block in self.blocks for path in block.paths)

    @property
    def chain(self) -> int:
        """Tokens of its longest chain."""
        return self.tokens + sum(block.longest.chain for block in self.blocks)


@dataclass(frozen=True)
class BlockWork:
    """One block, measured."""

    paths: tuple[PathWork, ...]

    @property
    def counts(self) -> bool:
        """Whether at least two of its paths have content of their own."""
        return sum(path.counts for path in self.paths) >= 2

    @property
    def longest(self) -> PathWork:
        """The path with the longest chain, the first of several."""
        return max(self.paths, key=lambda path: path.chain)

    @property
    def idle(self) -> float:
        """Tokens beside its longest chain that are no work."""
        longest = self.longest
        beside = [path for path in self.paths if path is not longest]
        inner = sum(block.idle for block in longest.blocks)
        if not self.counts:
            return inner + sum(path.total for path in beside)
        return inner + sum(
            path.tokens * (1 - path.new) + sum(block.idle for block in path.blocks) if path.counts else path.total
            for path in beside
        )


@dataclass(frozen=True)
class Work:
    """What a rollout's tokens are.

    Attributes:
        forks: its blocks that lie in no other.
        critical: tokens on its critical path.
        useful: tokens that are work, the critical path included.
        whole: it ended by itself, and its text parses.
    """

    forks: tuple[BlockWork, ...]
    critical: int
    useful: float
    whole: bool

    def blocks(self) -> Iterator[BlockWork]:
        """All blocks, those within others included."""
        waiting = list(self.forks)
        while waiting:
            fork = waiting.pop()
            yield fork
            waiting += [block for path in fork.paths for block in path.blocks]

    @property
    def parallel(self) -> bool:
        """Whether any block counts."""
        return any(fork.counts for fork in self.blocks())

    @property
    def well_formed(self) -> bool:
        """Whether it is whole, has a block, and every block counts."""
        return self.whole and bool(self.forks) and all(fork.counts for fork in self.blocks())


def read_work(question: Question, rollout: Rollout) -> Work:
    """The work in a rollout. One that does not parse has no forks: all its tokens are work in one line."""
    generation = rollout.generation
    usage = generation.usage
    whole = generation.finish_reason == "stop" and generation.tree is not None and not generation.tree.cut
    forks = _Reader(question, generation).read() if generation.tree is not None else ()
    useful = usage.total_tokens - sum(fork.idle for fork in forks)
    return Work(forks, usage.critical_path_tokens, max(useful, usage.critical_path_tokens), whole)


class _Reader:
    """Reads a tree and its tokens side by side: both have the paths in document order."""

    def __init__(self, question: Question, generation: Generation) -> None:
        self._tree = generation.tree
        self._own = _own_tokens(generation.branches)
        self._closed = {label for label, _ in generation.closed}
        self._seen: set[tuple[str, ...]] = set()
        for message in question.messages:
            self._new(str(message.get("content", "")))

    def read(self) -> tuple[BlockWork, ...]:
        tree = self._tree
        assert tree is not None
        bodies = [tree.thinking or (), tree.answer]
        if sum(len(block.paths) for _, block in tree.blocks()) != len(self._own):
            return ()  # the text was read in another way than it was decoded: nothing is known of its paths
        self._next = 0
        return tuple(fork for body in bodies for fork in self._body(self._placed(body)))

    def _placed(self, body: Body) -> list[str | _Placed]:
        """The body with the label and the tokens of each path, taken in document order."""
        found: list[str | _Placed] = []
        for item in body:
            if isinstance(item, str):
                found.append(item)
                continue
            paths = []
            for path in item.paths:
                label, tokens = self._own[self._next]
                self._next += 1
                paths.append(_PlacedPath(label, tokens, self._placed(path)))
            found.append(_Placed(item, paths))
        return found

    def _body(self, body: Sequence[str | _Placed]) -> Iterator[BlockWork]:
        for item in body:
            if isinstance(item, str):
                self._new(item)
                continue
            for outline in item.block.outlines:
                self._new(outline)
            # The longest first: it takes its time in any case, so what both say is the others' repetition.
            order = sorted(range(len(item.paths)), key=lambda index: (-item.paths[index].chain, index))
            read = {index: self._path(item.paths[index]) for index in order}
            self._new(item.block.conclusion)
            yield BlockWork(tuple(read[index] for index in range(len(item.paths))))

    def _path(self, path: _PlacedPath) -> PathWork:
        texts = [item if isinstance(item, str) else item.block.conclusion for item in path.body]
        new = self._new(" ".join(texts))
        blocks = tuple(self._body([item for item in path.body if not isinstance(item, str)]))
        return PathWork(path.tokens, new, path.label not in self._closed, blocks)

    def _new(self, text: str) -> float:
        """The share of a text's runs that were not seen before, and now are."""
        words = [bare for word in _WORD.findall(text.casefold()) if (bare := word.strip(".,;:!?*_`\"'()")) or word]
        size = min(_RUN, len(words))
        runs = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)] if words else []
        fresh = 0
        for run in runs:
            fresh += run not in self._seen
            self._seen.add(run)
        return fresh / len(runs) if runs else 0.0


@dataclass(frozen=True)
class _PlacedPath:
    label: str
    tokens: int
    body: list[str | _Placed]

    @property
    def chain(self) -> int:
        inner = (max((path.chain for path in item.paths), default=0) for item in self.body if not isinstance(item, str))
        return self.tokens + sum(inner)


@dataclass(frozen=True)
class _Placed:
    block: Block
    paths: list[_PlacedPath]


def _own_tokens(branches: Sequence[str]) -> list[tuple[str, int]]:
    """Label and own tokens of every path in document order, from the branch of each token.

    Two blocks of one trunk use the same labels; a path begins where its label is entered from outside.
    """
    found: list[tuple[str, int]] = []
    places: dict[str, int] = {}
    before = ""
    for label in branches:
        if label:
            if label != before and not before.startswith(f"{label}."):
                places[label] = len(found)
                found.append((label, 0))
            index = places[label]
            found[index] = (label, found[index][1] + 1)
        before = label
    return found
