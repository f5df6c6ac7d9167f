"""Values of expressions to as many digits as are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mpmath

from .expression import Expr, Num, Sym, TooLargeError, UndefinedError, Unit

_LOGARITHM = 1 << 40
"""Largest binary logarithm of a number that is evaluated."""


def context(digits: int) -> Any:
    """An arithmetic of mpmath with a precision of its own."""
    own = mpmath.MPContext()
    own.dps = digits
    return own


def numeric(expr: Expr, mp: Any, values: Mapping[str, Any]) -> Any:
    """The value of an expression, real or complex.

    Args:
        values: of the variables.

    Raises:
        UndefinedError: it has none.
        TooLargeError: it is too large.
    """
    try:
        found = _numeric(expr, mp, values)
    except (ZeroDivisionError, ValueError, TypeError, OverflowError, KeyError, NotImplementedError, mpmath.libmp.NoConvergence):
        raise UndefinedError from None
    if not mp.isfinite(found):
        raise UndefinedError
    return found


def _numeric(expr: Expr, mp: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(expr, Num):
        return mp.mpf(expr.value.numerator) / expr.value.denominator
    if isinstance(expr, Sym):
        return values[expr.name]
    if isinstance(expr, Unit):
        raise UndefinedError
    args = [_numeric(arg, mp, values) for arg in expr.args]
    return _FUNCTIONS[expr.name](mp, *args)


def _bounded(mp: Any, value: Any, largest: float) -> None:
    if value != 0 and mp.mag(value) > math.log2(largest) + 1:
        raise TooLargeError


def _numeric_power(mp: Any, base: Any, exponent: Any) -> Any:
    if base == 0:
        if mp.re(exponent) <= 0:
            raise UndefinedError
        return mp.mpf(0)
    _bounded(mp, exponent, _LOGARITHM)
    _bounded(mp, exponent * (mp.log(abs(base)) / mp.ln(2)), _LOGARITHM)
    if not mp.im(base) and mp.re(base) < 0 and not mp.im(exponent) and mp.re(exponent) != mp.floor(mp.re(exponent)):
        for degree in (3, 5, 7, 9):  # the real root of an odd degree
            whole = mp.nint(exponent * degree)
            if abs(exponent * degree - whole) < mp.mpf(10) ** (5 - mp.dps):
                return (-1 if int(whole) % 2 else 1) * mp.power(-base, exponent)
    return mp.power(base, exponent)


def _numeric_root(mp: Any, value: Any, degree: Any) -> Any:
    n = int(degree)
    if n != degree or not 1 <= n <= 10_000:
        raise UndefinedError
    if not mp.im(value) and mp.re(value) < 0 and n % 2:
        return -mp.root(-value, n)
    return mp.root(value, n)


def _numeric_factorial(mp: Any, value: Any) -> Any:
    _bounded(mp, value, 1e9)
    return mp.factorial(value)


def _numeric_double_factorial(mp: Any, value: Any) -> Any:
    _bounded(mp, value, 1e9)
    return mp.fac2(value)


def _numeric_binomial(mp: Any, n: Any, k: Any) -> Any:
    _bounded(mp, n, 1e9)
    _bounded(mp, k, 1e9)
    return mp.binomial(n, k)


def _numeric_exponential(mp: Any, value: Any) -> Any:
    _bounded(mp, value, _LOGARITHM)
    return mp.exp(value)


def _bounded_function(name: str) -> Callable[..., Any]:
    def call(mp: Any, value: Any) -> Any:
        _bounded(mp, value, 1e300)
        return getattr(mp, name)(value)

    return call


def _whole(name: str) -> Callable[..., Any]:
    def call(mp: Any, value: Any) -> Any:
        nearest = mp.nint(value)
        return nearest if abs(value - nearest) < mp.mpf(10) ** (10 - mp.dps) else getattr(mp, name)(value)

    return call


_BY_NAME = ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch"]
_BY_NAME += ["asin", "acos", "atan", "acot", "asec", "acsc", "asinh", "acosh", "atanh"]
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: _bounded_function(name) for name in _BY_NAME},
    "+": lambda mp, *args: sum(args, mp.mpf(0)),
    "*": lambda mp, *args: math.prod(args, start=mp.mpf(1)),
    "^": _numeric_power,
    "root": _numeric_root,
    "!": _numeric_factorial,
    "!!": _numeric_double_factorial,
    "binom": _numeric_binomial,
    "exp": _numeric_exponential,
    "log": lambda mp, value, base: mp.log(value) / mp.log(base),
    "abs": lambda _, value: abs(value),
    "floor": _whole("floor"),
    "ceil": _whole("ceil"),
    "min": lambda _, *args: min(args),
    "max": lambda _, *args: max(args),
    "mod": lambda _, one, other: one % other,
    "re": lambda mp, value: mp.re(value),
    "im": lambda mp, value: mp.im(value),
    "arg": lambda mp, value: mp.arg(value),
    "conj": lambda mp, value: mp.conj(value),
    "pi": lambda mp: +mp.pi,
    "e": lambda mp: +mp.e,
    "i": lambda mp: mp.mpc(0, 1),
}
