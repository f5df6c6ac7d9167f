"""The graph of a solution: which statement needs the result of which, by value and by meaning.

A number that a statement uses is a result of an earlier one, a number of the question, or a constant. Where its value fits
several of these, units and words decide, then the rule that every result is used; where neither does, all readings are kept,
and the solution is rejected if they lead to different blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from ..errors import ValidationError
from .arithmetic import Mention, mentions, shown, stated
from .blocks import Series, decompose
from .references import Reference, references
from .solution import Statement
from .words import content

AMBIGUOUS, UNKNOWN, UNUSED, TOO_LONG = "ambiguous number", "number without a source", "unused result", "too long"
"""Reasons for which a solution is rejected here."""

MOST_STATEMENTS = 24
_MOST_READINGS = 256
_AROUND = 8  # words on each side of a number of the question that say what it is
_SHARED = 2  # words that a statement shares with these, and not with a result, so that its number is the question's
_READ_AS_WORDS = 3  # smaller numbers, as words, are idioms more often than results

_CONSTANTS = """
    0 1 2 3 4 5 6 7 8 10 12 16 24 28 30 31 36 52 60 90 100 180 360 365 366 1000 1440 3600 5280 1000000
    1/2 1/3 1/4 3/4 1/5 1/10 1/20 1/100 2/3
