"""Reader of answers: from text, LaTeX or plain, to forms. A recursive-descent parser over the tokens."""

from __future__ import annotations

import re
from fractions import Fraction

from . import vocabulary
from .commands import REALS
from .expression import ZERO, Num, Op, Sym, divided, minus, plus
from .forms import Form, Items, Joined, Relation, Sets, Unreadable, Value, Word
from .nodes import Node, as_expr, as_form, is_expr, negative
from .primary import Primary
from .tokens import Reading, prepare, tokenize

_SIGNS = {"=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!="}
_SIGN_COMMANDS = {
    "le": "<=",
    "ge": ">=",
    "ne": "!=",
    "in": "in",
    "approx": "~",
    "equiv": "=",
    "cong": "~",
    "sim": "~",
    "simeq": "~",
}
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?(?:\s+-?\d+(?:\.\d+)?)+")


def readings(text: str, comma: bool = False) -> list[Form]:
    """All forms that a text can be read as, the likeliest first; empty if there is none.

    Args:
        comma: also read a number with a decimal comma.
    """
    text = prepare(text)
    options = [Reading()]
    if re.search(r"\d[, ]\d{3}", text):
        options.append(Reading(grouped=False))
    if comma and re.match(r"-?(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))(?![\d,])[^,]*$", text):
        options.append(Reading(comma=True))
    if re.search(r"\d\s+[a-zA-Z](?![a-zA-Z])", text):
        options.append(Reading(letter_units=True))
    if re.search(r"[a-zA-Z]{3}", text):
        options.append(Reading(words=False))
    found: list[Form] = []
    for option in options:
        try:
            form = read(text, option)
        except (Unreadable, RecursionError):
            continue
        if form not in found:
            found.append(form)
    return found


def read(text: str, reading: Reading) -> Form:
    """The form of a text that `prepare` gave.

    Raises:
        Unreadable: it has none.
    """
    if not text:
        raise Unreadable("there is nothing to read")
    reader = Reader(tokenize(text, reading))
    if _NUMBERS.fullmatch(text) and reader.count("num") > 1:
        return Items("row", tuple(Value(Num(token.value)) for token in reader.tokens if token.kind == "num"))
    form = reader.answer(())
    if not reader.ended:
        raise Unreadable(f"unexpected {reader.token.text!r}")
    return form


