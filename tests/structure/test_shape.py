"""Counts of a document in words and in tokens."""

from __future__ import annotations

import pytest
from hypothesis import given

from multiverse.structure import (
    DIALECTS,
    MULTIVERSE,
    Block,
    Dialect,
    Document,
    TokenDialect,
    encode,
    layout,
    measure,
    place,
    render,
    word_tokens,
)
from tests.strategies import documents


def test_counts_of_words_and_tags_are_those_of_the_example() -> None:
    document = Document(("go on", Block(("a b", "c"), (("x y z",), ("w",)), "end here")), "Answer: 1")
    shape = measure(document, word_tokens())
    # trunk: think, go, on, block, goal, (outline 1: a b close), (outline 2: c close), goal close, conclusion, end, here,
    # conclusion close, block close, think close, Answer:, 1;  paths: open, label, words, close
    assert shape.own_tokens == (5 + 5 + 4 + 1 + 4 + 1 + 1 + 2, 2 + 3 + 1, 2 + 1 + 1)
    assert shape.total_tokens == sum(shape.own_tokens)
    assert shape.critical_path_tokens == shape.own_tokens[0] + shape.own_tokens[1]
    assert shape.parallelism == shape.total_tokens / shape.critical_path_tokens
    assert (shape.blocks, shape.branches, shape.widths, shape.depth) == (1, 2, (2,), 1)


def test_a_document_without_a_block_has_parallelism_1() -> None:
    shape = measure(Document(None, "three plain words"), word_tokens())
    assert (shape.blocks, shape.branches, shape.depth, shape.parallelism, shape.total_tokens) == (0, 0, 0, 1.0, 3)


@given(document=documents())
def test_counts_of_words_agree_with_the_rendered_text(document: Document) -> None:
    text = render(document)
    for tag in MULTIVERSE.tags:
        text = text.replace(tag, f" {tag} ")
    shape = measure(document, word_tokens())
    assert shape.total_tokens == len(text.split())
    assert shape.parallelism >= 1 or shape.total_tokens == 0


@given(document=documents())
def test_counts_of_tokens_agree_with_the_layout(tokens: TokenDialect, document: Document) -> None:
    shape = measure(document, tokens)
    whole = layout(encode(document, tokens).token_ids, tokens)
    assert (shape.total_tokens, shape.critical_path_tokens) == (len(whole), whole.critical_path())
    assert len(shape.own_tokens) == document.branches + 1


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_measure_in_every_dialect(dialect: Dialect) -> None:
    document = place((Block(("a", "b"), (("x y",), ("z",)), "" if dialect.conclusion is None else "c"),), "", dialect)
    assert measure(document, word_tokens(dialect)).parallelism > 1