"""
CONSTANTS = frozenset(Fraction(text) for text in _CONSTANTS.split())
"""Numbers that need no source: how many things are counted, and what everybody knows of time, measures and money."""

_KNOWN = re.compile(
    r"\b(?:twice|double[sd]?|triple[sd]?|half|halves|dozens?|average|mean|both|percent|percentage|years?|months?|weeks?|weekends?"
    r"|days?|hours?|minutes?|seconds?|feet|foot|inch(?:es)?|yards?|ounces?|pounds?|cents?|dimes?|nickels?|quarters?|pairs?"
    r"|perimeter|square|sides?|thirds?|fifths?|tenths?)\b|%",
    re.IGNORECASE,
)

Needs = dict[int, frozenset[int]]
"""The earlier statements that each statement needs."""


class Use(NamedTuple):
    """A number that a statement uses.

    Attributes:
        statement: its number.
        value: the number.
        unit: see `Mention`.
        inside: whether it is an operand of an expression.
        expression: the number of the expression in its statement; for a number of the text, how many there are.
        priced: whether another number of its expression is marked as money, so that this one is none.
    """

    statement: int
    value: Fraction
    unit: str
    inside: bool
    expression: int
    priced: bool


@dataclass(frozen=True)
class Source:
    """Where a number may come from.

    Attributes:
        results: earlier statements with this result, or a form of it.
        given: whether the question has it.
        known: whether it may do without a source: a constant, or a number that words of the question, such as *half*, imply.
        exact: whether the results are the number itself, not another form of it.
    """

    results: tuple[int, ...]
    given: bool
    known: bool
    exact: bool = True


@dataclass
class Graph:
    """Statements with what they need.

    Attributes:
        statements: of the solution.
        certain: what each statement needs, in every reading.
        readings: of each number whose source is not certain, the sets of edges (statement, needed) that it may stand for.
        words: references by words.
        unsure: a description of each number that has readings.
    """

    statements: Sequence[Statement]
    certain: dict[int, set[int]]
    words: list[Reference]
    readings: list[tuple[frozenset[tuple[int, int]], ...]] = field(default_factory=list)
    unsure: list[tuple[str, str]] = field(default_factory=list)

    def needs(self, extra: Sequence[frozenset[tuple[int, int]]] = ()) -> Needs:
        """What each statement needs, with these edges in addition."""
        found = {at: set(before) for at, before in self.certain.items()}
        for edges in extra:
            for statement, needed in edges:
                found[statement].add(needed)
        return {at: frozenset(before) for at, before in found.items()}

    @property
    def plausible_needs(self) -> Needs:
        """What each statement may need, in any plausible reading."""
        found = self._plausible()
        return {at: frozenset().union(*(needs[at] for needs in found)) for at in self.certain}

    @property
    def all_needs(self) -> Needs:
        """What each statement may need, in any reading."""
        return self.needs([edges for readings in self.readings for edges in readings])

    def series(self, min_gain: int = 0) -> Series:
        """The decomposition of the statements.

        Raises:
            ValidationError: the readings do not lead to the same.
        """
        number = math.prod(len(readings) for readings in self.readings)
        if number > _MOST_READINGS:
            self._reject(f"there are {number:,} readings")
        words = [len(statement.text.split()) for statement in self.statements]
        found = {decompose(words, needs, min_gain=min_gain) for needs in self._plausible()}
        if len(found) > 1:
            self._reject("the blocks depend on it")
        return found.pop()

    def _plausible(self) -> list[Needs]:
        """What each statement needs, in every reading; where there are some in which every result is used, only in those."""
        everything = [self.needs(chosen) for chosen in product(*self.readings)]
        results = {at for at, statement in enumerate(self.statements[:-1]) if statement.equations}
        complete = [needs for needs in everything if results <= frozenset().union(*needs.values())]
        return complete or everything

    def _reject(self, why: str) -> None:
        reason = self.unsure[0][0]
        raise ValidationError(reason, "; ".join(text for _, text in self.unsure[:6]) + f": {why}")


def build(question: str, statements: Sequence[Statement]) -> Graph:
    """The graph of a solution's statements.

    Raises:
        ValidationError: there are too many statements.
    """
    if len(statements) > MOST_STATEMENTS:
        raise ValidationError(TOO_LONG, f"it has {len(statements)} statements, at most {MOST_STATEMENTS} are ordered")
    return _Builder(question, statements).graph()


class _Builder:
    def __init__(self, question: str, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.text, self.question = question, mentions(question)
        self.made: list[dict[Fraction, str]] = [self._results(statement) for statement in statements]
        self.uses: list[tuple[Use, Source]] = []
        for at, statement in enumerate(statements):
            for use in uses(at, statement):
                source = self._source(use)
                self.uses.append((use, source))
                if not source.results and not source.known:
                    self.made[at].setdefault(use.value, use.unit)  # found without an expression
        words = references(question, [statement.text for statement in statements])
        certain = {at: set(words[at].needs) for at in range(len(statements))}
        for at, statement in enumerate(statements[:-1]):
            if not statement.equations:
                for later in self._speaking_of(at) or [at + 1]:
                    certain[later].add(at)
        self.built = Graph(statements, certain, words)

    def _speaking_of(self, remark: int) -> list[int]:
        """The later statements that use a number which a statement without expressions speaks of."""
        said = {use.value for use, _ in self.uses if use.statement == remark} | set(self.made[remark])
        return sorted({use.statement for use, _ in self.uses if use.statement > remark and use.value in said})

    @staticmethod
    def _results(statement: Statement) -> dict[Fraction, str]:
        """The results of a statement, with their units."""
        found = mentions(statement.text, words=False)
        place = {(mention.start, mention.end): mention.unit for mention in found}
        elsewhere = {mention.value: mention.unit for mention in found if mention.unit}
        values = [(equation.value, place.get(equation.result, "")) for equation in statement.equations]
        return {value: unit or elsewhere.get(value, "") for value, unit in values}

    def _source(self, use: Use) -> Source:
        earlier = range(use.statement - 1, -1, -1)
        given = any(use.value == mention.value for mention in self.question)
        known = use.value in CONSTANTS or any(use.value in mention.forms for mention in self.question)
        exact = tuple(at for at in earlier if use.value in self.made[at] or -use.value in self.made[at])
        if exact:
            return Source(exact, given, known)
        formed = tuple(at for at in earlier if any(same(use.value, *result) for result in self.made[at].items()))
        return Source(formed[:1], given, known, exact=False)

    def graph(self) -> Graph:
        for use, source in self.uses:
            needed = self._needed(use, source)
            if isinstance(needed, frozenset):
                self.built.certain[use.statement] |= needed
            else:
                self.built.readings.append(tuple(frozenset((use.statement, at) for at in reading) for reading in needed))
                self.built.unsure.append((AMBIGUOUS if source.results else UNKNOWN, self._described(use, source)))
        self._unused()
        return self.built

    def _needed(self, use: Use, source: Source) -> frozenset[int] | tuple[frozenset[int], ...]:
        """What a use needs, or its readings if that is not certain."""
        nothing: frozenset[int] = frozenset()
        if not source.results:
            if source.known or not use.statement:
                return nothing
            return (nothing, frozenset(range(use.statement)))
        free = source.given or (source.known and self._idiomatic(use))
        if not free and len(source.results) == 1:
            return frozenset(source.results)
        if not source.exact:
            return (nothing, frozenset(source.results)) if self._marked(use, source) else nothing
        by_unit = self._by_unit(use, source)
        if by_unit is not None:
            return by_unit
        only = frozenset(at for at in source.results if self._consumers(at) == {use.statement})
        if only and self._times(use) == 1:
            return only
        readings = tuple(frozenset({at}) for at in source.results)
        if len(readings) > 1 and self._repeated(use, len(readings)):
            return frozenset(source.results)
        if not free:
            return readings
        by_words = self._by_words(use, source)
        return (*readings, nothing) if by_words is None else by_words

    def _by_unit(self, use: Use, source: Source) -> frozenset[int] | None:
        """What a use needs, by its unit; `None` if that does not tell."""
        if not use.unit and not use.priced:
            return None
        units = {at: self.made[at].get(use.value, self.made[at].get(-use.value, "")) for at in source.results}
        if not use.unit:
            no_price = frozenset(at for at, unit in units.items() if unit != "$")
            return frozenset() if source.given and not no_price else None
        same_unit = frozenset(at for at, unit in units.items() if unit == use.unit)
        in_question = {mention.unit for mention in self.question if use.value in mention.forms}
        if use.unit not in in_question and len(same_unit) == 1:
            return same_unit
        if use.unit in in_question and all(unit and unit != use.unit for unit in units.values()):
            return frozenset()
        return None

    def _by_words(self, use: Use, source: Source) -> frozenset[int] | None:
        """What a use needs, by the words that its statement shares with the question's number or with the results only."""
        own = content(self.statements[use.statement].text)
        given: set[str] = set()
        for mention in self.question:
            if use.value in mention.forms:
                given |= content(_around(self.text, mention))
        made = set().union(*(content(self.statements[at].text) for at in source.results))
        like_given, like_results = len(own & (given - made)), len(own & (made - given))
        if like_results and not like_given:
            return frozenset(source.results)
        return frozenset() if like_given >= _SHARED and not like_results and source.given else None

    def _idiomatic(self, use: Use) -> bool:
        """Whether a statement speaks of times, measures or shares, for which some numbers need no source."""
        return not use.inside or _KNOWN.search(self.statements[use.statement].text) is not None

    def _marked(self, use: Use, source: Source) -> bool:
        """Whether a result whose other form is used is a share, which the question's number may be as well."""
        return any(unit == "%" or value < 1 for at in source.results for value, unit in self.made[at].items()) and use.inside

    def _consumers(self, at: int) -> set[int]:
        """The statements that may use the result of this one."""
        return {use.statement for use, source in self.uses if at in source.results}

    def _times(self, use: Use) -> int:
        """How often a statement uses the number."""
        return sum(other.statement == use.statement and other.value == use.value for other, _ in self.uses)

    def _repeated(self, use: Use, results: int) -> bool:
        """Whether one expression has the number as often as there are results: 300 + 300 takes both."""
        same_expression = [other for other, _ in self.uses if other[:2] == use[:2] and other.expression == use.expression]
        return use.inside and len(same_expression) >= results

    def _unused(self) -> None:
        """A result that no later statement uses is used in words, by one that is not known."""
        last = len(self.statements) - 1
        used = {at for needed in self.built.all_needs.values() for at in needed}
        for at, statement in enumerate(self.statements[:-1]):
            if at not in used and statement.equations:
                self.built.readings.append(
                    tuple(frozenset({(later, at)} if later > at else ()) for later in (at, *range(at + 1, last + 1)))
                )
                self.built.unsure.append((UNUSED, f"no later statement has the result of {_short(statement.text)!r}"))

    def _described(self, use: Use, source: Source) -> str:
        where = _short(self.statements[use.statement].text)
        if not source.results:
            return f"{shown(use.value)} in {where!r} comes from nowhere"
        results = " and of ".join(repr(_short(self.statements[at].text)) for at in source.results)
        return f"{shown(use.value)} in {where!r} is a result of {results}" + (
            ", and given" if source.given else ", and known" if source.known else ""
        )


