"""Random documents for every dialect, and a tokenizer with one token per word."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import strategies as st

from multiverse.structure import (
    DIALECTS,
    MULTIVERSE,
    NPR,
    THREADWEAVER,
    Block,
    Blocks,
    Body,
    Dialect,
    Document,
    TokenDialect,
    resolve,
)
from tests.conftest import build_tokenizer
from tests.strategies import documents

EXACT_NPR = Dialect("npr, exact", None, None, NPR.goal, NPR.outline, NPR.path, NPR.conclusion)
EXACT_THREADWEAVER = Dialect(
    "threadweaver, exact",
    THREADWEAVER.think,
    THREADWEAVER.block,
    THREADWEAVER.goal,
    THREADWEAVER.outline,
    THREADWEAVER.path,
    None,
)
"""The tags of these families under the rules of the default dialect, as they were saved with earlier models."""

SPACED = replace(
    MULTIVERSE, name="multiverse, spaced", outline_sep="", path_sep="", join_sep="\n", conclusion_sep="", block_sep="\n\n"
)
"""White space that is exact, and differs from place to place."""

_PLACED: list[tuple[Dialect, Blocks]] = [
    (MULTIVERSE, "both"),
    (EXACT_NPR, "thinking"),
    (EXACT_NPR, "answer"),
    (EXACT_THREADWEAVER, "thinking"),
    (EXACT_THREADWEAVER, "answer"),
    (EXACT_THREADWEAVER, "both"),
    (SPACED, "thinking"),
    (replace(SPACED, think=None, block=None), "answer"),
    (NPR, "answer"),
    (THREADWEAVER, "both"),
]
TESTED = {
    **DIALECTS,
    **{
        f"{dialect.name}, {blocks}": replace(dialect, name=f"{dialect.name}, {blocks}", blocks=blocks)
        for dialect, blocks in _PLACED
    },
}
"""Every dialect, and some with blocks in other places."""

TOKENIZERS = {name: build_tokenizer(dialect) for name, dialect in TESTED.items()}
TOKENS: dict[str, TokenDialect] = {name: resolve(TOKENIZERS[name], dialect) for name, dialect in TESTED.items()}
"""Every one of these, resolved with its own byte tokenizer."""

_MERGES = [("Ġ", "a"), ("Ġ", "b"), ("Ċ", "Ċ"), (".", "Ċ"), ("Ċ", "1"), (":", "Ġ")]
MERGING = {name: resolve(build_tokenizer(dialect, _MERGES), dialect) for name, dialect in TESTED.items()}
"""The same with tokenizers that join spaces to words, line ends to each other and to the text around them."""


def adapt(document: Document, dialect: Dialect) -> Document:
    """The document without what the dialect does not keep.

    Thinking or answer, conclusions, blocks in paths, and white space around texts.
    """
    trim = str if dialect.exact else str.strip

    def body(items: Body, depth: int = 0) -> Body:
        kept: list[str | Block] = []
        for item in items:
            if isinstance(item, str):
                if (text := trim(item)) and not (kept and isinstance(kept[-1], str)):
                    kept.append(text)
            elif dialect.nests or not depth:
                kept.append(block(item, depth))
        return tuple(kept)

    def block(item: Block, depth: int) -> Block:
        paths = tuple(body(path, depth + 1) for path in item.paths)
        return Block(tuple(map(trim, item.outlines)), paths, trim(item.conclusion) if dialect.conclusion is not None else "")

    thinking, answer = None if document.thinking is None else body(document.thinking), body(document.answer)
    if dialect.think is None:
        return Document(None, answer) if dialect.forks_answer else Document(thinking)
    return Document(thinking, answer)


@st.composite
def dialect_documents(draw: st.DrawFn, depth: int = 3, *, merging: bool = False) -> tuple[TokenDialect, Document]:
    """A resolved dialect and a random document for it.

    Args:
        merging: also with tokenizers of more than bytes.
    """
    known = draw(st.sampled_from([TOKENS, MERGING])) if merging else TOKENS
    tokens = known[draw(st.sampled_from(sorted(known)))]
    return tokens, adapt(draw(documents(depth=depth, places=tokens.dialect.blocks)), tokens.dialect)


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
