"""Result of a grader."""

from __future__ import annotations

from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether an answer is right.

    Attributes:
        answer: the part of the text that was taken as the answer; empty if none was found.
        why: reason for a wrong answer, if there is more to say.
    """

    right: bool
    answer: str
    why: str = ""