def uses(at: int, statement: Statement) -> Iterator[Use]:
    """The numbers that a statement uses and has not calculated itself; operands that its text does not show come last."""
    results = {equation.result for equation in statement.equations}
    own: set[Fraction] = {equation.value for equation in statement.equations}
    operands = {value for equation in statement.equations for value in equation.operands}
    missing = [list(equation.operands) for equation in statement.equations]
    money = {
        _inside(mention, statement) for mention in statement.mentions if mention.unit == "$" and _operand(mention, results)
    }
    for mention in statement.mentions:
        if not _operand(mention, results):
            continue
        inside = _inside(mention, statement)
        if inside is not None:
            used = next((value for value in missing[inside] if value in mention.forms), None)
            if used is not None:
                missing[inside].remove(used)
            if mention.value in _before(statement, inside):
                continue
        elif mention.value in own or (not statement.text[mention.start].isdigit() and not _counted(mention, statement)):
            continue
        priced = inside is not None and inside in money and mention.unit != "$"
        calculated = inside is not None or mention.value in operands
        yield Use(at, mention.value, mention.unit, calculated, _number(inside, statement), priced)
    for number, values in enumerate(missing):
        for value in values:
            if value not in _before(statement, number):
                yield Use(at, value, "", True, number, False)


def _operand(mention: Mention, results: Collection[tuple[int, int]]) -> bool:
    return (mention.start, mention.end) not in results


