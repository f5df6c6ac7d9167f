"""Documents that every dialect can hold, and a tokenizer whose tokens can be counted by eye."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from multiverse.structure import DIALECTS, Block, Body, Dialect, Document, TokenDialect, resolve
from tests.conftest import build_tokenizer
from tests.strategies import documents

TOKENIZERS = {name: build_tokenizer(dialect) for name, dialect in DIALECTS.items()}
TOKENS: dict[str, TokenDialect] = {name: resolve(TOKENIZERS[name], dialect) for name, dialect in DIALECTS.items()}
"""Every dialect, bound to a byte tokenizer of its own."""


def adapt(document: Document, dialect: Dialect) -> Document:
    """The document without what the dialect cannot hold: an answer apart from the thinking, conclusions."""

    def body(items: Body) -> Body:
        return tuple(item if isinstance(item, str) else block(item) for item in items)

    def block(item: Block) -> Block:
        return Block(item.outlines, tuple(map(body, item.paths)), item.conclusion if dialect.conclusion is not None else "")

    thinking = None if document.thinking is None else body(document.thinking)
    return Document(thinking, document.answer if dialect.think is not None else "")


@st.composite
def dialect_documents(draw: st.DrawFn, depth: int = 3) -> tuple[TokenDialect, Document]:
    """A dialect and a random document that it can hold."""
    tokens = TOKENS[draw(st.sampled_from(sorted(TOKENS)))]
    return tokens, adapt(draw(documents(depth=depth)), tokens.dialect)


class WordTokenizer:
    """One token a tag, a line end, a label or a word with the space before it."""

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
