"""Where a dialect has a reasoning that may fork, and the answer that follows it."""

from __future__ import annotations

from .dialect import Dialect
from .tree import Body, Document


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


def _joined(first: Body, second: Body, sep: str) -> Body:
    """Two bodies as one: a text at the end of the first and one at the beginning of the second become one text."""
    if first and second and isinstance(first[-1], str) and isinstance(second[0], str):
        return (*first[:-1], f"{first[-1]}{sep}{second[0]}", *second[1:])
    return (*first, *second)
