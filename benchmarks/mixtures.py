"""Documents that are as parallel as one likes: a stretch in a line, one block, and nothing left to chance.

With p letters in each of w paths and s in the trunk, a document has T + s + w p tokens, C + s + p of them in its longest chain,
where T and C are what tags, outlines and heads take. So for every parallelism there are lengths that give it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from benchmarks.ours import block
from multiverse.structure import Document, TokenDialect, encode

MOST_PATHS = 64
LEAST = 1.05
"""Least parallelism of a document that forks at all: below, its trunk would have to be endless."""


class Mixture(NamedTuple):
    """A document to write.

    Attributes:
        document: the script; without a block where nothing is to be parallel.
        width: paths of its block; 1 without one.
        tokens, chain: all tokens, and those of the longest chain, as the engine will count them.
    """

    document: Document
    width: int
    tokens: int
    chain: int

    @property
    def parallelism(self) -> float:
        """What it really has: lengths are whole numbers."""
        return self.tokens / self.chain


def mixture(parallelism: float, chain: int, tokens: TokenDialect) -> Mixture:
    """The document with this parallelism and about `chain` tokens in its longest chain, with as few paths as will do.

    Where even the tags of so wide a block fill the chain, the chain is longer; `Mixture.chain` says how long.

    Raises:
        ValueError: the parallelism is below 1, or above it by less than 0.05, or cannot be had with 64 paths.
    """
    if parallelism < 1 or 1 < parallelism < LEAST:
        raise ValueError(f"a parallelism of {parallelism} cannot be made: it is 1, or {LEAST} or more")
    if parallelism == 1:
        return _line(chain, tokens)
    best: Mixture | None = None
    # Half a path above the parallelism at least: with hardly any, paths would have to be endless.
    for width in range(math.ceil(parallelism + 0.5), MOST_PATHS + 1):
        made = _with_block(parallelism, width, chain, tokens)
        if made.chain <= chain + 1:  # lengths are whole numbers
            return made
        if best is None or made.chain < best.chain:
            best = made
    if best is None:
        raise ValueError(f"a parallelism of {parallelism:g} would take more than {MOST_PATHS} paths")
    return best


def _line(chain: int, tokens: TokenDialect) -> Mixture:
    document = Document(None, "y" * (chain - 1))
    length = len(encode(document, tokens).layout) + 1
    return Mixture(document, 1, length, length)


def _with_block(parallelism: float, width: int, chain: int, tokens: TokenDialect) -> Mixture:
    bare = _mix(width, 1, 1, tokens)
    # From (w - x) p = (x - 1) C' + ... with the trunk at its shortest, the shortest paths that can reach the parallelism:
    least = (parallelism * bare.chain - bare.tokens) / (width - parallelism)
    # and from the two equations together, those that reach it with the chain that was asked for.
    wanted = ((parallelism - 1) * chain - (bare.tokens - bare.chain)) / (width - 1)
    path = 1 + max(0, round(max(least, wanted)))
    made = _mix(width, path, 1, tokens)
    # The rest of the chain is trunk; all of it is in the chain, so its length follows from the parallelism alone.
    spare = max(0, round((made.tokens - parallelism * made.chain) / (parallelism - 1)))
    return _mix(width, path, 1 + spare, tokens)


def _mix(width: int, path: int, trunk: int, tokens: TokenDialect) -> Mixture:
    document = Document(("y" * trunk, block(width, path)))
    layout = encode(document, tokens).layout
    return Mixture(document, width, len(layout) + 1, layout.critical_path() + 1)  # the end of the text is written, too
