"""Checks of a finished document: its steps, re-evaluated with only what each path sees, give the reference answer.

Two checks that do not rely on each other: of the graph (each expression is evaluated from the results that its branch has
computed or seen), and of the text (no sentence of a path has a number that only a sibling's expression has produced).
"""

from __future__ import annotations

import re
from fractions import Fraction

from ...structure import Block, Body, Document
from ..errors import ValidationError
from .arithmetic import evaluate, mentions, shown, stated
from .blocks import Fork, Series, members
from .graph import CONSTANTS, Needs
from .solution import MISMATCH, Solution, Statement

NOT_INDEPENDENT = "not independent"


def verify(solution: Solution, statements: tuple[Statement, ...], series: Series, needs: Needs, document: Document) -> None:
    """Check a document.

    Args:
        series: the order of its statements.
        needs: the earlier statements that each statement may need.

    Raises:
        ValidationError: a step uses what its path does not see, a statement is missing, or the answer is another.
    """
    seen = _Walk(statements, needs).series(series, frozenset())
    if seen != frozenset(range(len(statements))) or sorted(members(series)) != sorted(seen):
        raise ValidationError(
            "lost statements", f"statements {sorted(set(range(len(statements))) - seen)} are not in the document"
        )
    last = members(series)[-1]
    found = _final(statements, last)
    if re.search(r"%|percent|\bcents?\b", solution.question):
        found += [value * scale for value in found[:1] for scale in (Fraction(100), Fraction(1, 100))]
    if solution.value not in found and not any(stated(shown(value), solution.value) for value in found):
        detail = (
            f"the last statement gives {', '.join(map(shown, found)) or 'no number'}, and {shown(solution.value)} is the answer"
        )
        raise ValidationError(MISMATCH, detail)
    given = {value for mention in mentions(solution.question) for value in mention.forms} | CONSTANTS
    check_numbers(document.trunk, given)


def _final(statements: tuple[Statement, ...], last: int) -> list[Fraction]:
    """The values that the last statement concludes with: of its last expression, or the known numbers of its text."""
    statement = statements[last]
    if statement.equations:
        value = statement.equations[-1].value
        rounded = [mention.value for mention in statement.mentions if abs(mention.value - value) < 1]
        return [value, *rounded, *(mention.value for mention in statement.mentions if _known(mention.value, statements))]
    return [mention.value for mention in statement.mentions]


def _known(value: Fraction, statements: tuple[Statement, ...]) -> bool:
    """Whether an expression of the solution has this value."""
    return any(value == equation.value for statement in statements for equation in statement.equations)


class _Walk:
    """Evaluates the statements of a series in document order; siblings do not see each other."""

    def __init__(self, statements: tuple[Statement, ...], needs: Needs) -> None:
        self.statements, self.needs = statements, needs

    def series(self, series: Series, seen: frozenset[int]) -> frozenset[int]:
        """The statements that are known after the series, given those before it."""
        for part in series:
            if isinstance(part, Fork):
                seen = seen.union(*(self.series(path, seen) for path in part.paths))
                continue
            if missing := self.needs[part] - seen:
                here, there = (self.statements[at].text[:80] for at in (part, min(missing)))
                raise ValidationError(NOT_INDEPENDENT, f"{here!r} needs {there!r}, which it cannot see")
            for equation in self.statements[part].equations:
                if evaluate(equation.expression).value != equation.exact:
                    raise ValidationError("wrong arithmetic", f"{equation.expression} is not {shown(equation.exact)}")
            seen |= {part}
        return seen


def check_numbers(body: Body, known: set[Fraction]) -> None:
    """No text of a path has a number that only an expression of a sibling has produced.

    Raises:
        ValidationError: one has.
    """
    known = set(known)
    for item in body:
        if isinstance(item, str):
            known |= _numbers(item)
            continue
        produced = [results(path) - known for path in item.paths]
        for number, path in enumerate(item.paths):
            others = set().union(*(made for index, made in enumerate(produced) if index != number)) - produced[number]
            if foreign := _used(path) & others:
                outline = item.outlines[number][:60]
                raise ValidationError(
                    NOT_INDEPENDENT, f"path {outline!r} has {shown(min(foreign))}, a result of a path beside it"
                )
            check_numbers(path, known)
        known |= _used((item,))


def results(body: Body) -> set[Fraction]:
    """The numbers that stand behind an equals sign in a path, blocks inside it and their conclusions included."""
    found: set[Fraction] = set()
    for item in body:
        if isinstance(item, Block):
            found = found.union(*(results(path) for path in item.paths), results((item.conclusion,)))
            continue
        for mention in mentions(item, words=False):
            if item[: mention.start].rstrip(" $-(").endswith("="):
                found.add(mention.value)
    return found


def _used(body: Body) -> set[Fraction]:
    found: set[Fraction] = set()
    for item in body:
        if isinstance(item, str):
            found |= _numbers(item)
        else:
            found = found.union(*(_used(path) for path in item.paths), _numbers(item.conclusion))
    return found


def _numbers(text: str) -> set[Fraction]:
    return {mention.value for mention in mentions(text, words=False)}
