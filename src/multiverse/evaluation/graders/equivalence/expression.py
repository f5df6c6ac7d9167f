"""Expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction


class NotRationalError(Exception):
    """The expression is no rational number, or not known to be one."""


class TooLargeError(Exception):
    """The number is too large to be evaluated."""


class UndefinedError(Exception):
    """The expression has no value: a division by zero, an unknown function."""


@dataclass(frozen=True)
class Num:
    """A numeral.

    Attributes:
        decimal: whether it is written with a decimal point, and may have been rounded.
    """

    value: Fraction
    decimal: bool = False


@dataclass(frozen=True)
class Sym:
    """A variable."""

    name: str


@dataclass(frozen=True)
class Unit:
    """A unit of measurement, by its name in `vocabulary.UNITS`; an empty name stands for any other word behind a number."""

    name: str


@dataclass(frozen=True)
class Op:
    """An operation; `name` is one of ``+ * ^ ! root`` or a function's name; constants have no arguments."""

    name: str
    args: tuple[Expr, ...] = ()


Expr = Num | Sym | Unit | Op

ZERO, ONE, MINUS = Num(Fraction(0)), Num(Fraction(1)), Num(Fraction(-1))


def plus(*args: Expr) -> Expr:
    """The sum."""
    return Op("+", args)


def times(*args: Expr) -> Expr:
    """The product."""
    return Op("*", args)


def negated(expr: Expr) -> Expr:
    """The negative."""
    return Num(-expr.value, expr.decimal) if isinstance(expr, Num) else times(MINUS, expr)


def divided(one: Expr, other: Expr) -> Expr:
    """The quotient."""
    return times(one, Op("^", (other, MINUS)))


def minus(one: Expr, other: Expr) -> Expr:
    """The difference."""
    return plus(one, negated(other))


def parts(expr: Expr) -> list[Expr]:
    """The expression and all of its subexpressions."""
    found: list[Expr] = []
    open_ = [expr]
    while open_:
        part = open_.pop()
        found.append(part)
        if isinstance(part, Op):
            open_.extend(part.args)
    return found


def replaced(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The expression with every leaf changed."""
    if isinstance(expr, Op) and expr.args:
        return Op(expr.name, tuple(replaced(arg, change) for arg in expr.args))
    return change(expr)
