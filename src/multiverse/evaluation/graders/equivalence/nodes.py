"""What a part of an answer is while it is read, and what parts can be made into."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TypeGuard

from . import vocabulary
from .expression import MINUS, Expr, Num, Op, Sym, Unit, divided, negated, plus, replaced, times
from .forms import Form, Items, Matrix, Unreadable, Value

Node = Expr | Form
"""An expression may still become a part of a larger one."""


def is_expr(node: Node) -> TypeGuard[Expr]:
    """Whether a part is an expression."""
    return isinstance(node, (Num, Sym, Unit, Op))


def as_expr(node: Node) -> Expr:
    """A part as an expression.

    Raises:
        Unreadable: it is none.
    """
    if isinstance(node, Value):
        return node.expr
    if not is_expr(node):
        raise Unreadable("a list or a set inside a calculation")
    return node


def as_fraction(node: Node) -> Fraction | None:
    """The value of a numeral."""
    return node.value if isinstance(node, Num) else None


def as_form(node: Node) -> Form:
    """The form of a part; a value with a plus-minus sign becomes a list of two."""
    if not isinstance(node, (Num, Sym, Unit, Op)):
        return node
    values = expanded(node)
    return Value(values[0]) if len(values) == 1 else Items("list", tuple(Value(value) for value in values))


def expanded(expr: Expr) -> list[Expr]:
    """The two values of an expression with plus-minus signs, which are chosen together; otherwise the expression."""

    def choose(part: Expr, sign: int) -> Expr:
        if not isinstance(part, Op):
            return part
        args = tuple(choose(arg, sign) for arg in part.args)
        if part.name in ("pm", "mp"):
            return plus(args[0], args[1] if (part.name == "pm") == (sign > 0) else negated(args[1]))
        return Op(part.name, args)

    first, second = choose(expr, 1), choose(expr, -1)
    return [first] if first == second else [first, second]


def scaled(left: Node, right: Node) -> Node:
    """A product, of which one factor may be a matrix or a vector."""
    if isinstance(right, Matrix) and is_expr(left):
        return scaled(right, left)
    if isinstance(left, Matrix) and is_expr(right):
        return Matrix(tuple(tuple(times(cell, right) for cell in row) for row in left.rows))
    if not is_expr(left) and isinstance(right, Unit):
        return left  # a word behind a set or a list
    return times(as_expr(left), as_expr(right))


def negative(node: Node) -> Node:
    """The negative of a part."""
    return scaled(node, MINUS) if isinstance(node, Matrix) else negated(as_expr(node))


def in_radians(expr: Expr) -> Expr:
    """The argument of a function, with degrees as the numbers that they are."""
    degree = divided(Op("pi"), Num(Fraction(180)))
    return replaced(expr, lambda leaf: degree if leaf == Unit("deg") else leaf)


def unit_named(word: str) -> Expr:
    name = word if word in vocabulary.UNITS else word.lower()
    if name in vocabulary.COMPOUND:
        base, sign, rest = re.split(r"([/^])", vocabulary.COMPOUND[name])
        return divided(Unit(base), Unit(rest)) if sign == "/" else Op("^", (Unit(base), Num(Fraction(int(rest)))))
    if name in ("radian", "radians", "rad"):
        return divided(times(Num(Fraction(180)), Unit("deg")), Op("pi"))
    return Unit(name if name in vocabulary.UNITS else "")
