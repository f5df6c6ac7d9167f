"""Arithmetic of written solutions: expressions evaluated exactly, and the numbers of a text with the words around them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d[\d,]*\.?\d*|\.\d+))|(?P<sign>[-+*/()×÷x%^]))")
_SIGNS = {"×": "*", "x": "*", "÷": "/"}
_DEEPEST = 20
_LONGEST = 40  # characters of a number
_LARGEST_EXPONENT = 12


class Value(NamedTuple):
    """Value of an expression, and the numbers it is made of."""

    value: Fraction
    operands: tuple[Fraction, ...]


def evaluate(expression: str) -> Value:
    """The exact value of an expression of numbers, ``+ - * / ^ %`` and parentheses.

    Raises:
        ValueError: it is none, or divides by zero.
    """
    return _Parser(expression).whole()


class _Parser:
    """Recursive descent over sums, products, powers and atoms."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        text = text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"{text[at:].strip()[:20]!r} is no arithmetic")
            self.tokens.append(match["number"] or _SIGNS.get(match["sign"], match["sign"]))
            at = match.end()
        self.at, self.depth = 0, 0
        self.operands: list[Fraction] = []

    def whole(self) -> Value:
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"{self.tokens[self.at]!r} is not expected there")
        return Value(value, tuple(self.operands))

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def sum(self) -> Fraction:
        value = self.product()
        while (sign := self.next()) in ("+", "-"):
            self.at += 1
            right = self.product()
            value = value + right if sign == "+" else value - right
        return value

    def product(self) -> Fraction:
        value = self.power()
        while True:
            sign = self.next()
            if sign in ("*", "/"):
                self.at += 1
            elif sign != "(":  # "3(4+5)" is a product as well
                return value
            right = self.power()
            if sign == "/" and not right:
                raise ValueError("it divides by zero")
            value = value / right if sign == "/" else value * right

    def power(self) -> Fraction:
        value = self.atom()
        if self.next() == "^":
            self.at += 1
            exponent = self.atom()
            if exponent.denominator != 1 or not 0 <= exponent <= _LARGEST_EXPONENT:
                raise ValueError(f"the exponent {exponent} is not a whole number up to {_LARGEST_EXPONENT}")
            value = value ** int(exponent)
        return value

    def atom(self) -> Fraction:
        token = self.next()
        self.at += 1
        if token in ("-", "+"):
            value = self.atom()
            return -value if token == "-" else value
        if token == "(":
            self.depth += 1
            if self.depth > _DEEPEST:
                raise ValueError("its parentheses are nested too deeply")
            value = self.sum()
            if self.next() != ")":
                raise ValueError("a parenthesis is not closed")
            self.at += 1
        elif token and token[0] in ".0123456789":
            value = number(token)
            self.operands.append(value)
        else:
            raise ValueError(f"{token!r} is not expected there" if token else "it ends too early")
        while self.next() == "%":
            self.at += 1
            value /= 100
        return value


def number(text: str) -> Fraction:
    """A number as it is written, with or without commas.

    Raises:
        ValueError: it is none.
    """
    digits = text.replace(",", "").strip().rstrip(".")
    if len(digits) > _LONGEST:
        raise ValueError(f"{digits[:20]!r}... has too many digits")
    return Fraction(digits)


def stated(text: str, exact: Fraction) -> bool:
    """Whether a number is the value of an expression as it is written: exact, or rounded or cut to its decimals.

    A whole number is exact: 7 / 2 is not 3.
    """
    value = number(text)
    if value == exact:
        return True
    decimals = len(text.strip().rstrip(".").partition(".")[2])
    return decimals > 0 and abs(value - exact) < Fraction(1, 10**decimals) / (1 if decimals > 1 else 2)


