"""The sequential baseline has the texts of all paths, in document order, and no block."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from multiverse.structure import MULTIVERSE, Block, Body, Document, parse, render, sequential_baseline
from tests.strategies import documents

NESTED = Document(
    (
        "before",
        Block(
            ("plan a", "plan b"),
            (("first", Block(("plan c",), (("inner",),), "drawn together"), "after"), ("second",)),
            "in the end",
        ),
        "behind",
    ),
    "Answer: 1",
)


def texts(body: Body) -> Iterator[str]:
    for item in body:
        if isinstance(item, Block):
            for path in item.paths:
                yield from texts(path)
        else:
            yield item


def test_the_baseline_of_nested_blocks() -> None:
    assert sequential_baseline(NESTED) == Document(("before\nfirst\ninner\nafter\nsecond\nbehind",), "Answer: 1")
    baseline = sequential_baseline(NESTED, conclusions=True)
    assert baseline == Document(("before\nfirst\ninner\ndrawn together\nafter\nsecond\nin the end\nbehind",), "Answer: 1")


def test_outlines_are_left_out() -> None:
    for conclusions in (False, True):
        assert "plan" not in render(sequential_baseline(NESTED, conclusions=conclusions))


@pytest.mark.parametrize("document", [Document(None, "no thinking"), Document((), "x"), Document(("a text",), "")])
def test_the_baseline_of_a_document_without_a_block_is_the_document(document: Document) -> None:
    assert sequential_baseline(document) == sequential_baseline(document, conclusions=True) == document


def test_a_block_with_empty_paths_leaves_no_text() -> None:
    assert sequential_baseline(Document((Block(("plan",), ((),), "end"),), "x")) == Document((), "x")


@given(document=documents())
def test_the_baseline_has_the_texts_of_all_paths_in_order(document: Document) -> None:
    baseline = sequential_baseline(document)
    assert "".join(texts(baseline.thinking or ())) == "\n".join(texts(document.thinking or ()))
    assert baseline.answer == document.answer
    assert sequential_baseline(baseline) == baseline


@given(document=documents(forks=True))
def test_the_baseline_has_no_tag_but_those_of_the_thinking(document: Document) -> None:
    assert MULTIVERSE.think is not None
    text = render(sequential_baseline(document))
    assert not any(tag in text for tag in MULTIVERSE.tags if tag not in MULTIVERSE.think)
    assert parse(text) == sequential_baseline(document)
