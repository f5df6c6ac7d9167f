"""Rendered texts and segments of documents."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given

from multiverse.errors import StructureError
from multiverse.structure import (
    MULTIVERSE,
    MULTIVERSE_COMPACT,
    NPR,
    THREADWEAVER,
    Block,
    Dialect,
    Document,
    TokenDialect,
    markdown,
    markdown_text,
    parse,
    render,
    segments,
)
from tests.structure.adapted import EXACT_NPR, dialect_documents

CANONICAL = """\
<Think>
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
1: first sub-task
</Outline>
<Outline>
2: second sub-task
</Outline>
</Goal>
<Path>
1: one
</Path>
<Path>
2: two
<Parallel>
<Goal>
<Outline>
2.1: inner
</Outline>
</Goal>
<Path>
2.1: three
</Path>
<Conclusion>
so far
</Conclusion>
</Parallel>
and on
</Path>
<Conclusion>
all in all
</Conclusion>
</Parallel>
The end.
</Think>

Answer: 4"""

INNER = Block(("inner",), (("three",),), "so far")
OUTER = Block(("first sub-task", "second sub-task"), (("one",), ("two", INNER, "and on")), "all in all")
DOCUMENT = Document(("Let's think in parallel.", OUTER, "The end."), "Answer: 4")


def test_render_gives_the_canonical_text() -> None:
    assert render(DOCUMENT) == CANONICAL


def test_render_of_empty_bodies_and_neighbouring_blocks() -> None:
    block = Block(("",), ((),), "")
    once = (
        "<Parallel>\n<Goal>\n<Outline>\n1: \n</Outline>\n</Goal>\n<Path>\n1:\n</Path>\n"
        "<Conclusion>\n\n</Conclusion>\n</Parallel>"
    )
    assert render(Document((block, block))) == f"<Think>\n{once}\n{once}\n</Think>"
    assert render(Document(())) == "<Think>\n</Think>"
    assert render(Document(None)) == ""
    assert render(Document(None, "just text")) == "just text"


def test_a_path_that_begins_with_a_block_has_no_space_after_its_label() -> None:
    text = render(Document((Block(("x",), ((Block(("y",), (("z",),), "c"),),), "d"),)))
    assert "<Path>\n1:\n<Parallel>\n<Goal>\n<Outline>\n1.1: y\n" in text
    assert "<Path>\n1.1: z\n</Path>" in text


def test_render_in_the_npr_dialect() -> None:
    document = Document(("start", Block(("a", "b"), (("one",), ("two",)), "so"), "end"))
    assert render(document, NPR) == (
        "start\n<guideline>\n<plan>1: a</plan>\n<plan>2: b</plan>\n</guideline>\n"
        "<step>\n1: one\n</step>\n<step>\n2: two\n</step>\n<takeaway>\nso\n</takeaway>\n\nend"
    )


def test_render_in_the_threadweaver_dialect() -> None:
    document = Document(("start", Block(("a", "b"), (("one",), ("two",)), ""), "end"), "4")
    assert render(document, THREADWEAVER) == (
        "<think>\nstart\n<Parallel>\n<Outlines>\n<Outline>1: a</Outline>\n<Outline>2: b</Outline>\n</Outlines>\n"
        "<Thread>\n1: one\n</Thread><Thread>\n2: two\n</Thread>\n</Parallel>\nend\n</think>\n\n4"
    )


@pytest.mark.parametrize(
    "document",
    [
        Document(("a </Path> b",)),
        Document(("fine",), "<Think>"),
        Document(None, "</Conclusion>"),
        Document((Block(("<Goal>",), ((),), ""),)),
        Document((Block(("x",), (("<Outline>",),), ""),)),
        Document((Block(("x",), ((),), "</Parallel>"),)),
    ],
)
def test_a_text_that_holds_a_tag_is_refused(document: Document) -> None:
    with pytest.raises(ValueError, match=r"text may not hold the tag <"):
        render(document)


def test_a_tag_of_another_dialect_is_text() -> None:
    assert render(Document(("<step>",)), MULTIVERSE) == "<Think>\n<step>\n</Think>"


@pytest.mark.parametrize(
    ("document", "dialect", "problem"),
    [
        (Document(("thought",), "answer"), NPR, "'npr' has no think tag"),
        (Document(None, "answer"), NPR, "'npr' has no think tag"),
        (Document((Block(("x",), ((),), "so"),)), THREADWEAVER, "'threadweaver' has no conclusion tag"),
    ],
)
def test_parts_that_a_dialect_has_no_tag_for_are_refused(document: Document, dialect: Dialect, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        render(document, dialect)


@given(pair=dialect_documents())
def test_segments_split_the_text_where_branch_or_forced_changes(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    cut = segments(document, tokens.dialect)
    assert "".join(segment.text for segment in cut) == render(document, tokens.dialect)
    assert all(segment.text for segment in cut)
    # Forced pieces stand apart from each other too: the engine puts their tokens one piece after the other.
    free_runs = [key for key, run in groupby(cut, key=lambda segment: (segment.forced, segment.path)) if not key[0]]
    assert len(free_runs) == sum(not segment.forced for segment in cut)
    forced = "".join(segment.text for segment in cut if segment.forced)
    assert forced.count(tokens.dialect.path.open) == document.branches
    resume = tokens.dialect.resume
    if resume:
        assert forced.count(resume) == len(list(document.blocks()))
    free = "".join(segment.text for segment in cut if not segment.forced)
    assert tokens.dialect.path.open not in free
    assert not resume or resume not in free


def test_what_must_follow_a_tag_is_forced() -> None:
    forced = [segment.text for segment in segments(DOCUMENT, MULTIVERSE) if segment.forced]
    inner = [
        "\n",
        "<Goal>",
        "\n",
        "<Outline>",
        "\n2.1:",
        "\n",
        "\n",
        "<Path>\n2.1:",
        "\n",
        "<Conclusion>\n",
        "\n",
        "</Parallel>",
    ]
    assert forced == [
        "\n",
        *("\n", "<Goal>", "\n", "<Outline>", "\n1:", "\n", "\n2:", "\n", "\n", "<Path>\n1:", "\n", "<Path>\n2:"),
        *(*inner, "\n", "\n"),
        *("<Conclusion>\n", "\n", "</Parallel>", "\n", "\n\n"),
    ]
    optional = [segment.text for segment in segments(DOCUMENT, MULTIVERSE) if segment.optional]
    assert optional == ["\n\n"]  # the text may end with the thinking
    plain = Document((Block(("a",), (("one",),), "so"), "end"))
    assert [segment.text for segment in segments(plain, EXACT_NPR) if segment.optional] == ["\n"]
    # Where white space is free only the heads of forks and joins are forced.
    assert [segment.text for segment in segments(plain, NPR) if segment.forced] == ["\n", "<step>\n1:", "<takeaway>\n"]


@pytest.mark.parametrize("gap", ["", " "])
def test_a_space_that_is_a_token_of_its_own_belongs_to_the_outlines_head(gap: str) -> None:
    cut = segments(DOCUMENT, MULTIVERSE, gap)
    assert "".join(segment.text for segment in cut) == CANONICAL
    assert (f"\n1:{gap}" in [segment.text for segment in cut if segment.forced]) == (
        f"{' '[len(gap) :]}first sub-task\n</Outline>" in [segment.text for segment in cut if not segment.forced]
    )


def test_render_in_the_compact_dialect() -> None:
    document = Document(None, ("Two.", Block(("Bread", "Wool"), (("one",), ("two", INNER)), "so"), "end"))
    text = render(document, MULTIVERSE_COMPACT)
    assert text == (
        "Two.<fork><part>1 Bread<part>2 Wool<run><path>1 one</path>"
        "<path>2 two<fork><part>1 inner<run><path>1 three</path><join>so far</join></path><join>so</join>end"
    )
    assert parse(text, MULTIVERSE_COMPACT) == document
    forced = [segment.text for segment in segments(document, MULTIVERSE_COMPACT) if segment.forced]
    assert forced == ["<part>", "1", "2", "<path>1", "<path>2", "<part>", "1", "<path>1", "<join>", "<join>"]
    with pytest.raises(StructureError, match="expected the label 2"):
        parse(text.replace("<part>2", "<part>3", 1), MULTIVERSE_COMPACT)
    assert markdown(document.answer) == markdown_text(text, MULTIVERSE_COMPACT)
