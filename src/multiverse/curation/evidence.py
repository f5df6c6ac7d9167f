"""Surface features of a text: numbers, defined names, words, quotations, sentences. Regular expressions only.

Results for long texts that are used many times in a row are cached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)?")
_RESULT = re.compile(r"(?:=|≈|≡|→|⇒|\\approx|\\Rightarrow|\b(?:is|equals|gives|yields|get|becomes|total|sum))[\s$({\\+−-]*$")
_MINUS = re.compile(r"[=≈(,][\s${\\]*[-−]\s*$")
_OPERATOR = re.compile(r"[\s$)}]*(?:[-+*/^×·÷!%−]|\\(?:cdot|times|frac|binom))")
# Latin, Greek and Cyrillic: scripts that separate words.
_WORD = re.compile(r"[A-Za-zÀ-ɏͰ-ӿ]{3,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_NAME = r"([B-HJ-Z](?:\([a-z]\))?|[A-Za-z]_(?:\{\w+\}|\w+)|[A-Za-z]\([a-z]\))(?![\w(])"
_DEFINED = re.compile(
    rf"\b(?:[Ll]et|[Dd]efine|[Dd]enote|[Cc]all)\b[^.\n]{{0,60}}?(?<![\w\\]){_NAME}\s*\$?\s*(?=[.,;=]|:=|be\b|denote\b)"
)
_QUOTE = re.compile(r"[\"“]([^\"“”\n]{12,200})[\"”]")
_BOXED = re.compile(r"\\boxed\s*\{")

# fmt: off
_COMMON = frozenset(word[:5] for word in (
    "the", "and", "for", "are", "was", "were", "that", "this", "these", "those", "with", "from", "into", "has", "have", "had",
    "its", "not", "but", "can", "all", "each", "both", "when", "where", "which", "what", "then", "than", "thus", "hence",
    "therefore", "because", "since", "here", "there", "will", "would", "also", "only", "their", "they", "them",
))
_ROUND = frozenset(("100", "1000", "10000", "100000", "1000000", "180", "360", "270", "3.14", "3.1416", "3.14159"))
# fmt: on


class Number(NamedTuple):
    """A number in a text.

    Attributes:
        value: without its sign.
        result: whether it is the result of something, as after ``=``.
        signed: with its sign; a minus between two terms is not a sign.
    """

    value: str
    result: bool
    signed: str


def numbers(text: str) -> Iterator[Number]:
    """The numbers of a text, normalised: without thousands separators and trailing zeros."""
    for match in _NUMBER.finditer(text):
        result = bool(_RESULT.search(text, max(0, match.start() - 16), match.start()))
        value = _normalised(match[0])
        minus = _MINUS.search(text, max(0, match.start() - 16), match.start())
        yield Number(value, result and not _OPERATOR.match(text, match.end()), f"-{value}" if minus else value)


@lru_cache(maxsize=64)
def values(text: str) -> frozenset[str]:
    """All numbers of a text; where a comma may separate thousands or members of a list, both readings."""
    found: set[str] = set()
    for number in _NUMBER.findall(text):
        found.add(_normalised(number))
        if "," in number:
            found.update(_normalised(part) for part in number.split(","))
    return frozenset(found)


def weighty(value: str) -> bool:
    """Whether a number has more than one digit, so that it is hardly a coincidence."""
    return len(value) > 1


def distinctive(value: str) -> bool:
    """Whether a shared number indicates dependence: at least three digits, and not round."""
    digits = value.replace(".", "").strip("0")
    return len(value.replace(".", "")) >= 3 and len(digits) >= 2 and value not in _ROUND


def names(text: str) -> set[str]:
    """Names that a text defines (``let S = ...``, ``denote this by x_1``): capitals, letters with an index, functions."""
    return {match[1] for match in _DEFINED.finditer(text)}


def uses(text: str, name: str) -> bool:
    """Whether a text uses a name without defining it before."""
    match = re.search(rf"(?<![\w\\]){re.escape(name)}(?![\w(])", text)
    if match is None:
        return False
    own = re.match(r"\s*\$?\s*(?::?=|≡|be\b|denotes?\b|is (?:the|an?|defined)\b)", text[match.end() :])
    introduced = re.search(r"\b(?:[Ll]et|[Dd]efine|[Dd]enote|[Cc]all|[Ff]or|[Ww]here)\b[^.\n]{0,60}$", text[: match.start()])
    return own is None and introduced is None


def quotes(text: str) -> set[str]:
    """Quotations of at least three words."""
    return {match[1] for match in _QUOTE.finditer(text) if len(match[1].split()) >= 3}


def tokens(text: str) -> list[str]:
    """Content words, by their first five letters, and numbers."""
    words = (word.lower()[:5] for word in _WORD.findall(text))
    return [word for word in words if word not in _COMMON] + [_normalised(number) for number in _NUMBER.findall(text)]


@lru_cache(maxsize=64)
def vocabulary(text: str) -> frozenset[str]:
    """The set of a text's tokens."""
    return frozenset(tokens(text))


def sentences(text: str) -> list[str]:
    """The sentences of a short text, by a simpler rule than `sentences.cut`."""
    return [piece for piece in _SENTENCE.split(text) if piece.strip()]


def final_value(text: str) -> str | None:
    """The final value of a text: its last boxed value, or its last number; `None` if it has neither."""
    boxed = [match.end() for match in _BOXED.finditer(text)]
    if boxed:
        return "".join(_balanced(text, boxed[-1]).split())
    found = [_normalised(match) for match in _NUMBER.findall(text)]
    return found[-1] if found else None


def _balanced(text: str, start: int) -> str:
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return text[start:]


def _normalised(number: str) -> str:
    plain = number.replace(",", "")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return plain.lstrip("0") or "0" if "." not in plain else plain
