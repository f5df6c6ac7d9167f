r"""Readers: the short answer in what a model has written. They get the output alone, so nothing of a prompt is ever read.

A reader returns `None` where the text gives no answer: then all of it is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .structure import last_box

Reader = Callable[[str], str | None]

_NAMED = re.compile(r"(?P<bold>\*\*|__)?(?:Final )?\bAnswer(?P=bold)?\s?:(?P=bold)?")
_SAYS = re.compile(r"\banswer\s*(?:is|would be|must be|equals|:|=)[\s:*_]*", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?<![\w)\]}.])[-−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_MARKUP = " \t$*_`"


def named(text: str) -> str | None:
    """What follows the last ``Answer:``, wherever it stands; a box before it is never cut off."""
    found = list(_NAMED.finditer(text))
    if not found:
        return None
    head, tail = text[: found[-1].start()], text[found[-1].end() :].strip()
    bold = found[-1]["bold"]
    if bold and found[-1][0].count(bold) == 1:  # it ends behind the answer
        tail = tail.replace(bold, "", 1).strip()
    return tail if tail and (last_box(tail) is not None or last_box(head) is None) else None


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{}``."""
    return last_box(text)


def boxed_or_said(text: str) -> str | None:
    r"""The content of the last ``\boxed{}``; else what the text says that the answer is; else its last number."""
    return next((found for read in (last_box, said, last_number) if (found := read(text)) is not None), None)


def said(text: str) -> str | None:
    """What follows the last phrase such as ``the answer is``, up to the end of its sentence."""
    for found in reversed(list(_SAYS.finditer(text))):
        end = text.find("\n", found.end())
        line = text[found.end() : end if end >= 0 else len(text)].strip()
        sentence = re.split(r"[.;](?:\s|$)", line, maxsplit=1)[0]
        if answer := sentence.strip(_MARKUP).removesuffix(".").strip(_MARKUP):
            return answer
    return None


def last_number(text: str) -> str | None:
    """The last number, without the commas of thousands."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "").replace("−", "-") if found else None
