"""Where a fork could start in a text, and where one does: sentence ends, and their labels.

In a structured text a fork starts at a sentence end if the tag that opens a block comes next. In the text told in a line
there are no tags; its sentences are the structured text's, one by one in the same order, and take over their labels.
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
        start, end: where it begins in the rendered document, and the first character behind it.
        open: whether a block may start at its end; not so inside a conclusion.
        forks: whether one does.
    """

    text: str
    start: int
    end: int
    open: bool
    forks: bool


def sentences(document: Document, dialect: Dialect) -> list[Sentence]:
    """The sentences of a document's thinking in its rendered text, in order; outlines and the answer are left out.

    A sentence ends with a dot, an exclamation or a question mark before a blank, or with its line. A block that nothing
    precedes (in its path, or behind another block) starts at no sentence end, and so has no place here.
    """
    text = render(document, dialect)
    begins = Role.BLOCK_OPEN if dialect.block is not None else Role.GOAL_OPEN
    pieces = re.split("(" + "|".join(re.escape(tag) for tag in sorted(dialect.tags, key=len, reverse=True)) + ")", text)
    inside: list[Role] = [] if dialect.think is not None else [Role.THINK_OPEN]
    found: list[Sentence] = []
    labelled, offset = False, 0
    for index, piece in enumerate(pieces):
        role = dialect.roles.get(piece)
        if role is not None:
            inside = inside[:-1] if role.name.endswith("CLOSE") else [*inside, role]
            labelled = role is Role.PATH_OPEN
        elif inside and inside[-1] in (Role.THINK_OPEN, Role.PATH_OPEN, Role.CONCLUSION_OPEN):
            following = dialect.roles.get(pieces[index + 1]) if index + 1 < len(pieces) else None
            skipped = piece.index(dialect.label_end) + len(dialect.label_end) if labelled else 0
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
    """The sentences of the text told in a line, with the labels of their counterparts in the structured text.

    The two tell the same sentences in the same order. The line may leave out what conclusions say, and the sentence in front of
    a block may read differently (``Let's think step by step.`` for ``in parallel``), since it may be about the form.

    Raises:
        DataError: they do not.
    """
    own = sentences(sequential, dialect)
    every = sentences(structured, dialect)
    without = [sentence for sentence in every if sentence.open]
    twins = every if len(own) == len(every) else without
    if len(own) != len(twins):
        raise DataError(
            f"a solution in a line has {len(own)} sentences where its structured twin has {len(every)}, or {len(without)} "
            f"without conclusions: the two must tell the same"
        )
    for sentence, twin in zip(own, twins, strict=True):
        if sentence.text != twin.text and not twin.forks:
            raise DataError(f"a solution in a line says {sentence.text!r} where its structured twin says {twin.text!r}")
    return [sentence._replace(open=twin.open, forks=twin.forks) for sentence, twin in zip(own, twins, strict=True)]