def shown(value: Fraction) -> str:
    """A number as an answer is written: whole, with decimals where they are exact, else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for decimals in range(1, 7):
        if (value * 10**decimals).denominator == 1:
            return f"{float(value):.{decimals}f}"
    return f"{value.numerator}/{value.denominator}"


class Mention(NamedTuple):
    """A number in a text.

    Attributes:
        value: the number.
        start, end: its place, without a sign for money or per cent.
        unit: ``$``, ``%``, or the word after it without the ending of its plural; empty if there is none.
        forms: other values that the same words may mean: 20% is 20, 0.2, and leaves 80%.
    """

    value: Fraction
    start: int
    end: int
    unit: str
    forms: frozenset[Fraction]


_FRACTION = r"\d+\s?/\s?\d+"
_NUMBER = re.compile(
    rf"(?P<mixed>\d+[ -]{_FRACTION}(?![\d,]))|(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_WORD = re.compile(r"[A-Za-z]+")
_SMALL = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS: dict[str, Fraction] = {word: Fraction(at) for at, word in enumerate(_SMALL.split())} | {
    word: Fraction(10 * at) for at, word in enumerate(_TENS.split(), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_IDIOMS: dict[str, tuple[Fraction, ...]] = {
    word: tuple(Fraction(value) for value in values.split())
    for words, values in (
        ("half halves halved", "1/2 2 50"),
        ("third thirds", "1/3 3 2/3 2"),
        ("quarter quarters fourth fourths", "1/4 4 3/4 25 3"),
        ("fifth fifths", "1/5 5 4/5 20"),
        ("sixth sixths", "1/6 6 5/6"),
        ("eighth eighths", "1/8 8 7/8"),
        ("tenth tenths", "1/10 10 9/10"),
        ("twice double doubles doubled doubling couple pair pairs both", "2"),
        ("triple triples tripled thrice triplets", "3"),
        ("quadruple quadrupled quadruples", "4"),
        ("dozen dozens", "12"),
        ("score", "20"),
        ("percent", "100"),
        ("cent cents penny pennies", "100 1/100"),
        ("nickel nickels", "5 1/20"),
        ("dime dimes", "10 1/10"),
    )
    for word in words.split()
}
_UNIT = re.compile(r"\s*(?:[-/)]\s*|more\s+|additional\s+|total\s+|extra\s+)?([A-Za-z]+)")
_NO_UNIT = {
    "x",
    "of",
    "the",
    "and",
    "because",
    "for",
    "in",
    "to",
    "is",
    "are",
    "was",
    "per",
    "a",
    "on",
    "each",
    "from",
    "times",
}


def mentions(text: str, *, words: bool = True) -> list[Mention]:
    """The numbers of a text in order; ordinals are none.

    Args:
        words: also numbers that are written as words, and words such as *twice* or *dozen*.
    """
    found = list(_digits(text))
    if words:
        found += _words(text)
    return sorted(found, key=lambda mention: mention.start)


def _digits(text: str) -> Iterator[Mention]:
    for match in _NUMBER.finditer(text):
        if _ORDINAL.match(text, match.end()) or len(match[0]) > _LONGEST:
            continue
        start, end = match.span()
        if match["mixed"]:
            whole, _, rest = re.split(r"([ -])", match["mixed"], maxsplit=1)
            try:
                value = Fraction(whole) + Fraction(rest.replace(" ", ""))
            except ZeroDivisionError:
                continue
            parts = {number(part) for part in re.findall(r"\d+", match["mixed"])}
            yield Mention(value, start, end, unit(text, start, end), frozenset({value} | parts))
            continue
        value = number(match["digits"])
        measure = unit(text, start, end)
        forms = {value}
        scale = _WORD.match(text, end + 1) if text[end : end + 1] in (" ", "-") else None
        if scale is not None and scale[0].lower() in _SCALES:
            forms.add(value * _SCALES[scale[0].lower()])
        if measure == "%":
            share = value / 100
            forms |= {share, 1 - share, 1 + share, 100 - value, 100 + value}
        if measure in ("cent", "penny"):
            forms.add(value / 100)
        over = re.compile(r"\s?/\s?(\d+)(?![\d.,]*\d)").match(text, end)
        if over is not None and int(over[1]):
            part = value / int(over[1])
            forms |= {part, 1 - part, int(over[1]) - value, part * 100}
        yield Mention(value, start, end, measure, frozenset(forms))


def _words(text: str) -> Iterator[Mention]:
    found = list(_WORD.finditer(text))
    at = 0
    while at < len(found):
        first = at
        value, at = _number_in_words(text, found, first)
        start, end = found[first].start(), found[max(first, at - 1)].end()
        word = found[first][0].lower()
        if value is not None:
            behind = found[at][0].lower() if at < len(found) else ""
            shares = [part for part in _IDIOMS.get(behind, ()) if part < 1 and behind.endswith("s")]
            forms = {value, *(value * part for part in shares), *(1 - value * part for part in shares)}
            yield Mention(value, start, end, unit(text, start, end), frozenset(forms))
        elif word in _IDIOMS:
            yield Mention(_IDIOMS[word][0], start, end, "", frozenset(_IDIOMS[word]))
        at = max(at, first + 1)


def _number_in_words(text: str, found: Sequence[re.Match[str]], at: int) -> tuple[Fraction | None, int]:
    """The number that begins at a word, and the index of the word behind it."""
    value: Fraction | None = None
    first = at
    while at < len(found) and (at == first or re.fullmatch(r"[ -]", text[found[at - 1].end() : found[at].start()])):
        word = found[at][0].lower()
        if word in _SCALES and value is not None:
            value *= _SCALES[word]
        elif word in _WORDS and (value is None or _continues(value, _WORDS[word])):
            value = (value or Fraction(0)) + _WORDS[word]
        else:
            break
        at += 1
    return value, at


def _continues(value: Fraction, further: Fraction) -> bool:
    """Whether a word goes on with the number before it: "twenty five", "two hundred ten"."""
    return bool(value) and (value % 100 == 0 or (value % 10 == 0 and further < 10))


def unit(text: str, start: int, end: int) -> str:
    """The unit of the number at this place (see `Mention`)."""
    if re.match(r"\s?(?:%|percent\b|per cent\b)", text[end : end + 10]):
        return "%"
    if text[max(0, start - 2) : start].rstrip("-").endswith(("$", "$ ")):
        return "$"
    match = _UNIT.match(text, end)
    word = match[1].lower() if match else ""
    if word in _NO_UNIT:
        return ""
    return "$" if word in ("dollar", "dollars") else singular(word)


def singular(word: str) -> str:
    """A word without the ending of a plural; the same for singular and plural, not always a word."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
