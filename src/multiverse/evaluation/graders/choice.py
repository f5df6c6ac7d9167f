"""Multiple choice: which of the choices an answer names, by letter, ordinal or text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .equivalence import last_box
from .verdict import Verdict

LETTERS = "ABCDEFGHIJ"
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# A letter with optional markup: brackets, stars, dollars, \text{}. LETTERS is replaced by the letters of the choices.
_DRESSED = r"(?:\\(?:text|mathrm|mathbf|textbf)\s*\{\s*)?[*_`$(\[{\s\\]*(?P<letter>[LETTERS])(?![\w'’])[*_`$)\]}\\]*"
_NOISE = r"[^A-Za-z0-9\n]{0,8}"
_SAYS = rf"(?:answer|choice|option)s?\b{_NOISE}(?:(?:is|would be|must be|should be)\b)?{_NOISE}(?:(?:option|choice|letter)\s+)?"
_OTHERS = r"\s*(?:,|/|\bor\b|\band\b|&)\s*[*_`$(\[{\s]*[LETTERS](?![\w'’])"


def grade_choice(expected: str, answer: str, choices: Sequence[str]) -> Verdict:
    """Whether an answer names the right one.

    Args:
        expected: its letter.
        choices: the choices in words, in the order of their letters.
    """
    found = named(answer, choices)
    if found is None:
        return Verdict(False, answer.strip()[-200:], "no single choice can be read in the answer")
    return Verdict(found == expected, found)


def named(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that an answer names; `None` if it names none, or several.

    Looked for in this order, the last one of each kind: what stands in a box; what is said to be the answer (``the answer is
    (C)``, ``Answer: C``, ``the third option``); an answer that is nothing but a letter, or begins with one (``C) because``) or
    ends in one; a choice's own words, if they are those of one choice only.
    """
    letters = LETTERS[: len(choices)]
    box = last_box(answer)
    if box is not None:
        return _alone(box, letters) or _in_words(box, choices)
    return (
        _said(answer, letters)
        or _ordinal(answer, letters)
        or _alone(answer, letters)
        or _edge(answer, letters)
        or _in_words(answer, choices)
    )


def _alone(text: str, letters: str) -> str | None:
    """The letter of a text that is one letter, optionally followed by the text of its choice."""
    dressed = _DRESSED.replace("LETTERS", letters)
    found = re.fullmatch(rf"\W*(?:(?:option|choice|answer)\s*)?{dressed}\W*", text.strip(), re.IGNORECASE | re.DOTALL)
    return found["letter"].upper() if found else None


def _said(text: str, letters: str) -> str | None:
    """The letter in the last statement of the answer."""
    dressed, others = _DRESSED.replace("LETTERS", letters), _OTHERS.replace("LETTERS", letters)
    pattern = rf"(?i:{_SAYS}){dressed}(?P<others>{others})?"
    found = list(re.finditer(pattern, text))
    if not found or found[-1]["others"]:
        return None
    return found[-1]["letter"]


def _ordinal(text: str, letters: str) -> str | None:
    """``the third option``, ``option three``, ``option 3``: the last of them."""
    words = "|".join(_ORDINALS[: len(letters)])
    numbers = "|".join([*_NUMBERS[: len(letters)], *(str(number) for number in range(1, len(letters) + 1))])
    pattern = rf"\b(?:(?P<ordinal>{words}) (?:option|choice|answer)|(?:option|choice) (?P<number>{numbers}))\b"
    found = list(re.finditer(pattern, text, re.IGNORECASE))
    if not found:
        return None
    ordinal, number = found[-1]["ordinal"], found[-1]["number"]
    if ordinal:
        return letters[_ORDINALS.index(ordinal.lower())]
    return letters[int(number) - 1 if number.isdecimal() else _NUMBERS.index(number.lower())]


def _edge(text: str, letters: str) -> str | None:
    """A letter set off at the beginning (``C) because``, ``**C**``) or alone on the last line."""
    begin = re.match(rf"\W*(?P<letter>[{letters}])(?:[).:*\]]|\s*[-–—:])", text.strip())
    if begin:
        return begin["letter"]
    lines = text.strip().splitlines()
    return _alone(lines[-1], letters) if lines else None


def _in_words(text: str, choices: Sequence[str]) -> str | None:
    """The only choice whose text occurs; a choice that is part of another one's text does not count if that one occurs."""
    said = _words(text)
    whole = [index for index, choice in enumerate(choices) if _words(choice) == said]
    if len(whole) == 1:
        return LETTERS[whole[0]]
    found = [index for index, choice in enumerate(choices) if f" {_words(choice)} " in f" {said} "]
    longest = [
        one
        for one in found
        if not any(one != other and f" {_words(choices[one])} " in f" {_words(choices[other])} " for other in found)
    ]
    return LETTERS[longest[0]] if len(longest) == 1 else None


def _words(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text)
    return " ".join(re.findall(r"[\w.+\-^/\\]*\w", text.lower()))
