"""Scripted documents of a given parallelism: tokens over the tokens of the longest chain.

With p letters in each of w paths and s in the trunk, a document has T + s + w p tokens, C + s + p of them in its longest chain,
where T and C are the tokens of tags, outlines and path headers. For a given parallelism and chain, p and s follow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from multiverse.engine.scripted import Script
from multiverse.structure import Block, Document, TokenDialect, encode

MAX_PATHS = 64
MIN_PARALLELISM = 1.05
"""Least parallelism of a document with a block: with less, its trunk would be too long."""


class SizedDocument(NamedTuple):
    """A document and its counts.

    Attributes:
        document: the script; without a block if the parallelism is 1.
        width: paths of its block; 1 without one.
        tokens, chain: all tokens, and those of the longest chain, as the engine counts them.
    """

    document: Document
    width: int
    tokens: int
    chain: int

    @property
    def parallelism(self) -> float:
        """Close to the requested one: lengths are whole numbers."""
        return self.tokens / self.chain


def block(width: int, letters: int) -> Block:
    """A block of `width` paths with this many letters each."""
    return Block(("o",) * width, (("x" * letters,),) * width, "c")


def sized_document(parallelism: float, chain: int, tokens: TokenDialect) -> SizedDocument:
    """A trunk and one block with this parallelism and about `chain` tokens in the longest chain, with as few paths as possible.

    If the tags of the block alone are longer than the chain, the chain is longer than requested.

    Raises:
        ValueError: the parallelism is below 1, or above it by less than 0.05, or needs more than 64 paths.
    """
    if parallelism < 1 or 1 < parallelism < MIN_PARALLELISM:
        raise ValueError(f"parallelism {parallelism} is not possible: it must be 1, or {MIN_PARALLELISM} or more")
    if parallelism == 1:
        return _without_block(chain, tokens)
    best: SizedDocument | None = None
    # At least half a path more than the parallelism: with less, paths would be too long.
    for width in range(math.ceil(parallelism + 0.5), MAX_PATHS + 1):
        sized = _with_block(parallelism, width, chain, tokens)
        if sized.chain <= chain + 1:  # lengths are whole numbers
            return sized
        if best is None or sized.chain < best.chain:
            best = sized
    if best is None:
        raise ValueError(f"parallelism {parallelism:g} needs more than {MAX_PATHS} paths")
    return best


def _without_block(chain: int, tokens: TokenDialect) -> SizedDocument:
    document = Document(None, "y" * (chain - 1))
    length = len(encode(document, tokens).layout) + 1
    return SizedDocument(document, 1, length, length)


def _with_block(parallelism: float, width: int, chain: int, tokens: TokenDialect) -> SizedDocument:
    shortest = _counted(width, 1, 1, tokens)
    # From (w - x) p = (x - 1) C' + ... with the shortest trunk: the shortest paths that reach the parallelism.
    least = (parallelism * shortest.chain - shortest.tokens) / (width - parallelism)
    # From both equations: the paths that reach it with the requested chain.
    wanted = ((parallelism - 1) * chain - (shortest.tokens - shortest.chain)) / (width - 1)
    path = 1 + max(0, round(max(least, wanted)))
    counted = _counted(width, path, 1, tokens)
    # The rest of the chain is trunk; all of it is in the chain, so its length follows from the parallelism.
    spare = max(0, round((counted.tokens - parallelism * counted.chain) / (parallelism - 1)))
    return _counted(width, path, 1 + spare, tokens)


def _counted(width: int, path: int, trunk: int, tokens: TokenDialect) -> SizedDocument:
    document = Document(("y" * trunk, block(width, path)))
    layout = encode(document, tokens).layout
    return SizedDocument(document, width, len(layout) + 1, layout.critical_path() + 1)  # the end of the text is a token, too


def document_with_width(parallelism: float, width: int, letters: int, tokens: TokenDialect) -> Document:
    """Trunk, block, trunk: `width` paths of `letters` letters, and as many letters of trunk as give this parallelism.

    With P tokens per path and T of trunk, parallelism is (T + width P) / (T + P).
    """
    shortest = Script(Document(("y", block(width, letters), "y")), tokens).by_path
    path, least = len(shortest[0, 0]), len(shortest[()])
    spare = max(0, round(path * (width - parallelism) / (parallelism - 1)) - least)
    return Document(("y" * (1 + spare // 2), block(width, letters), "y" * (1 + spare - spare // 2)))


def balanced_document(width: int, letters: int, tokens: TokenDialect) -> Document:
    """Trunk, block, trunk, with a trunk as long as one path, so parallelism is (`width` + 1) / 2.

    It is less if tags and outlines alone make the trunk longer than a path.
    """
    return document_with_width((width + 1) / 2, width, letters, tokens)
