"""The answer that a reader or a grader wants, of the text behind a reasoning."""

from __future__ import annotations

import re

from .dialect import AnswerForm

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"(?<!\\)[{}]")


def plain_answer(text: str, form: AnswerForm) -> str:
    """The text without white space around it and a leading ``Answer:``; of this form, what its last box holds, if any."""
    if form == "boxed" and (content := last_box(text)) is not None:
        return content
    return text.strip().removeprefix("Answer:").strip()


def last_box(text: str) -> str | None:
    r"""The content of the last ``\boxed{}`` that is closed and not empty, braces matched; `None` without one."""
    begins = [found.end() for found in _BOX.finditer(text)]
    ends = _closings(text) if begins else {}
    contents = (text[begin : ends[begin]].strip() for begin in reversed(begins) if begin in ends)
    return next((content for content in contents if content), None)


def _closings(text: str) -> dict[int, int]:
    """Where each pair of braces closes, by where its content begins."""
    opened: list[int] = []
    ends: dict[int, int] = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened:
            ends[opened.pop()] = brace.start()
    return ends