class Reader(Primary):
    """From tokens to a form."""

    def answer(self, closers: tuple[str, ...]) -> Form:
        """One answer, or several with separators between them, up to a closing bracket."""
        items, separators = [self.item()], set[str]()
        while not self.ended and self.token.text not in closers:
            if not self._separator():
                raise Unreadable(f"unexpected {self.token.text!r}")
            separators.add(self.separator)
            if self.token.text not in closers and not self.ended:
                items.append(self.item())
        return _several(items, separators)

    def contents(self, closers: tuple[str, ...], items: list[Node] | None = None) -> list[Node]:
        """Everything between brackets, separated by commas; the closing bracket is the next token.

        Args:
            items: what has been read already.
        """
        found = [] if items is None else items
        while self.token.text not in closers:
            if self.ended:
                raise Unreadable("a bracket is not closed")
            if found and not self._separator():
                raise Unreadable(f"unexpected {self.token.text!r}")
            if self.token.text not in closers:
                found.append(self.part())
        return found

    def item(self) -> Form:
        """A value, a relation, a set, or words."""
        return as_form(self.part())

    def part(self) -> Node:
        """What `item` reads, which may be a part of a larger expression."""
        words = self._leading_words()
        if words and self._at_end_of_item():
            return _meant(" ".join(words))
        if words and (self.token.text in ("=", ":", "==") or self.token.text in _SIGN_COMMANDS):
            return self._relation(Sym(" ".join(words)))
        return self._relation(self.sets())

    def _leading_words(self) -> list[str]:
        words: list[str] = []
        while self.token.kind == "word":
            words.append(self.take().text.lower())
        return words

    def _at_end_of_item(self) -> bool:
        return self.ended or self.token.text in (",", ";", ")", "]", "}", "\\}", "and", "or", "|", "&", "\\\\")

    def _separator(self) -> bool:
        """Take one separator: a comma, a semicolon, a word, or a comma and a word."""
        self.separator = ","
        found = False
        while (self.token.kind == "sym" and self.token.text in (",", ";")) or (
            self.token.kind == "cmd" and self.token.text in ("and", "or", "lor", "land", "vee", "wedge")
        ):
            taken = self.take().text
            found = True
            if taken not in (",", ";"):
                self.separator = "or" if taken in ("or", "lor", "vee") else "and"
        return found

    def _relation(self, first: Node) -> Node:
        sides, signs = [first], list[str]()
        while True:
            sign = self._sign(sides[-1])
            if sign is None:
                break
            signs.append(sign)
            words = self._leading_words()
            if words and self._at_end_of_item():
                sides.append(_meant(" ".join(words)))
            else:
                sides.append(self.sets())
        if ":" in signs:
            return _ratio(sides, signs)
        return Relation(tuple(as_form(side) for side in sides), tuple(signs)) if signs else first

    def _sign(self, left: Node) -> str | None:
        """Take the sign of a relation; a colon behind a name introduces its value, and elsewhere a ratio."""
        token = self.token
        if token.kind == "sym" and token.text == ":" and not self.builders:
            self.take()
            return "=" if isinstance(left, Sym) else ":"
        if token.kind == "sym" and token.text in _SIGNS:
            self.take()
            return _SIGNS[token.text]
        if token.kind == "cmd" and token.text in _SIGN_COMMANDS:
            self.take()
            return _SIGN_COMMANDS[token.text]
        return None

    def sets(self) -> Node:
        """Sets joined by operations, or a sum."""
        left = self.sum()
        while (self.token.kind == "cmd" and self.token.text in ("cup", "cap", "setminus", "backslash")) or (
            self.token.text == "U" and not is_expr(left)
        ):
            name = {"U": "cup", "backslash": "setminus"}.get(self.token.text, self.token.text)
            self.take()
            left = Sets(name, (as_form(left), as_form(self.sum())))
        if isinstance(left, Op) and left.name == "*" and self.builders == 0 and any(arg == Sym("U") for arg in left.args):
            raise Unreadable("a union of what are no sets")
        return left

    def sum(self) -> Node:
        """A sum."""
        left = self._signed()
        while True:
            token = self.token
            if token.kind == "sym" and token.text in ("+", "-"):
                self.take()
                right = as_expr(self.product())
                left = plus(as_expr(left), right) if token.text == "+" else minus(as_expr(left), right)
            elif token.kind == "cmd" and token.text in ("pm", "mp"):
                self.take()
                left = Op(token.text, (as_expr(left), as_expr(self.product())))
            elif token.kind == "num" and self.unit_ended:
                left = plus(as_expr(left), as_expr(self.product()))  # 1 hour 30 minutes
            else:
                return left

    def _signed(self) -> Node:
        token = self.token
        if token.kind == "sym" and token.text in ("+", "-"):
            self.take()
            inner = self._signed()
            return inner if token.text == "+" else negative(inner)
        if token.kind == "cmd" and token.text in ("pm", "mp"):
            self.take()
            return Op(token.text, (ZERO, as_expr(self.product())))
        return self.product()


def _meant(words: str) -> Form:
    """Words, or what they stand for: a small number, all real numbers."""
    if words in vocabulary.NUMBERS:
        return Value(Num(Fraction(vocabulary.NUMBERS.index(words))))
    return REALS if words in ("all real numbers", "all reals", "the real numbers") else Word(words)


def _several(items: list[Form], separators: set[str]) -> Form:
    """One item, a list of them, or conditions that hold together or in turn."""
    if len(items) == 1:
        return items[0]
    if any(isinstance(item, Relation) and set(item.signs) - {"=", "~", "in"} for item in items):
        return Joined("or" if "or" in separators else "and", tuple(items))
    flat: list[Form] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Items) and item.kind == "list" else [item])
    label = flat[0].sides[0] if isinstance(flat[0], Relation) else None
    if label is not None and isinstance(label, Value) and not any(isinstance(item, Relation) for item in flat[1:]):
        first = flat[0]
        assert isinstance(first, Relation)
        return Relation((label, Items("list", (first.sides[-1], *flat[1:]))), ("=",))  # x = 1, 2
    return Items("list", tuple(flat))


def _ratio(sides: list[Node], signs: list[str]) -> Form:
    """A ratio: of two numbers, their quotient; of more, a tuple."""
    if set(signs) != {":"}:
        raise Unreadable("a colon between other signs")
    if len(sides) == 2:
        return Value(divided(as_expr(sides[0]), as_expr(sides[1])))
    return Items("tuple", tuple(as_form(side) for side in sides))
