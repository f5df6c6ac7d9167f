"""Fork statistics of a document: blocks, branches, depth, critical path and parallelism."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from .dialect import Dialect
from .dialects import MULTIVERSE
from .encode import encode
from .tokens import TokenDialect, resolve
from .tree import Block, Body, Document


@dataclass(frozen=True)
class Shape:
    """Counts of one document.

    Attributes:
        blocks: number of blocks.
        branches: number of paths over all blocks.
        widths: number of paths of each block, in document order.
        depth: depth of the deepest block; 0 when nothing forks.
        total_tokens: tokens of the whole document.
        critical_path_tokens: length of its longest chain of tokens.
        critical_path_steps: forwards on that chain (`Layout.critical_path_steps`).
        parallelism: total tokens / critical path tokens.
        own_tokens: tokens of each branch without its descendants; the trunk first, then paths in document order.
    """

    blocks: int
    branches: int
    widths: tuple[int, ...]
    depth: int
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    parallelism: float
    own_tokens: tuple[int, ...]


def measure(document: Document, tokens: TokenDialect) -> Shape:
    """The shape of a document in a tokenizer's tokens (or in words, see `word_tokens`)."""
    layout = encode(document, tokens).layout
    own = Counter(layout.branches)
    widths = tuple(len(block.paths) for _, block in document.blocks())
    return Shape(
        blocks=len(widths),
        branches=sum(widths),
        widths=widths,
        depth=document.depth,
        total_tokens=len(layout),
        critical_path_tokens=layout.critical_path(),
        critical_path_steps=layout.critical_path_steps(),
        parallelism=layout.parallelism(),
        own_tokens=tuple(own[branch] for branch in range(len(layout.table))),
    )


def content_parallelism(document: Document) -> float:
    """Words of a document's texts over those of their longest chain: the parallelism before tags, goals and labels cost any.

    An answer behind the thinking is left out.
    """
    total, longest = _content(document.trunk)
    return total / longest if longest else 1.0


def _content(body: Body) -> tuple[int, int]:
    """Number of words of a body, and of its longest chain."""
    total = longest = 0
    for item in body:
        texts = [item] if isinstance(item, str) else [item.conclusion]
        words = sum(len(text.split()) for text in texts)
        paths = [] if isinstance(item, str) else [_content(path) for path in item.paths]
        total += words + sum(own for own, _ in paths)
        longest += words + max((chain for _, chain in paths), default=0)
    return total, longest


def word_tokens(dialect: Dialect = MULTIVERSE) -> TokenDialect:
    """Substitute for a tokenizer: every tag is one token, and so is every word separated by white space."""
    return resolve(_Words(dialect), dialect)


class _Words:
    def __init__(self, dialect: Dialect) -> None:
        tags = "|".join(re.escape(tag) for tag in sorted(dialect.tags, key=len, reverse=True))
        self._pattern = re.compile(rf"{tags}|(?:(?!{tags})\S)+")
        self._ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002
        return [self._ids.setdefault(word, len(self._ids)) for word in self._pattern.findall(text)]


def leaves(body: Body) -> list[str]:
    """Texts of the paths that do not fork again, in document order."""
    texts: list[str] = []
    for block in (item for item in body if isinstance(item, Block)):
        for path in block.paths:
            texts += leaves(path) or [" ".join(item for item in path if isinstance(item, str))]
    return texts
