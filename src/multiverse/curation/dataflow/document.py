"""From an ordered solution to a structured document: paths of its own sentences, outlines and conclusions made by code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...structure import Block, Dialect, Document, place, unnested
from .arithmetic import mentions
from .blocks import Fork, Series, members
from .graph import Graph, Needs
from .outlines import outline, result_text, weak
from .references import standing_alone
from .solution import Solution

_IMPERATIVE = re.compile(r"(?:find(?: out)?|calculate|figure out|determine|compute)(?: (?=how)|(?=\s+the\b)\s+)", re.IGNORECASE)


def make_document(solution: Solution, graph: Graph, series: Series, needs: Needs, dialect: Dialect, phrase: str) -> Document:
    """The document of a solution whose statements are ordered.

    Args:
        needs: the earlier statements that each statement may need.
        phrase: last words of a text before a block, where that is in the thinking; empty for none.
    """
    maker = _Maker(solution, graph, needs, dialect, phrase)
    return maker.document(series)


class _Maker:
    def __init__(self, solution: Solution, graph: Graph, needs: Needs, dialect: Dialect, phrase: str) -> None:
        self.solution, self.graph, self.needs = solution, graph, needs
        self.dialect, self.phrase = dialect, phrase if dialect.forks_thinking else ""
        self.given = {value for mention in mentions(solution.question) for value in mention.forms}

    def document(self, series: Series) -> Document:
        return place(_joined(self.body(series, path=False)), self.solution.answer, self.dialect)

    def body(self, series: Series, *, path: bool) -> list[str | Block]:
        items: list[str | Block] = []
        before: int | None = None
        at = 0
        while at < len(series):
            part = series[at]
            at += 1
            if isinstance(part, Fork):
                joining = self.joining(part, series[at:])
                if self.phrase:
                    _add(items, self.phrase, "\n")
                items.append(self.block(part, joining))
                if joining is not None:
                    if self.dialect.conclusion is None:
                        items.append(self.text(joining))
                    before, at = joining, at + 1
                continue
            alone = path and not items
            text = self.alone(part) if alone else self.text(part, before)
            line = self.graph.statements[part].same_line and before == part - 1
            _add(items, text, " " if line else "\n")
            before = part
        return items

    def joining(self, fork: Fork, behind: Series) -> int | None:
        """The statement behind a fork, if it uses results of several paths."""
        if not behind or isinstance(behind[0], Fork):
            return None
        used = sum(bool(self.needs[behind[0]] & set(members(path))) for path in fork.paths)
        return behind[0] if used > 1 else None

    def block(self, fork: Fork, joining: int | None) -> Block:
        outlines = self.outlines(fork)
        bodies = (_joined(self.body(path, path=True)) for path in fork.paths)
        paths = tuple(body if self.dialect.nests else unnested(body) for body in bodies)
        conclusion = ""
        if self.dialect.conclusion is not None:
            conclusion = self.text(joining) if joining is not None else self.summary(fork, outlines)
        return Block(outlines, paths, conclusion)

    def text(self, statement: int, before: int | None = None) -> str:
        """A statement behind another one of its branch; with a name where it has lost the statement before it."""
        text, name = self.graph.statements[statement].text, self.graph.words[statement].name
        lost = before is not None and before != statement - 1
        return standing_alone(text, name) if lost and name else text

    def alone(self, statement: int) -> str:
        """A statement as the first of its path."""
        return standing_alone(self.graph.statements[statement].text, self.graph.words[statement].name)

    def outlines(self, fork: Fork) -> tuple[str, ...]:
        """One line for each path; two that are the same are told apart by the first expression of their paths."""
        found = [self.outline(path, last=True) for path in fork.paths]
        found = [
            self.outline(path, last=False) if found.count(text) > 1 else text
            for text, path in zip(found, fork.paths, strict=True)
        ]
        return tuple(
            f"{text} ({self.first_expression(path)})" if found.count(text) > 1 else text
            for text, path in zip(found, fork.paths, strict=True)
        )

    def outline(self, path: Series, *, last: bool) -> str:
        """What a path determines, by its last statement or its first."""
        own = members(path)
        ends = (next((part for part in reversed(path) if isinstance(part, int)), own[-1]), own[0])
        results = {equation.value for at in own for equation in self.graph.statements[at].equations} - self.given
        found = [
            outline(self.alone(statement), self.graph.statements[statement], results)
            for statement in (ends if last else reversed(ends))
        ]
        strong = [text for text in found if text and not weak(text)]
        return next(iter([*strong, *filter(None, found), self.first_expression(path)]))

    def first_expression(self, path: Series) -> str:
        equations = [equation for at in members(path) for equation in self.graph.statements[at].equations]
        return " ".join(equations[0].expression.split()) if equations else self.alone(members(path)[0])

    def summary(self, fork: Fork, outlines: Sequence[str]) -> str:
        """The results of all paths in one line."""
        parts = []
        for text, path in zip(outlines, fork.paths, strict=True):
            last = self.graph.statements[members(path)[-1]]
            said = _IMPERATIVE.sub("", text)
            parts.append(f"{said}: {result_text(last)}" if last.equations else said)
        return _capital("; ".join(parts)) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _add(items: list[str | Block], text: str, separator: str) -> None:
    """Add a text, to the text before it if there is one."""
    if items and isinstance(items[-1], str):
        items[-1] += separator + text
    else:
        items.append(text)


def _joined(items: Sequence[str | Block]) -> tuple[str | Block, ...]:
    found: list[str | Block] = []
    for item in items:
        if isinstance(item, str):
            _add(found, item, "\n")
        else:
            found.append(item)
    return tuple(found)
