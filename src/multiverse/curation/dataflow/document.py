"""From an ordered solution to a structured document: paths of its own sentences, outlines and conclusions made by code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from ...structure import Block, Dialect, Document, place
from ..sentences import cut
from .arithmetic import mentions
from .blocks import Fork, Series, members
from .graph import Graph, Needs
from .references import standing_alone, without_connective
from .solution import Solution, Statement

LONGEST_OUTLINE = 14
"""Most words of an outline."""

_SHORT = 3  # words of an outline that says little: the expression with its units says more
_SHORTEST_OUTLINE = 4  # words that stay where a longer one is cut

_FUNCTION_WORDS = (
    "because|since|so|that|that's|that’s|is|are|was|were|of|for|to|at|which|means|meaning|and|or|a|an|the|equals?|with|by|in|from|be"
    "|this|will be|would be|per|as|on|if|when|then|because of|only|so there|so he|so she|so it|so they"
)
_TAIL = re.compile(rf"(?:\s*[-,;:–=$(.+*/]|(?:\s+|^)(?:{_FUNCTION_WORDS}))+\s*$", re.IGNORECASE)
_CUT_OFF = re.compile(
    r"(?:\s*[-,;:–=$(.+*/]"
    r"|(?:\s+|^)(?:because|since|so(?: that)?|that's|that’s|so that's|so that’s|which is|or|so (?:there|he|she|it|they)))+\s*$",
    re.IGNORECASE,
)
_PREPOSITION = re.compile(r"(?:from|for|in|on|at|of|to|by|with|as|per|after|before|during|because|total)\b", re.IGNORECASE)
_BREAK = re.compile(
    r",|;|\(|\bby \w+ing\b|\b(?:because|which|that|who|since|so|when|while|and|for|on|in|from|with|if|after|of|to|at)\b"
)
_HOW = re.compile(r",? by (?:multiplying|adding|dividing|subtracting|taking|finding|using|combining)\b.*$", re.IGNORECASE)
_COPULA = re.compile(r" (?:is|are|was|were|will be|would be|equals?)$")
_VERB = re.compile(r"^(?:is|are|was|were|will be|would be) ")
_WEAK = re.compile(r"(?:he|she|it|they|there|this|that|we|you)\b", re.IGNORECASE)
_IMPERATIVE = re.compile(r"(?:find(?: out)?|calculate|figure out|determine|compute)(?: (?=how)|(?=\s+the\b)\s+)", re.IGNORECASE)
_SUBORDINATE = re.compile(r"^(?:since|if|when|because|as|given that|while)\s+(?=\S+\s+\S+)", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z]{2,}")


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
        paths = tuple(_joined(self.body(path, path=True)) for path in fork.paths)
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
        for statement in ends if last else reversed(ends):
            found = outline(self.alone(statement), self.graph.statements[statement], results)
            if found:
                return found
        return self.first_expression(path)

    def first_expression(self, path: Series) -> str:
        equations = [equation for at in members(path) for equation in self.graph.statements[at].equations]
        return equations[0].expression if equations else self.alone(members(path)[0])

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


def result_text(statement: Statement) -> str:
    """The last result of a statement as its text shows it, with a sign for money or per cent."""
    equation = statement.equations[-1]
    start, end = equation.result
    before, behind = statement.text[:start].rstrip("-( "), statement.text[end:].lstrip()
    sign = "-" if equation.value < 0 else ""
    return sign + "$" * before.endswith("$") + statement.text[start:end] + "%" * behind.startswith("%")


def outline(text: str, statement: Statement, hidden: set[Fraction]) -> str:
    """What a statement determines, in a few words and without a result; empty if its words do not say.

    Args:
        text: the statement as it stands in its path.
        statement: the same with its expressions.
        hidden: results that an outline must not tell.
    """
    if not statement.equations:
        return _shortened(re.split(r" because |=", text, maxsplit=1)[0], hidden)
    equation = statement.equations[-1]
    shown = statement.text[equation.start : equation.end]
    sentence = next((piece for piece in reversed(cut(text)) if shown in piece), text).strip()
    at = sentence.find(shown)
    if at < 0:
        return ""
    before, behind = sentence[:at].rstrip(" $(-"), sentence[at + len(shown) :]
    label, colon, _ = before.partition(":")
    if before.endswith("=") and "=" not in before[:-1]:
        return _shortened(before[:-1], hidden)
    if colon and _LETTERS.search(label):
        return _shortened(label, hidden)
    for other in statement.equations[:-1]:
        before = before.replace(statement.text[other.start : other.end], "")
    behind = re.split(r"[.;,:=]| (?:because|since|so|and|which|if|when) ", re.sub(r"^\s*[%)]", "", behind), maxsplit=1)[
        0
    ].strip()
    tail = _CUT_OFF if behind and not _PREPOSITION.match(behind) else _TAIL
    behind = _VERB.sub("", behind) if not before else behind
    described = _COPULA.sub("", before)
    if described != before and described.count(" ") > 1 and behind.count(" ") < 2:
        return _shortened(described, hidden)  # only the unit of the value is left: "the length is ... feet"
    before = tail.sub(lambda match: "," if behind and match[0].strip() == "," else "", before)
    found = _shortened(f"{before} {behind}", hidden)
    left = shown.partition("=")[0].strip()
    return left if len(found.split()) <= _SHORT and len(_LETTERS.findall(left)) > 1 else found


def _shortened(text: str, hidden: set[Fraction]) -> str:
    text = without_connective(text.strip())
    if match := _SUBORDINATE.match(text):
        clause, comma, main = text[match.end() :].partition(", ")
        main = without_connective(main.removeprefix("then "))
        weak = _WEAK.match(main) is not None or main.count(" ") < _SHORTEST_OUTLINE
        text = without_connective(clause if comma and weak and clause.count(" ") > 1 else main or clause)
    for mention in reversed(mentions(text, words=False)):
        if mention.value in hidden:
            start = mention.start - (text[max(0, mention.start - 1) : mention.start] == "$")
            text = text[:start].rstrip() + text[mention.end :].removeprefix("%")
    text = " ".join(_HOW.sub("", text).split())
    words = text.split()
    if len(words) > LONGEST_OUTLINE:
        most = len(" ".join(words[:LONGEST_OUTLINE]))
        breaks = [
            match.start() for match in _BREAK.finditer(text[:most]) if text[: match.start()].count(" ") > _SHORTEST_OUTLINE
        ]
        text = text[: breaks[-1] if breaks else most]
    text = _TAIL.sub("", text).strip(" ,;:$=")
    if "=" in text:
        return ""
    return without_connective(text) if len(_LETTERS.findall(text)) > 1 or (text.isalpha() and len(text) > 2) else ""


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
