"""Sentence ends, and whether a fork starts there.

In a structured text a fork starts at a sentence end if the tag that opens a block follows. A sequential text has no tags; its
sentences are the structured text's, in the same order, and take their labels.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...errors import DataError
from ...structure import Dialect, Document, Role, render

_SENTENCE = re.compile(r"\S(?:[^\n]*?[.!?](?=\s)|[^\n]*)")


class Sentence(NamedTuple):
    """One sentence of the thinking.

    Attributes:
        text: without the label of a path that it opens.
        start, end: character offsets in the rendered document; `end` is exclusive.
        open: whether a block may start at its end (not inside a conclusion).
        forks: whether one does.
    """

    text: str
    start: int
    end: int
    open: bool
    forks: bool


def sentences(document: Document, dialect: Dialect) -> list[Sentence]:
    """The sentences of the trunk that may fork in a document's rendered text, in order; outlines are left out.

    That is the thinking, or the answer where blocks stand in it.

    A sentence ends with a dot, an exclamation or a question mark before a blank, or with its line. A block that nothing
    precedes (in its path, or behind another block) starts at no sentence end, and so has no place here.
    """
    text = render(document, dialect)
    begins = Role.BLOCK_OPEN if dialect.block is not None else Role.GOAL_OPEN
    pieces = re.split("(" + "|".join(re.escape(tag) for tag in sorted(dialect.tags, key=len, reverse=True)) + ")", text)
    label_of = re.compile(rf"\s*[\d.]+{re.escape(dialect.label_end)}")
    inside: list[Role] = [] if dialect.apart else [Role.THINK_OPEN]
    found: list[Sentence] = []
    labelled, offset = False, 0
    for index, piece in enumerate(pieces):
        role = dialect.roles.get(piece)
        if role is not None:
            if inside and inside[-1] is Role.OUTLINE_OPEN and role is not Role.OUTLINE_CLOSE:  # the tag ends the outline
                inside = inside[:-1]
            # A thinking that may not fork has no place for a block.
            entered = Role.GOAL_OPEN if role is Role.THINK_OPEN and not dialect.forks_thinking else role
            inside = inside[:-1] if role.name.endswith("CLOSE") else [*inside, entered]
            labelled = role is Role.PATH_OPEN
        elif inside and inside[-1] in (Role.THINK_OPEN, Role.PATH_OPEN, Role.CONCLUSION_OPEN):
            following = dialect.roles.get(pieces[index + 1]) if index + 1 < len(pieces) else None
            skipped = label.end() if labelled and (label := label_of.match(piece)) else 0
            here = [
                Sentence(
                    match.group().rstrip(),
                    offset + match.start(),
                    offset + match.start() + len(match.group().rstrip()),
                    inside[-1] is not Role.CONCLUSION_OPEN,
                    False,
                )
                for match in _SENTENCE.finditer(piece, skipped)
            ]
            if here and following is begins:
                here[-1] = here[-1]._replace(forks=True)
            found += here
        offset += len(piece)
    return found


def aligned(structured: Document, sequential: Document, dialect: Dialect) -> list[Sentence]:
    """The sentences of the sequential text, with the labels of their counterparts in the structured text.

    Both have the same sentences in the same order. The sequential text may leave out conclusions, and the sentence in front of
    a block may differ (``Let's think step by step.`` for ``in parallel``).

    Raises:
        DataError: the sentences differ.
    """
    own = sentences(sequential, dialect)
    every = sentences(structured, dialect)
    without = [sentence for sentence in every if sentence.open]
    labelled = every if len(own) == len(every) else without
    if len(own) != len(labelled):
        raise DataError(
            f"a sequential solution has {len(own)} sentences and its structured one {len(every)}, or {len(without)} without "
            f"conclusions: the two must have the same"
        )
    for sentence, other in zip(own, labelled, strict=True):
        if sentence.text != other.text and not other.forks:
            raise DataError(
                f"a sequential solution has the sentence {sentence.text!r} where its structured one has {other.text!r}"
            )
    return [sentence._replace(open=other.open, forks=other.forks) for sentence, other in zip(own, labelled, strict=True)]
