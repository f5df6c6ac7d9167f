"""Where a dialect has a reasoning that may fork, and the answer that follows it; and documents of one dialect in another."""

from __future__ import annotations

from .dialect import Dialect
from .render import render
from .tree import Block, Body, Document


def place(thinking: Body, answer: Body | str, dialect: Dialect) -> Document:
    """A document of a reasoning that may fork, and of what follows it.

    With think tags and blocks in the thinking the two stand apart. Elsewhere they are one trunk, the reasoning first: the
    answer, if that is where blocks stand, or the thinking of a dialect without tags for it.
    """
    if dialect.apart:
        return Document(thinking, answer)
    rest = (answer,) if isinstance(answer, str) else answer
    trunk = _joined(thinking, tuple(item for item in rest if item), dialect.answer_sep)
    return Document(None, trunk) if dialect.forks_answer else Document(trunk)


def convert(document: Document, source: Dialect, target: Dialect) -> Document:
    """A document of one dialect as a document of another, with all that the other can express.

    Where only one of them has the answer apart, the reasoning ends with its last block. White space around texts goes where the
    other does not keep it.

    Raises:
        ValueError: the other cannot express something in it; the message says what.
    """
    if (source.think is None, source.blocks) != (target.think is None, target.blocks):
        one = source.think is None and source.forks_thinking
        before, trunk = ((), document.trunk) if one else (document.thinking or (), document.answer)
        last = max((index for index, item in enumerate(trunk, 1) if isinstance(item, Block)), default=0)
        reasoning, answer = _joined(before, trunk[:last], source.answer_sep), trunk[last:]
        empty = not reasoning and (one or document.thinking is None)
        document = Document(None, answer) if empty and target.apart else place(reasoning, answer, target)
    if not target.exact:
        thinking = None if document.thinking is None else _stripped(document.thinking)
        document = Document(thinking, _stripped(document.answer), cut=document.cut)
    render(document, target)
    return document


def _stripped(body: Body) -> Body:
    """A body whose texts have no white space around them."""
    items = [item.strip() if isinstance(item, str) else _stripped_block(item) for item in body]
    return tuple(item for item in items if item)


def _stripped_block(block: Block) -> Block:
    outlines, paths = tuple(map(str.strip, block.outlines)), tuple(map(_stripped, block.paths))
    return Block(outlines, paths, block.conclusion.strip(), block.as_written)


def _joined(first: Body, second: Body, sep: str) -> Body:
    """Two bodies as one: a text at the end of the first and one at the beginning of the second become one text."""
    if first and second and isinstance(first[-1], str) and isinstance(second[0], str):
        return (*first[:-1], f"{first[-1]}{sep}{second[0]}", *second[1:])
    return (*first, *second)
