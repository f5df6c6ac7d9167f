"""Exact values of rational numbers, and residues of those that are too large to be written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from .expression import Expr, NotRationalError, Num, Op, TooLargeError, UndefinedError

_BITS = 1 << 18
"""Longest exact number, in bits of numerator and denominator."""
_LARGEST_FACTORIAL = 20_000
_LARGEST_RESIDUE = 2_000_000
"""Largest number whose factorial is found modulo a prime."""
_MODULUS = (1 << 61) - 1
"""A prime: rational numbers too large to be written out are compared by their residues."""


def exact(expr: Expr) -> Fraction:
    """The value of a rational number.

    Raises:
        NotRationalError: it is none, or not known to be one.
        TooLargeError: it is too large to be written out.
        UndefinedError: it has no value.
    """
    if isinstance(expr, Num):
        return expr.value
    if not isinstance(expr, Op):
        raise NotRationalError
    if expr.name not in _EXACT:
        raise NotRationalError
    return _EXACT[expr.name](*(exact(arg) for arg in expr.args))


def _size(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _sum(*values: Fraction) -> Fraction:
    total = Fraction(0)
    for value in values:
        if _size(total) + _size(value) > _BITS:
            raise TooLargeError
        total += value
    return total


def _product(*values: Fraction) -> Fraction:
    total = Fraction(1)
    for value in values:
        if _size(total) + _size(value) > _BITS:
            raise TooLargeError
        total *= value
    return total


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if base == 0 and exponent <= 0:
        raise UndefinedError
    if exponent.denominator > 1:
        if exponent.denominator > 64 or (base < 0 and exponent.denominator % 2 == 0):
            raise NotRationalError
        base, exponent = _root(base, Fraction(exponent.denominator)), Fraction(exponent.numerator)
    if base in (0, 1, -1):
        return base if base != -1 or exponent.numerator % 2 else Fraction(1)
    if _size(base) * abs(exponent) > _BITS:
        raise TooLargeError
    return base**exponent.numerator


def _root(value: Fraction, degree: Fraction) -> Fraction:
    """The root of a perfect power; the real one if the degree is odd."""
    n = degree.numerator
    if degree.denominator != 1 or not 1 <= n <= 64 or (value < 0 and n % 2 == 0):
        raise NotRationalError
    roots = [_integer_root(abs(part), n) for part in (value.numerator, value.denominator)]
    found = Fraction(roots[0], roots[1])
    if found**n != abs(value):
        raise NotRationalError
    return found if value >= 0 else -found


def _integer_root(value: int, n: int) -> int:
    """The integer part of a root, by Newton's method."""
    if n == 2:
        return math.isqrt(value)
    if value < 2 or n == 1:
        return value
    guess = 1 << -(-value.bit_length() // n)
    while True:
        better = ((n - 1) * guess + value // guess ** (n - 1)) // n
        if better >= guess:
            return guess
        guess = better


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise NotRationalError
    if value > _LARGEST_FACTORIAL:
        raise TooLargeError
    return Fraction(math.factorial(value.numerator))


def _double_factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise NotRationalError
    if value > _LARGEST_FACTORIAL // 10:
        raise TooLargeError
    return Fraction(math.prod(range(value.numerator, 0, -2)))


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator != 1 or k.denominator != 1 or n < 0:
        raise NotRationalError
    if k < 0 or k > n:
        return Fraction(0)
    if min(k, n - k) * max(1, n.numerator.bit_length()) > _BITS // 8:
        raise TooLargeError
    return Fraction(math.comb(n.numerator, k.numerator))


def _integers(*values: Fraction) -> list[int]:
    if any(value.denominator != 1 for value in values):
        raise NotRationalError
    return [value.numerator for value in values]


def _modulo(one: Fraction, other: Fraction) -> Fraction:
    if other == 0:
        raise UndefinedError
    return one % other


_EXACT: Mapping[str, Callable[..., Fraction]] = {
    "+": _sum,
    "*": _product,
    "^": _power,
    "!": _factorial,
    "!!": _double_factorial,
    "root": _root,
    "binom": _binomial,
    "abs": abs,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "gcd": lambda *values: Fraction(math.gcd(*_integers(*values))),
    "lcm": lambda *values: Fraction(math.lcm(*_integers(*values))),
    "mod": _modulo,
}


# -- residues --


def residue(expr: Expr, modulus: int = _MODULUS) -> int:
    """A rational number modulo a prime; of an exponent, modulo that prime less one.

    Raises:
        NotRationalError: it has none, or none that can be found.
    """
    if isinstance(expr, Num):
        if math.gcd(expr.value.denominator, modulus) != 1:
            raise NotRationalError
        return expr.value.numerator * pow(expr.value.denominator, -1, modulus) % modulus
    if not isinstance(expr, Op) or expr.name not in ("+", "*", "^", "!"):
        raise NotRationalError
    if expr.name == "!":
        return _factorial_residue(expr.args[0], modulus)
    if expr.name == "^":
        base = residue(expr.args[0], modulus)
        try:
            exponent = exact(expr.args[1])
        except TooLargeError:
            if modulus != _MODULUS or base == 0:  # Fermat's little theorem holds modulo the prime only
                raise NotRationalError from None
            return pow(base, residue(expr.args[1], modulus - 1), modulus)
        if exponent.denominator != 1 or (exponent < 0 and math.gcd(base, modulus) != 1):
            raise NotRationalError
        return pow(base, exponent.numerator, modulus)
    values = [residue(arg, modulus) for arg in expr.args]
    return (sum(values) if expr.name == "+" else math.prod(values)) % modulus


def _factorial_residue(expr: Expr, modulus: int) -> int:
    try:
        value = exact(expr)
    except TooLargeError:
        raise NotRationalError from None
    if value.denominator != 1 or not 0 <= value <= _LARGEST_RESIDUE:
        raise NotRationalError
    result = 1
    for factor in range(2, value.numerator + 1):
        result = result * factor % modulus
    return result
