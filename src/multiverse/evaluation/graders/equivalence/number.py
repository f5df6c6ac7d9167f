"""Whether two expressions are worth the same.

Rational numbers are compared exactly: as fractions, or, if they are too large to be written out, by their leading 60 digits and
their residues modulo a prime. Other constants are compared to a relative error of 1e-40, or of 1e-6 where one of them is
written with a decimal point. Expressions with variables are compared in the same way at several points.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from . import vocabulary
from .exact import exact, residue
from .expression import (
    Expr,
    NotRationalError,
    Num,
    Op,
    Sym,
    TooLargeError,
    UndefinedError,
    Unit,
    minus,
    parts,
    replaced,
)
from .numeric import context, numeric

_DIGITS = 60
_CLOSE, _ROUNDED = 1e-40, 1e-6
_MP, _FINER = context(_DIGITS), context(2 * _DIGITS)
_POINTS = 9


def same(one: Expr, other: Expr) -> bool:
    """Whether two expressions are worth the same, units aside where one of them has none."""
    if one == other:
        return True
    return any(_same_plain(left, right) for left, right in _without_units(one, other))


def _without_units(one: Expr, other: Expr) -> Iterable[tuple[Expr, Expr]]:
    """The two with their units in numbers: converted where both have some, left out where only one has."""
    ours, theirs = _units(one), _units(other)
    if ours and theirs:
        yield _converted(one), _converted(other)
        return
    yield _bare(one), _bare(other)
    if {"percent"} in (ours, theirs):
        yield _bare(_converted(one)), _bare(_converted(other))


def _units(expr: Expr) -> set[str]:
    """Names of the units of an expression; other words behind a number do not count."""
    return {part.name for part in parts(expr) if isinstance(part, Unit) and part.name}


def _bare(expr: Expr) -> Expr:
    return replaced(expr, lambda leaf: Num(Fraction(1)) if isinstance(leaf, Unit) else leaf)


def _converted(expr: Expr) -> Expr:
    """Units as their size times a variable for their dimension; percents as hundredths."""

    def convert(leaf: Expr) -> Expr:
        if not isinstance(leaf, Unit) or not leaf.name:
            return Num(Fraction(1)) if isinstance(leaf, Unit) else leaf
        dimension, factor = vocabulary.UNITS[leaf.name]
        return Num(factor) if dimension == "percent" else Op("*", (Num(factor), Sym(f"unit {dimension}")))

    return replaced(expr, convert)


def _same_plain(one: Expr, other: Expr) -> bool:
    names = sorted({part.name for expr in (one, other) for part in parts(expr) if isinstance(part, Sym)})
    if _infinite(one) or _infinite(other):
        return _infinite(one) == _infinite(other)
    if names:
        return _same_at_points(one, other, names)
    try:
        return exact(one) == exact(other)
    except NotRationalError:
        return _close(one, other, {})
    except TooLargeError:
        return _same_large(one, other)
    except UndefinedError:
        return False


def _infinite(expr: Expr) -> int:
    """1 for infinity, -1 for its negative, and 0 elsewhere."""
    if expr == Op("inf"):
        return 1
    if isinstance(expr, Op) and expr.name == "*" and Op("inf") in expr.args:
        others = [arg for arg in expr.args if arg != Op("inf")]
        if all(isinstance(arg, Num) for arg in others):
            return -1 if sum(isinstance(arg, Num) and arg.value < 0 for arg in others) % 2 else 1
    return 0


def _same_large(one: Expr, other: Expr) -> bool:
    try:
        return residue(one) == residue(other) and _close(one, other, {})
    except NotRationalError:
        return _close(one, other, {}) and _irrational(one, other)
    except TooLargeError:  # not even their logarithms can be written: only the same expression is known to be the same
        return False


def _irrational(one: Expr, other: Expr) -> bool:
    """Whether one of two has a part that is not made of whole numbers by calculation, so that digits have to do."""
    names = {part.name for expr in (one, other) for part in parts(expr) if isinstance(part, Op)}
    return bool(names - {"+", "*", "^", "!"})


def _rounded(*exprs: Expr) -> bool:
    return any(isinstance(part, Num) and part.decimal for expr in exprs for part in parts(expr))


def _close(one: Expr, other: Expr, values: Mapping[str, Fraction]) -> bool:
    """Whether two values agree to their relative precision.

    A difference that vanishes with a higher precision is nothing but rounding, so zero is found too.
    """
    try:
        ours, theirs = _evaluated(one, _MP, values), _evaluated(other, _MP, values)
        largest = max(abs(ours), abs(theirs))
        difference = abs(ours - theirs)
        if difference <= largest * (_ROUNDED if _rounded(one, other) else _CLOSE):
            return True
        if largest > 1e-30:
            return False
        return all(_vanishes(value, expr, values) for value, expr in ((ours, one), (theirs, other)))
    except (UndefinedError, TooLargeError):
        return False


def _vanishes(value: Any, expr: Expr, values: Mapping[str, Fraction]) -> bool:
    return bool(value == 0 or abs(_evaluated(expr, _FINER, values)) < abs(value) * 1e-20)


def _evaluated(expr: Expr, mp: Any, values: Mapping[str, Fraction]) -> Any:
    return numeric(expr, mp, {name: mp.mpf(value.numerator) / value.denominator for name, value in values.items()})


def points(names: list[str], negative: bool = False) -> list[dict[str, Fraction]]:
    """Points at which expressions are compared, the same in every run."""
    draw = random.Random("points")
    chosen = [{name: Fraction(draw.randint(300, 3000), 997) for name in names} for _ in range(_POINTS)]
    if negative:
        return [{name: -value if draw.random() < 0.6 else value for name, value in point.items()} for point in chosen]
    return chosen


def _same_at_points(one: Expr, other: Expr, names: list[str]) -> bool:
    """Whether two agree for positive variables everywhere, and elsewhere where both are real."""
    compared = 0
    for point in points(names):
        try:
            _evaluated(one, _MP, point), _evaluated(other, _MP, point)
        except (UndefinedError, TooLargeError):
            continue
        if not _close(one, other, point):
            return False
        compared += 1
    if compared < 3:
        return False
    return all(_close(one, other, point) for point in points(names, negative=True) if _real(one, point) and _real(other, point))


def _real(expr: Expr, point: Mapping[str, Fraction]) -> bool:
    try:
        value = _evaluated(expr, _MP, point)
    except (UndefinedError, TooLargeError):
        return False
    return bool(abs(_MP.im(value)) <= abs(value) * _CLOSE)


def proportional(one: Expr, other: Expr) -> int:
    """The sign of a constant, not zero, by which one expression is the other one multiplied; 0 if there is none."""
    names = sorted({part.name for expr in (one, other) for part in parts(expr) if isinstance(part, Sym)})
    ratios = []
    for point in points(names) + points(names, negative=True):
        try:
            ours, theirs = _evaluated(one, _MP, point), _evaluated(other, _MP, point)
        except (UndefinedError, TooLargeError):
            continue
        if abs(ours) < _CLOSE or abs(theirs) < _CLOSE:
            if abs(ours) >= _CLOSE or abs(theirs) >= _CLOSE:
                return 0
            continue
        ratios.append(ours / theirs)
    if len(ratios) < 3 or not names:
        return 0
    tolerance = _ROUNDED if _rounded(one, other) else _CLOSE
    if any(abs(ratio - ratios[0]) > abs(ratios[0]) * tolerance for ratio in ratios) or _MP.im(ratios[0]):
        return 0
    return 1 if _MP.re(ratios[0]) > 0 else -1


def real_value(expr: Expr) -> Any:
    """The value of a real constant, infinite ones included.

    Raises:
        UndefinedError: it is none.
    """
    if _infinite(expr):
        return _MP.inf * _infinite(expr)
    value = _evaluated(_bare(expr), _MP, {})
    if abs(_MP.im(value)) > abs(value) * _CLOSE:
        raise UndefinedError
    return _MP.re(value)


def linear_root(expr: Expr, name: str) -> tuple[Expr, int] | None:
    """Where a linear expression in one variable is zero, and the sign of its slope; `None` if it is not linear."""

    def at(value: int) -> Expr:
        return replaced(expr, lambda leaf: Num(Fraction(value)) if leaf == Sym(name) else leaf)

    slope = minus(at(1), at(0))
    try:
        if not all(_close(minus(at(later), at(later - 1)), slope, {}) for later in (2, 3, -7, 100)):
            return None
        sign = real_value(slope)
    except (UndefinedError, TooLargeError):
        return None
    if sign == 0:
        return None
    return Op("*", (Num(Fraction(-1)), at(0), Op("^", (slope, Num(Fraction(-1)))))), 1 if sign > 0 else -1
