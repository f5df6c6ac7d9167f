"""Checks of blocks and documents, and their counts."""

from __future__ import annotations

import pytest

from multiverse.structure import Block, Document


def test_a_block_without_an_outline_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one outline"):
        Block((), (), "")


@pytest.mark.parametrize("paths", [(), (("a",),), (("a",), ("b",), ("c",))])
def test_a_block_with_another_number_of_paths_than_outlines_is_refused(paths: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(ValueError, match=f"{len(paths)} paths, 2 outlines"):
        Block(("x", "y"), paths, "")


@pytest.mark.parametrize("body", [("",), ("a", ""), (Block(("x",), ((),), ""), "")])
def test_an_empty_text_is_refused(body: tuple[str | Block, ...]) -> None:
    with pytest.raises(ValueError, match="empty text"):
        Document(body)
    with pytest.raises(ValueError, match="empty text"):
        Block(("x",), (body,), "")


def test_neighbouring_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="'one', 'two'"):
        Document(("one", "two"))
    with pytest.raises(ValueError, match="neighbouring texts"):
        Block(("x",), (("one", "two"),), "")


def test_blocks_depth_and_branches() -> None:
    inner = Block(("i", "j"), (("a",), ()), "")
    outer = Block(("x", "y", "z"), ((inner, "t", inner), (), ("b",)), "")
    document = Document(("start", outer, inner))
    assert [(depth, block is inner) for depth, block in document.blocks()] == [(1, False), (2, True), (2, True), (1, True)]
    assert document.depth == 2
    assert document.branches == 3 + 2 + 2 + 2
    for plain in (Document(None, "x"), Document(()), Document(("text",), "x")):
        assert (plain.depth, plain.branches, list(plain.blocks())) == (0, 0, [])
