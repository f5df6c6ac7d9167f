"""Whether two answers are equivalent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from .expression import Num, Op, Sym, TooLargeError, UndefinedError, minus, parts
from .forms import Based, Builder, Form, Items, Joined, Matrix, Relation, Sets, Span, Value, Word
from .number import proportional, real_value, same
from .reader import readings
from .regions import NoRegionError, region, same_region

_MOST_ITEMS = 200
_CLOCK = re.compile(r"\d{1,2}:\d{2}")


def equivalent(expected: str, answer: str) -> bool | None:
    """Whether an answer is equivalent to the expected one; `None` if one of the two cannot be read."""
    if _CLOCK.fullmatch(expected.strip()) and _CLOCK.fullmatch(answer.strip()):
        return expected.strip().lstrip("0") == answer.strip().lstrip("0")  # as ratios, 3:45 and 1:15 would be the same
    ours = readings(expected)
    theirs = readings(answer, comma=any(isinstance(form, Value) for form in ours))
    if not ours or not theirs:
        return None
    return any(same_form(one, other) for one in ours for other in theirs)


def same_form(one: Form, other: Form) -> bool:
    """Whether two forms are equivalent; the first is the expected one."""
    if one == other:
        return True
    one, other = _single(one), _single(other)
    if isinstance(one, (Relation, Joined)) or isinstance(other, (Relation, Joined)):
        return _same_relations(one, other)
    if isinstance(one, Word) or isinstance(other, Word):
        return _word(one) is not None and _word(one) == _word(other)
    if isinstance(one, Value) and isinstance(other, Value):
        return same(one.expr, other.expr)
    if isinstance(one, Based) or isinstance(other, Based):
        return isinstance(one, Based) and isinstance(other, Based) and one.value == other.value
    if isinstance(one, (Span, Sets, Builder)) or isinstance(other, (Span, Sets, Builder)):
        return _same_regions(one, other)
    if isinstance(one, Items) and isinstance(other, Items):
        return _same_items(one, other)
    return _same_matrices(one, other)


def _single(form: Form) -> Form:
    """A set or a list of one thing is that thing; one relation in the form ``x in {a, b}`` gives what it says x is."""
    while isinstance(form, Items) and form.kind in ("set", "list", "tuple") and len(form.items) == 1:
        form = form.items[0]
    if isinstance(form, Items) and form.kind == "list" and all(isinstance(item, Value) for item in form.items):
        distinct = _distinct(form.items)
        return distinct[0] if len(distinct) == 1 else form  # 1/2 or 0.5
    if isinstance(form, Builder):
        condition = form.condition
        if isinstance(condition, Relation) and condition.signs in (("=",), ("in",)) and isinstance(condition.sides[0], Value):
            return _single(condition.sides[1])
        if isinstance(condition, Items) and all(_assigned(item) is not None for item in condition.items):
            return Items("set", tuple(_assigned(item) or item for item in condition.items))
    return form


def _assigned(form: Form) -> Form | None:
    """The value that a relation ``x = …`` gives to a name; `None` for another form."""
    if not isinstance(form, Relation) or form.signs[-1] not in ("=", "in", "~"):
        return None
    return form.sides[-1]


# -- relations --


def _same_relations(one: Form, other: Form) -> bool:
    if isinstance(one, Relation) and isinstance(other, Relation) and _same_equations(one, other):
        return True
    if isinstance(one, Relation) and isinstance(other, Relation) and _is_equation(one) and _is_equation(other):
        return False
    if _inequality(one) or _inequality(other):
        return _same_regions(one, other) or _same_inequalities(one, other)
    if isinstance(other, Relation) and not isinstance(one, Relation):
        value = _value(other)
        return value is not None and same_form(one, value)
    if isinstance(one, Relation) and not isinstance(other, Relation):
        value = _value(one)
        known = _names_something(one.sides[0]) or not _has_names(one.sides[0])
        return known and value is not None and same_form(value, other)
    return False


def _inequality(form: Form) -> bool:
    relations = form.items if isinstance(form, Joined) else (form,)
    return any(isinstance(item, Relation) and not set(item.signs) <= {"=", "~", "in"} for item in relations)


def _is_equation(form: Relation) -> bool:
    return set(form.signs) <= {"=", "~"}


def _value(form: Relation) -> Form | None:
    """What a relation says that something is: its last side, or, if that is only about equal, the one before."""
    if set(form.signs) - {"=", "~", "in"}:
        return None
    last = len(form.sides) - 1
    if last == 1 and not _has_names(form.sides[0]) and isinstance(form.sides[1], Value) and isinstance(form.sides[1].expr, Sym):
        return form.sides[0]  # 5 = x
    while last > 1 and (form.signs[last - 1] == "~" or _rounds(form.sides[last], form.sides[last - 1])):
        last -= 1
    about = form.signs[0] == "~" or _rounds(form.sides[last], form.sides[0])
    if last == 1 and about and not _names_something(form.sides[0]):
        last = 0  # sqrt(2) is about 1.414
    value = form.sides[last]
    if value == Value(Num(Fraction(0))) and not _names_something(form.sides[0]):
        return None  # an equation
    return value


def _rounds(form: Form, exact: Form) -> bool:
    """Whether a decimal number is another value, rounded: 0.333 and 1/3."""
    if not (isinstance(form, Value) and isinstance(form.expr, Num) and form.expr.decimal and isinstance(exact, Value)):
        return False
    digits = next((k for k in range(30) if 10**k % form.expr.value.denominator == 0), 0)
    try:
        difference = real_value(minus(exact.expr, form.expr))
    except (UndefinedError, TooLargeError):
        return False
    return bool(0 < abs(difference) <= 0.51 * 10**-digits)


def _has_names(form: Form) -> bool:
    return not isinstance(form, Value) or any(isinstance(part, Sym) for part in parts(form.expr))


def _names_something(form: Form) -> bool:
    """Whether a side is a name that a value is given to: x, f(x), (x, y), AB, words."""
    if isinstance(form, Word):
        return True
    if isinstance(form, Items):
        return all(_names_something(item) for item in form.items)
    if not isinstance(form, Value):
        return False
    inner = parts(form.expr)
    if isinstance(form.expr, Op) and form.expr.name not in ("*", "!"):
        return False
    return any(isinstance(part, Sym) for part in inner) and not (
        isinstance(form.expr, Op) and isinstance(form.expr.args[0], Num)
    )


def _same_equations(one: Relation, other: Relation) -> bool:
    if not (_is_equation(one) and _is_equation(other)):
        return False
    ours, theirs = one.sides, other.sides
    value, found = _value(one), _value(other)
    named = _names_something(ours[0]) and _names_something(theirs[0])
    if named and value is not None and found is not None and same_form(value, found):
        return any(same_form(ours[0], label) for label in theirs[: max(1, len(theirs) - 1)])
    left, right = ours[-2:], theirs[-2:]
    if not all(isinstance(side, Value) for side in (*left, *right)):
        return False
    a, b, c, d = (side.expr for side in (*left, *right) if isinstance(side, Value))
    return proportional(minus(a, b), minus(c, d)) != 0


def _same_inequalities(one: Form, other: Form) -> bool:
    """Whether two inequalities in several variables say the same."""
    if not (isinstance(one, Relation) and isinstance(other, Relation) and len(one.signs) == len(other.signs) == 1):
        return False
    sides = [side.expr for form in (one, other) for side in form.sides if isinstance(side, Value)]
    if len(sides) != 4:
        return False
    sign = proportional(minus(sides[0], sides[1]), minus(sides[2], sides[3]))
    flipped = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(other.signs[0], other.signs[0])
    return sign != 0 and one.signs[0] == (other.signs[0] if sign > 0 else flipped)


# -- sets, lists, matrices, words --


def _same_regions(one: Form, other: Form) -> bool:
    try:
        return same_region(region(one), region(other))
    except NoRegionError:
        return isinstance(one, Span) and isinstance(other, Span) and _same_spans(one, other)


def _same_spans(one: Span, other: Span) -> bool:
    """Whether intervals are the same whose ends are no numbers."""
    ends = one.low_closed == other.low_closed and one.high_closed == other.high_closed
    return ends and same(one.low, other.low) and same(one.high, other.high)


def _same_items(one: Items, other: Items) -> bool:
    one, other = _coordinates(one, other), _coordinates(other, one)
    ordered = {"tuple", "vector", "row"}
    if one.kind in ordered or other.kind in ordered:
        kinds = {one.kind, other.kind}
        if len(kinds) > 1 and kinds != {"tuple", "vector"}:
            return False
        return len(one.items) == len(other.items) and all(map(same_form, one.items, other.items))
    ours, theirs = _flat(one), _flat(other)
    if max(len(ours), len(theirs)) > _MOST_ITEMS:
        return False
    if "set" in (one.kind, other.kind):
        ours, theirs = _distinct(ours), _distinct(theirs)
    return len(ours) == len(theirs) and _matched(ours, theirs)


def _coordinates(form: Items, other: Items) -> Items:
    """``x = 1, y = 2`` as a tuple, if it is compared with one."""
    if form.kind != "list" or other.kind != "tuple":
        return form
    labels = [item.sides[0] for item in form.items if isinstance(item, Relation) and _names_something(item.sides[0])]
    values = [_assigned(item) for item in form.items]
    if len(labels) < len(values) or any(label in labels[:index] for index, label in enumerate(labels)):
        return form
    return Items("tuple", tuple(value for value in values if value is not None))


def _flat(form: Items) -> list[Form]:
    """The items, with those of a list among them (of a plus-minus sign) in its place."""
    found: list[Form] = []
    for item in form.items:
        found.extend(_flat(item) if isinstance(item, Items) and item.kind == "list" else [item])
    return found


def _distinct(items: Sequence[Form]) -> list[Form]:
    found: list[Form] = []
    for item in items:
        if not any(same_form(item, other) for other in found):
            found.append(item)
    return found


def _matched(ours: Sequence[Form], theirs: Sequence[Form]) -> bool:
    """Whether items of two lists can be paired; being the same is nearly transitive, so the first partner is taken."""
    left = list(theirs)
    for item in ours:
        partner = next((index for index, other in enumerate(left) if same_form(item, other)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _same_matrices(one: Form, other: Form) -> bool:
    """Whether matrices are the same; a vector or a tuple is a column."""
    ours, theirs = _rows(one), _rows(other)
    if ours is None or theirs is None or not (isinstance(one, Matrix) or isinstance(other, Matrix)):
        return False
    return [len(row) for row in ours] == [len(row) for row in theirs] and all(
        same_form(left, right)
        for mine, yours in zip(ours, theirs, strict=True)
        for left, right in zip(mine, yours, strict=True)
    )


def _rows(form: Form) -> list[list[Form]] | None:
    if isinstance(form, Matrix):
        return [[Value(cell) for cell in row] for row in form.rows]
    if isinstance(form, Items) and form.kind in ("tuple", "vector"):
        return [[item] for item in form.items]
    return None


def _word(form: Form) -> str | None:
    """Words without articles and punctuation; a single letter is a word, too."""
    if isinstance(form, Word):
        return re.sub(r"^(?:an?|the|option|choice) (?=.)", "", form.text)
    if isinstance(form, Value) and isinstance(form.expr, Sym):
        return form.expr.name.lower()
    return form.expr.name if isinstance(form, Value) and isinstance(form.expr, Op) and not form.expr.args else None
