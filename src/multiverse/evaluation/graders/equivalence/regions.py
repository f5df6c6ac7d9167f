"""Sets of real numbers: intervals, their unions, and conditions, brought into one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .expression import Expr, Op, Sym, TooLargeError, UndefinedError, minus, negated, parts
from .forms import Builder, Form, Items, Joined, Relation, Sets, Span, Value
from .number import linear_root, real_value, same

_INFINITY: Expr = Op("inf")
EVERYTHING = Span(negated(_INFINITY), _INFINITY, False, False)


class NoRegionError(Exception):
    """The form is no set of real numbers that can be read."""


@dataclass(frozen=True)
class Piece:
    """An interval with the values of its ends; a single number has two equal ends."""

    low: Expr
    high: Expr
    low_closed: bool
    high_closed: bool

    @property
    def ends(self) -> tuple[Any, Any]:
        """The values of both ends."""
        return real_value(self.low), real_value(self.high)


def region(form: Form) -> list[Piece]:
    """The pieces of a set of real numbers, in order and as few as possible.

    Raises:
        NoRegionError: it is none.
    """
    try:
        return _merged(_pieces(form))
    except (UndefinedError, TooLargeError):
        raise NoRegionError from None


def same_region(one: list[Piece], other: list[Piece]) -> bool:
    """Whether two sets are the same."""
    return len(one) == len(other) and all(
        (ours.low_closed, ours.high_closed) == (theirs.low_closed, theirs.high_closed)
        and same(ours.low, theirs.low)
        and same(ours.high, theirs.high)
        for ours, theirs in zip(one, other, strict=True)
    )


def _pieces(form: Form) -> list[Piece]:
    if isinstance(form, Span):
        return [Piece(form.low, form.high, form.low_closed, form.high_closed)]
    if isinstance(form, Items) and form.kind == "tuple" and len(form.items) == 2:
        low, high = (_expr(item) for item in form.items)
        return [Piece(low, high, False, False)]
    if isinstance(form, Items) and form.kind in ("set", "list"):
        values = [_expr(item) for item in form.items]
        return [Piece(value, value, True, True) for value in values]
    if isinstance(form, Value):
        return [Piece(form.expr, form.expr, True, True)]
    if isinstance(form, Sets):
        return _combined(form)
    if isinstance(form, Builder):
        return _pieces(form.condition)
    if isinstance(form, Joined):
        found = [_merged(_pieces(item)) for item in form.items]
        result = found[0]
        for pieces in found[1:]:
            result = [*result, *pieces] if form.name == "or" else _intersection(result, pieces)
        return result
    if isinstance(form, Relation):
        return _condition(form)
    raise NoRegionError


def _expr(form: Form) -> Expr:
    if not isinstance(form, Value):
        raise NoRegionError
    return form.expr


def _combined(form: Sets) -> list[Piece]:
    one, other = (_merged(_pieces(item)) for item in form.items)
    if form.name == "cup":
        return [*one, *other]
    return _intersection(one, other if form.name == "cap" else _complement(other))


def _condition(form: Relation) -> list[Piece]:
    """Numbers for which a chain of relations in one variable holds."""
    if form.signs == ("in",):
        return _pieces(form.sides[1])
    names = {part.name for side in form.sides if isinstance(side, Value) for part in parts(side.expr) if isinstance(part, Sym)}
    if len(names) != 1:
        raise NoRegionError
    name = names.pop()
    result = [_as_piece(EVERYTHING)]
    for left, sign, right in zip(form.sides, form.signs, form.sides[1:], strict=False):
        if sign == "=" and isinstance(right, Items):
            result = _intersection(result, _pieces(right))
            continue
        result = _intersection(result, _solved(minus(_expr(left), _expr(right)), sign, name))
    return result


def _solved(expr: Expr, sign: str, name: str) -> list[Piece]:
    """Numbers for which a linear expression is positive, negative or zero."""
    if sign not in ("<", "<=", ">", ">=", "=", "!="):
        raise NoRegionError
    found = linear_root(expr, name)
    if found is None:
        raise NoRegionError
    root, slope = found
    point = [Piece(root, root, True, True)]
    if sign in ("=", "!="):
        return point if sign == "=" else _complement(point)
    if (sign[0] == "<") == (slope > 0):
        return [Piece(EVERYTHING.low, root, False, len(sign) == 2)]
    return [Piece(root, _INFINITY, len(sign) == 2, False)]


def _as_piece(span: Span) -> Piece:
    return Piece(span.low, span.high, span.low_closed, span.high_closed)


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Pieces in order, with those joined that touch or overlap, and without empty ones."""
    result: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.ends[0], not piece.low_closed)):
        low, high = piece.ends
        if low > high or (low == high and not (piece.low_closed and piece.high_closed)):
            continue
        last = result[-1] if result else None
        if last is None or low > last.ends[1] or (low == last.ends[1] and not (piece.low_closed or last.high_closed)):
            result.append(piece)
        elif high > last.ends[1] or (high == last.ends[1] and piece.high_closed):
            result[-1] = Piece(last.low, piece.high, last.low_closed, piece.high_closed)
    return result


def _intersection(one: list[Piece], other: list[Piece]) -> list[Piece]:
    result = []
    for ours in one:
        for theirs in other:
            low = max(((piece.ends[0], not piece.low_closed, piece.low) for piece in (ours, theirs)), key=lambda end: end[:2])
            high = min(((piece.ends[1], piece.high_closed, piece.high) for piece in (ours, theirs)), key=lambda end: end[:2])
            result.append(Piece(low[2], high[2], not low[1], high[1]))
    return _merged(result)


def _complement(pieces: list[Piece]) -> list[Piece]:
    result = [_as_piece(EVERYTHING)]
    for piece in pieces:
        outside = [
            Piece(EVERYTHING.low, piece.low, False, not piece.low_closed),
            Piece(piece.high, _INFINITY, not piece.high_closed, False),
        ]
        result = _intersection(result, outside)
    return result
