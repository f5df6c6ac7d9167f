"""What makes an answer right. A rule is a value inside its problem, so that a problem can be pickled and judged anywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_ANSWER = 2_000
"""Characters of the longest answer that is looked at."""

_DENIED = re.compile(r"\b(not|or|maybe|unknown|neither)\b|n't\b", re.IGNORECASE)
_LABEL = re.compile(r"^(\(?([0-9]{1,2}|[a-z])[.:)]|[-*•])\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(an?|the)\s+")


@dataclass(frozen=True)
class IntegerRule:
    """The answer is this number."""

    value: int

    def accepts(self, answer: str) -> bool:
        return re.fullmatch(r"[0-9]{1,9}", answer) is not None and int(answer) == self.value


@dataclass(frozen=True)
class ExpressionRule:
    """The answer is any expression that uses each number once, only the given operators, and has the target as its value."""

    numbers: tuple[int, ...]
    operators: str
    target: int

    def accepts(self, answer: str) -> bool:
        # Checked before parsing: only short arithmetic expressions reach the parser.
        if re.fullmatch(r"[0-9+*() \-]{1,100}", answer) is None:
            return False
        try:
            tree = ast.parse(answer, mode="eval").body
        except SyntaxError:
            return False
        used: list[int] = []
        return self._value(tree, used) == self.target and sorted(used) == sorted(self.numbers)

    def _value(self, node: ast.expr, used: list[int]) -> int | None:
        """The value of an expression, or `None` when it holds something that is not allowed."""
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return node.value
        if not isinstance(node, ast.BinOp):
            return None
        left, right = self._value(node.left, used), self._value(node.right, used)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Add) and "+" in self.operators:
            return left + right
        if isinstance(node.op, ast.Sub) and "-" in self.operators:
            return left - right
        if isinstance(node.op, ast.Mult) and "*" in self.operators:
            return left * right
        return None


@dataclass(frozen=True)
class NumberRule:
    """The answer is this number in any words: ``41``, ``41 marbles``, ``24 + 17 = 41``, ``They have **41**``."""

    value: int

    def accepts(self, answer: str) -> bool:
        if len(answer) > MAX_ANSWER or _DENIED.search(answer):
            return False
        text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}\b)", "", answer).rpartition("=")[2]
        numbers = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", text)
        return len(numbers) == 1 and float(numbers[0]) == self.value


@dataclass(frozen=True)
class ListRule:
    """The answer is a list of so many parts in this order, between commas, semicolons, ``and`` or lines.

    Attributes:
        parts: for each part the texts that are right, each alone or at the end of a sentence; a number also with a unit.
    """

    parts: tuple[tuple[str, ...], ...]

    def accepts(self, answer: str) -> bool:
        if len(answer) > MAX_ANSWER:
            return False
        for separator in (r"\n+", r";|\n+", r",\s*and\s|[;,\n]|\sand\s"):
            pieces = [piece for piece in re.split(separator, answer.strip()) if piece.strip()]
            if len(pieces) == len(self.parts):
                return all(map(_one_of, pieces, self.parts))
        return False


@dataclass(frozen=True)
class ClassesRule:
    """The answer puts every item into its class, item by item (``trout: fish; owl: bird``) or class by class
    (``fish: trout, cod; bird: owl``), in any order.

    Attributes:
        classes: pairs of an item and the name of its class.
    """

    classes: tuple[tuple[str, str], ...]

    def accepts(self, answer: str) -> bool:
        if len(answer) > MAX_ANSWER:
            return False
        expected = {plain(item): _singular(plain(name)) for item, name in self.classes}
        names = {*expected.values()}
        found: dict[str, str] = {}
        # Between "x: y, z: w" the comma ends a pair, in "x: y, z" it does not.
        for piece in re.split(r"[;\n]|\.\s|,(?=[^,;:\n]*:)", answer):
            if not piece.strip():
                continue
            left, colon, right = re.sub(r"\s(?:is|are|->|=|→|-)\s", ": ", piece, count=1).partition(":")
            rights = [plain(text) for text in re.split(r",|\sand\s", right) if text.strip()]
            if not colon or not rights:
                return False
            label = plain(left)
            if label in expected and len(rights) == 1:
                pairs = [(label, _singular(rights[0]))]
            elif _singular(label) in names:
                pairs = [(item, _singular(label)) for item in rights]
            else:
                return False
            for item, name in pairs:
                if item in found:
                    return False
                found[item] = name
        return found == expected


Rule = IntegerRule | ExpressionRule | NumberRule | ListRule | ClassesRule

_RULES: dict[str, type[Rule]] = {
    kind.__name__: kind for kind in (IntegerRule, ExpressionRule, NumberRule, ListRule, ClassesRule)
}


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule as JSON."""
    return {"rule": type(rule).__name__, **asdict(rule)}


def read_rule(values: Mapping[str, Any]) -> Rule:
    """A rule as `rule_json` wrote it."""
    own = {name: _tuples(value) for name, value in values.items() if name != "rule"}
    return _RULES[str(values["rule"])](**own)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def plain(text: str) -> str:
    """Without labels, emphasis, quotes, articles, case and marks at the end."""
    bare = re.sub(r"[*_`\"“”]", "", text).strip()
    bare = _LABEL.sub("", bare).strip(" .!'").lower()
    return _ARTICLE.sub("", bare)


def _singular(name: str) -> str:
    return name.removesuffix("s")


def _one_of(piece: str, right: tuple[str, ...]) -> bool:
    if _DENIED.search(piece):
        return False
    text = plain(piece)
    # What is said comes last: "capital of France: Paris", "The plural of mouse is mice".
    said = {text, *(plain(text.rpartition(mark)[2]) for mark in (":", " is ", " are ", "=", "->", "→"))}
    for value in right:
        if value.isdigit() and any(NumberRule(int(value)).accepts(one) for one in said):
            return True
        if plain(value) in said:
            return True
    return False
