"""Forked answers as Markdown, from the tree and from the text."""

from __future__ import annotations

import pytest
from hypothesis import given

from multiverse.structure import (
    MULTIVERSE,
    MULTIVERSE_ANSWER,
    Block,
    Document,
    TokenDialect,
    markdown,
    markdown_text,
    render,
    sequential_baseline,
)
from tests.cli.scripted import FORKED, FORKED_MARKDOWN
from tests.structure.adapted import dialect_documents


def test_paths_stand_under_their_outlines() -> None:
    assert markdown(FORKED.answer) == FORKED_MARKDOWN
    assert markdown_text(render(FORKED, MULTIVERSE_ANSWER), MULTIVERSE_ANSWER) == FORKED_MARKDOWN


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", ""),
        ("\n two  lines\n\nof text ", "two  lines\n\nof text"),
        ((Block(("a",), (("x",),), ""),), "### a\n\nx"),
        ((Block(("", "b"), (("x",), ()), "c"), "d"), "x\n\n### b\n\nc\n\nd"),
        ((Block(("a\nline  of", "b"), (("x\n\n",), (" y",)), " c "),), "### a line of\n\nx\n\n### b\n\ny\n\nc"),
    ],
)
def test_white_space_and_empty_texts(answer: str | tuple[str | Block, ...], expected: str) -> None:
    assert markdown(Document(None, answer).answer) == expected


def test_headings_stop_at_the_sixth_level() -> None:
    block = Block(("deep",), (("x",),), "")
    for _ in range(4):
        block = Block(("over",), ((block,),), "")
    assert [line.split()[0] for line in markdown((block,)).splitlines() if line.startswith("#")] == [
        "###", "####", "#####", "######", "######",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So\n<Parallel>\n<Goal>\n<Outline>\n1: Bre", "So"),
        ("<Parallel>\n<Goal>\n<Outline>\n1: Bread\n</Outline>\n</Goal>\n<Path>\n1: It is", "### Bread\n\nIt is"),
        ("<Parallel>\n<Goal>\n<Outline>\n7: Bread\n</Outline>\n</Goal>\n<Path>\n1: It is", "### 7: Bread\n\nIt is"),
        ("</Path>so</Conclusion>\n<Path>\nthen", "so\n\nthen"),
    ],
)
def test_a_text_that_was_cut_off_or_is_malformed_reads_as_well_as_it_can(text: str, expected: str) -> None:
    assert markdown_text(text, MULTIVERSE) == expected


@given(pair=dialect_documents(depth=3))
def test_tree_and_text_read_the_same(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    trunk = Document(None, document.trunk)
    text = render(trunk if tokens.dialect.forks_answer else Document(document.trunk), tokens.dialect)
    if tokens.dialect.think is not None:
        text = text.removeprefix(tokens.dialect.think.open).removesuffix(tokens.dialect.think.close)
    assert markdown_text(text, tokens.dialect) == markdown(document.trunk)


@given(pair=dialect_documents(depth=2))
def test_the_sequential_baseline_of_a_forked_answer_is_its_markdown(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    line = sequential_baseline(document)
    assert line.branches == 0
    if document.plain_answer is None:
        assert line.plain_answer == markdown(document.answer)
        assert not any(tag in line.plain_answer for tag in tokens.dialect.tags)
    else:
        assert line.answer == document.answer
    assert sequential_baseline(line) == line


def test_a_label_that_was_cut_off_is_no_text() -> None:
    text = render(Document(None, (Block(("a",), (("x",),), "c"),)), MULTIVERSE_ANSWER)
    label = text.index("1: x")
    assert markdown_text(text[: label + 1], MULTIVERSE_ANSWER) == "### a"
    assert markdown_text(text[: label + 4], MULTIVERSE_ANSWER) == "### a\n\nx"
