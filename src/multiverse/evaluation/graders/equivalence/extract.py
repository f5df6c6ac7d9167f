"""Where the final answer of a text stands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import vocabulary

_BOX = re.compile(r"\\\\?f?boxed\s*\{|\\fbox\s*\{|(?<![a-zA-Z\\])f?boxed\s*\{|\x08oxed\s*\{")
_BARE_BOX = re.compile(r"\\boxed\s*(-?\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z]))")
_TAG = re.compile(r"<(answer|boxed)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_SAID = re.compile(
    r"(?:\banswer\b\**(?:\s+(?:is|are|would be|must be|should be|equals))?\**\s*[:=]?|####)\**\s*(?P<rest>[^\n]+)",
    re.IGNORECASE,
)
_MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$\w])\$([^$\n]+?)(?<!\\)\$", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w.^])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?(?:\s*[/^]\s*-?\d+)?(?:\s*%)?(?!\w)"
)
_WORD = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{3,}")
_CLAUSE = re.compile(r"[.;!](?=\s|$)|,?\s(?:because|since|as|which|so|not)\s")
_LONGEST = 400


def last_box(text: str) -> str | None:
    r"""Content of the last closed box of a text, the innermost of nested ones; `None` if there is none.

    A box is ``\boxed{…}`` or ``\fbox{…}``, also with its backslash doubled or lost.
    """
    closed = _closed(text)
    boxes = [box.end() for box in _BOX.finditer(text) if box.end() in closed]
    if boxes:
        return text[boxes[-1] : closed[boxes[-1]]].strip()
    bare = _BARE_BOX.findall(text)
    return bare[-1] if bare else None


def _closed(text: str) -> dict[int, int]:
    """Where each group in braces ends, by where its content begins."""
    opened: list[int] = []
    ends = {}
    for index, letter in enumerate(text):
        if letter in "{}" and (index == 0 or text[index - 1] != "\\"):
            if letter == "{":
                opened.append(index + 1)
            elif opened:
                ends[opened.pop()] = index
    return ends


def candidates(text: str) -> Iterator[str]:
    """What may be the answer of a text, the likeliest first: its last box alone, if there is one.

    Otherwise, of the inside of ``<answer>`` if there is such a tag: the whole text if it is nothing but an answer, what is said
    to be the answer, the last piece of mathematics, what the last line ends in, the last number.
    """
    box = last_box(text)
    if box is not None:
        yield box
        return
    tagged = _TAG.findall(text)
    text = (tagged[-1][1] if tagged else text).strip()
    said = list(_SAID.finditer(text))
    if _is_answer(text) and not said:
        yield text
    for found in reversed(said[-2:]):
        yield from _clauses(found["rest"].strip())
    pieces = [next(filter(None, groups)) for groups in _MATH.findall(text)]
    if pieces:
        yield pieces[-1]
    last = text.rsplit("\n", 1)[-1]
    if "=" in last and _is_answer(last.rsplit("=", 1)[-1]):
        yield last.rsplit("=", 1)[-1]
    numbers = [found[0] for found in _NUMBER.finditer(text)]
    if numbers:
        yield numbers[-1]


def _clauses(rest: str) -> Iterator[str]:
    """The beginning of a sentence, as far as it may be an answer."""
    clause = _CLAUSE.split(rest[:_LONGEST], maxsplit=1)[0]
    pieces = [next(filter(None, groups)) for groups in _MATH.findall(clause)]
    if _is_answer(clause) or (len(pieces) > 1 and not _words(_MATH.sub("", clause))):
        yield clause
    if pieces:
        yield pieces[-1]
    numbers = [found[0] for found in _NUMBER.finditer(clause)]
    if numbers:
        yield numbers[-1]


def _words(text: str) -> list[str]:
    """Words that mean nothing to mathematics."""
    known = {*vocabulary.FUNCTIONS, *vocabulary.CONSTANTS, *vocabulary.UNITS, "and", "sqrt", "sin", "square", "cubic", "per"}
    return [word for word in _WORD.findall(text) if word.lower() not in known]


def _is_answer(text: str) -> bool:
    """Whether a text is nothing but an answer: mathematics without prose, or a few words without a number."""
    if len(text) > _LONGEST:
        return False
    words = _words(text)
    return len(words) <= 4 and not _MATH.search(text) if not re.search(r"\d", text) else not words