def _number(inside: int | None, statement: Statement) -> int:
    return len(statement.equations) if inside is None else inside


def _counted(mention: Mention, statement: Statement) -> bool:
    """Whether a number outside of the expressions may be a result: digits, or a word for more than two."""
    text = statement.text[mention.start : mention.end]
    return text[0] == "." or (mention.value >= _READ_AS_WORDS and mention.value.denominator == 1 and len(mention.forms) == 1)


def _inside(mention: Mention, statement: Statement) -> int | None:
    """The number of the expression that a mention lies in."""
    for number, equation in enumerate(statement.equations):
        if equation.start <= mention.start < equation.end:
            return number
    return None


def _before(statement: Statement, number: int) -> set[Fraction]:
    """The results of the expressions before this one in its statement."""
    return {equation.value for equation in statement.equations[:number]}


def same(value: Fraction, result: Fraction, unit: str) -> bool:
    """Whether a number is another form of a result: as a share or per cent, what it leaves, or rounded."""
    if unit == "%" and value in (result / 100, 100 - result, 1 - result / 100, 100 + result, 1 + result / 100):
        return True
    if 0 < result < 1 and value in (result * 100, 1 - result, 100 - result * 100, 1 + result):
        return True
    if result.denominator > 1 and value.denominator == 1 and abs(value - result) < 1:
        return True
    if result.denominator > 1 and value.denominator > 1:
        return stated(f"{float(value):.2f}", result) and abs(value - result) < Fraction(1, 100)
    return value in (result * 100, result / 100) and unit in ("$", "cent") and value != result


def _around(text: str, mention: Mention) -> str:
    """The words around a number, within its sentence."""
    before = re.split(r"[.?!;]\s", text[: mention.start])[-1].split()[-_AROUND:]
    behind = re.split(r"[.?!;](?:\s|$)", text[mention.end :])[0].split()[:_AROUND]
    return " ".join([*before, *behind])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
