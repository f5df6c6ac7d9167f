"""The twin says what the paths say, in their order, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from multiverse.structure import MULTIVERSE, Block, Body, Document, parse, render, twin
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


def test_by_hand() -> None:
    assert twin(NESTED) == Document(("before\nfirst\ninner\nafter\nsecond\nbehind",), "Answer: 1")
    told = twin(NESTED, conclusions=True)
    assert told == Document(("before\nfirst\ninner\ndrawn together\nafter\nsecond\nin the end\nbehind",), "Answer: 1")


def test_the_goal_is_never_told() -> None:
    for conclusions in (False, True):
        assert "plan" not in render(twin(NESTED, conclusions=conclusions))


@pytest.mark.parametrize("document", [Document(None, "no thinking"), Document((), "x"), Document(("a text",), "")])
def test_without_a_block_it_is_the_document(document: Document) -> None:
    assert twin(document) == twin(document, conclusions=True) == document


def test_a_block_that_says_nothing_leaves_nothing() -> None:
    assert twin(Document((Block(("plan",), ((),), "end"),), "x")) == Document((), "x")


@given(document=documents())
def test_every_text_of_every_path_in_order(document: Document) -> None:
    told = twin(document)
    assert "".join(texts(told.thinking or ())) == "\n".join(texts(document.thinking or ()))
    assert told.answer == document.answer
    assert twin(told) == told


@given(document=documents(forks=True))
def test_no_tag_but_those_of_the_thinking(document: Document) -> None:
    assert MULTIVERSE.think is not None
    text = render(twin(document))
    assert not any(tag in text for tag in MULTIVERSE.tags if tag not in MULTIVERSE.think)
    assert parse(text) == twin(document)
