"""Tokens of an answer, which may be LaTeX, plain text, or a mixture of both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from . import vocabulary
from .forms import Unreadable

_SHORT_WORDS = frozenset("an no is of to at it by on if as so we No".split())  # noqa: SIM905
_LONGEST_NUMERAL = 5000
_LARGEST_EXPONENT = 5000
_GROUP = "\x1f"
"""Stands for a thousands separator that cannot be anything else."""


class Token(NamedTuple):
    """A token.

    Attributes:
        kind: ``num``; ``name`` (one letter); ``word`` (letters that are no product of variables); ``cmd`` (a command, without
            its backslash); ``sym`` (punctuation); ``end``.
        spaced: whether white space stands before it.
        value: of a numeral.
        decimal: whether the numeral has a decimal point.
    """

    kind: Literal["num", "name", "word", "cmd", "sym", "end"]
    text: str
    spaced: bool = False
    value: Fraction = Fraction(0)
    decimal: bool = False


END = Token("end", "")


@dataclass(frozen=True)
class Reading:
    """How an ambiguous text is read.

    Attributes:
        grouped: ``1,234`` outside brackets is one number.
        comma: ``1,5`` is one number and a half.
        words: three or more letters in a row are a word, and no product.
        letter_units: a letter such as ``m`` behind a number and a space is a unit.
    """

    grouped: bool = True
    comma: bool = False
    words: bool = True
    letter_units: bool = False


_REMOVED = re.compile(
    r"\\(?:left|right|mleft|mright|[bB]igg?[lrm]?|middle)(?:\.|(?![a-zA-Z]))|"
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|boldsymbol|phantom|vphantom|hphantom|strut|rm|bf|it|mathop|ensuremath)"
    r"(?![a-zA-Z])|\\(?:hspace|vspace)\*?\{[^{}]*\}"
)
_SPACE = re.compile(r"(?<!\\)\\(?:[,;:> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|space(?![a-zA-Z])|enspace(?![a-zA-Z]))|~|&nbsp;")
_THIN = re.compile(r"(?<=\d)\\[,;:]\s*(?=\d{3}(?!\d))")
_TEXT = r"\\(?:text|mbox|hbox|textrm|textnormal|textbf|textit|texttt|textsf|mathrm|mathbf|mathit|mathsf|operatorname\*?)\s*"
_TOKEN = re.compile(
    rf"(?P<text>{_TEXT}\{{(?P<inner>(?:[^{{}}]|\{{[^{{}}]*\}})*)\}})"
    r"|\\(?P<cmd>[a-zA-Z]+\*?)|\\(?P<escaped>[{}|$%&#_\\!])"
    r"|(?P<num>[0-9.][0-9.\x1f]*(?:[eE][+-]?[0-9]+(?![0-9a-zA-Z.]))?)|(?P<letters>[a-zA-Z]+)"
    r"|(?P<sym><=|>=|!=|==|\*\*|->|[^\s\w\\]|_)"
)


def prepare(text: str) -> str:
    """The text without what has no meaning: formatting, delimiters of mathematics, unusual characters."""
    text = re.sub(r"^\s*(?:[Aa]n?|[Tt]he)\s+(?=[a-zA-Z]{3})", "", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", "*", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?)", r"\\sqrt{\1}", text)
    text = re.sub(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda found: f"^{{{found[1].translate(vocabulary.SUPERSCRIPTS)}}}", text)
    text = re.sub(r"([₀₁₂₃₄₅₆₇₈₉]+)", lambda found: f"_{{{found[1].translate(vocabulary.SUBSCRIPTS)}}}", text)
    text = "".join(vocabulary.CHARACTERS.get(letter, letter) for letter in text)
    text = re.sub(r"\\\\(?=[a-zA-Z(){}\[\]])(?!begin)", r"\\", text) if "matrix" not in text and "array" not in text else text
    text = re.sub(r"(?<=\d)\s*,\s*\\!\s*(?=\d)|\{\s*,\s*\}(?=\d)", _GROUP, text)
    text = _THIN.sub(_GROUP, text.replace(r"\!", ""))
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])|\\(?:nice|s)frac(?![a-zA-Z])", r"\\frac", text)
    text = _SPACE.sub(" ", _REMOVED.sub(" ", text))
    text = re.sub(r"\\\\\s*\[[^\]]{0,12}(?:pt|em|ex|mm|cm)\]", r"\\\\", text)
    text = re.sub(r"(?<!\\)\\([()\[\]])", " ", text)
    text = re.sub(r"(?<![\w)}\]*])\*\*([^*]+)\*\*", r" \1 ", text)  # Markdown's bold
    text = re.sub(r"(?<!\\)\$\s*(?=\.?\d[\d,.\x1f]*[^$]*$)", r"\\$", text) if len(re.findall(r"(?<!\\)\$", text)) == 1 else text
    text = re.sub(r"(?<!\\)\$", " ", text)
    return text.strip().rstrip(".,;:").strip()


def tokenize(text: str, reading: Reading) -> list[Token]:
    """Tokens of a text that `prepare` gave, with one ``end``.

    Raises:
        Unreadable: it holds what is no token.
    """
    text = _joined(text, reading)
    tokens: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        if text[at].isspace():
            spaced, at = True, at + 1
            continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise Unreadable(f"unknown character {text[at]!r}")
        tokens.extend(_tokens(found, spaced, reading, tokens[-1] if tokens else END))
        at, spaced = found.end(), False
    return [*tokens, END]


def _joined(text: str, reading: Reading) -> str:
    """The text with separators of thousands marked."""
    if reading.comma:
        text = re.sub(r"(?<![\d,.])(\d+),(\d+)(?![\d,.])", r"\1.\2", text)
    grouped = re.compile(r"(?<![\d,.\x1f])\d{1,3}(?:,\d{3})+(?![\d,])")
    spaced = re.compile(r"(?<![\d.\x1f]) ?(?<!\d )(\d{1,3}(?: \d{3})+)(?![\d/]| ?/| ?\\frac)")
    depth, level = 0, []
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        level.append(depth)
    braces = [found.span() for found in re.finditer(r"\\\{.*?\\\}", text, re.DOTALL)]

    def outside(at: int) -> bool:
        return level[at] <= 0 and not any(first <= at < last for first, last in braces)

    def mark(found: re.Match[str]) -> str:
        return found[0].replace(",", _GROUP) if outside(found.start()) else found[0]

    if reading.grouped:
        text = grouped.sub(mark, text)
        text = spaced.sub(lambda found: found[0].replace(found[1], found[1].replace(" ", _GROUP)), text)
    return text


def _tokens(found: re.Match[str], spaced: bool, reading: Reading, before: Token) -> list[Token]:
    if found["text"] is not None:
        return _text_tokens(found["inner"], spaced, reading)
    if found["cmd"] is not None:
        return [_command(found["cmd"], spaced)]
    if found["escaped"] is not None:
        return [Token("sym", "\\" + found["escaped"], spaced)]
    if found["num"] is not None:
        return [_numeral(found["num"], spaced)]
    if found["letters"] is not None:
        return _letters(found["letters"], spaced, reading, before)
    return [Token("sym", found["sym"], spaced)]


def _command(name: str, spaced: bool) -> Token:
    names = {
        "leq": "le",
        "geq": "ge",
        "neq": "ne",
        "leqslant": "le",
        "geqslant": "ge",
        "times": "cdot",
        "vert": "|",
        "mid": "mid",
    }
    symbols = {
        "lbrace": "\\{",
        "rbrace": "\\}",
        "lbrack": "[",
        "rbrack": "]",
        "lvert": "|",
        "rvert": "|",
        "vert": "|",
        "lt": "<",
        "gt": ">",
    }
    symbols |= {
        "colon": ":",
        "lparen": "(",
        "rparen": ")",
        "degree": "°",
        "textdegree": "°",
        "textdollar": "\\$",
        "dollar": "\\$",
    }
    if name in symbols:
        return Token("sym", symbols[name], spaced)
    return Token("cmd", names.get(name, name), spaced)


def _numeral(text: str, spaced: bool) -> Token:
    mantissa, _, exponent = text.lower().partition("e")
    groups = mantissa.split(".")[0].split(_GROUP)
    if len(groups) == 2 and len(groups[1]) != 3:
        mantissa = mantissa.replace(_GROUP, ".")  # a decimal comma: 1{,}5
    plain = mantissa.replace(_GROUP, "")
    if plain.count(".") > 1 or plain == "." or len(plain) > _LONGEST_NUMERAL:
        raise Unreadable(f"{text[:40]!r} is no number")
    if exponent and abs(int(exponent[:8])) > _LARGEST_EXPONENT:
        raise Unreadable(f"{text[:40]!r} is too large")
    value = Fraction(f"0{plain}" if plain.startswith(".") else plain.rstrip(".")) * Fraction(10) ** int(exponent or 0)
    return Token("num", text, spaced, value, "." in plain.rstrip("."))


def _text_tokens(inner: str, spaced: bool, reading: Reading) -> list[Token]:
    """Tokens of ``\\text{…}``: words, units, or mathematics in upright letters."""
    inner = inner.replace("\\$", "$").replace("$", "")
    if re.fullmatch(r"\s*[a-zA-Z]\s*", inner):
        letter = inner.strip()
        return [Token("word" if letter in vocabulary.SINGLE else "name", letter, spaced)]
    pieces = re.findall(r"\\?[a-zA-Z][a-zA-Z'’-]*\.?|[^a-zA-Z]+", inner)
    tokens: list[Token] = []
    for piece in pieces:
        word = piece.rstrip(".")
        if re.fullmatch(r"[a-zA-Z][a-zA-Z'’-]*", word):
            alone = len(word) == 1 and word not in vocabulary.SINGLE and word != "a"
            tokens.append(Token("name", word, True) if alone else _word(word, True))
        else:
            tokens += tokenize(piece, reading)[:-1]
    return tokens


def _word(word: str, spaced: bool) -> Token:
    if word.lower() in ("and", "or"):
        return Token("cmd", word.lower(), spaced)
    if word in vocabulary.FUNCTIONS or word in ("sqrt", "boxed") or word in vocabulary.CONSTANTS:
        return Token("cmd", word, spaced)
    return Token("word", word, spaced)


def _letters(text: str, spaced: bool, reading: Reading, before: Token) -> list[Token]:
    """Plain letters: a known word, a unit, a product of variables, or any other word."""
    if len(text) == 1:
        behind = (spaced and before.kind == "num") or before.text == "/"
        unit = reading.letter_units and behind and text in vocabulary.SINGLE
        return [Token("word" if unit else "name", text, spaced)]
    if before.kind == "num" and text in vocabulary.UNITS:
        return [Token("word", text, spaced)]
    if text in vocabulary.FUNCTIONS or text in vocabulary.CONSTANTS or text.lower() in ("and", "or", "sqrt", "cup"):
        return [Token("cmd", text.lower() if text not in ("Re", "Im", "Pi") else text, spaced)]
    adjacent = before.kind in ("num", "name") and not spaced
    if (
        text in _SHORT_WORDS
        or text in vocabulary.UNITS
        or text in vocabulary.COMPOUND
        or text.lower() in ("square", "sq", "cubic", "per")
    ):
        return [Token("word", text, spaced)]
    for name in sorted(vocabulary.FUNCTIONS.keys() | {"sqrt", "pi"}, key=len, reverse=True):
        if len(name) > 1 and text.startswith(name) and len(text) == len(name) + 1:
            return [Token("cmd", name, spaced), Token("name", text[-1])]
        if name == "pi" and text.endswith(name) and len(text) == 3:
            return [Token("name", text[0], spaced), Token("cmd", "pi")]
    if len(text) >= 3 and reading.words and not adjacent:
        return [Token("word", text, spaced)]
    return [Token("name", letter, spaced and not index) for index, letter in enumerate(text)]
