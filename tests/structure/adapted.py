"""Random documents for every dialect, and a tokenizer with one token per word."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from multiverse.structure import DIALECTS, Block, Body, Dialect, Document, TokenDialect, resolve
from tests.conftest import build_tokenizer
from tests.strategies import documents

TOKENIZERS = {name: build_tokenizer(dialect) for name, dialect in DIALECTS.items()}
TOKENS: dict[str, TokenDialect] = {name: resolve(TOKENIZERS[name], dialect) for name, dialect in DIALECTS.items()}
"""Every dialect, resolved with its own byte tokenizer."""


def adapt(document: Document, dialect: Dialect) -> Document:
    """The document without the parts that the dialect has no tags for: answer, conclusions."""

    def body(items: Body) -> Body:
        return tuple(item if isinstance(item, str) else block(item) for item in items)

    def block(item: Block) -> Block:
        return Block(item.outlines, tuple(map(body, item.paths)), item.conclusion if dialect.conclusion is not None else "")

    thinking = None if document.thinking is None else body(document.thinking)
    return Document(thinking, document.answer if dialect.think is not None else "")


@st.composite
def dialect_documents(draw: st.DrawFn, depth: int = 3) -> tuple[TokenDialect, Document]:
    """A resolved dialect and a random document for it."""
    tokens = TOKENS[draw(st.sampled_from(sorted(TOKENS)))]
    return tokens, adapt(draw(documents(depth=depth)), tokens.dialect)


class WordTokenizer:
    """One token per tag, line end, label or word with the space before it."""

    unk_token_id = None

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        assert not add_special_tokens
        pieces = re.findall(r"</?\w+>|\n| ?[^\s<]+| ", text)
        assert "".join(pieces) == text
        return [self.ids.setdefault(piece, len(self.ids)) for piece in pieces]

    def pieces(self, ids: tuple[int, ...]) -> list[str]:
        """The tokens as text."""
        names = {token_id: piece for piece, token_id in self.ids.items()}
        return [names[token_id] for token_id in ids]
