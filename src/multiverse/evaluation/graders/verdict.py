"""What a grader says."""

from __future__ import annotations

from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether an answer is right.

    Attributes:
        right: it is.
        answer: what was taken for the answer, out of all that was written; empty if nothing was found.
        why: what was wrong, where there is more to say.
    """

    right: bool
    answer: str
    why: str = ""
