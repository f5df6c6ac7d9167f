"""The answer that a reader or a grader wants, of the text behind a reasoning."""

from __future__ import annotations

from .dialect import AnswerForm

_BOX = "\\boxed{"


def plain_answer(text: str, form: AnswerForm) -> str:
    """The text without white space around it and a leading ``Answer:``; of this form, what its last box holds, if any."""
    if form == "boxed" and (content := _last_box(text)) is not None:
        return content.strip()
    return text.strip().removeprefix("Answer:").strip()


def _last_box(text: str) -> str | None:
    """What stands in the last box that is closed, braces matched."""
    start = len(text)
    while (start := text.rfind(_BOX, 0, start)) >= 0:
        depth, inner = 1, start + len(_BOX)
        for at in range(inner, len(text)):
            escaped = text[at - 1] == "\\"
            depth += 0 if escaped else {"{": 1, "}": -1}.get(text[at], 0)
            if not depth:
                return text[inner:at]
    return None
