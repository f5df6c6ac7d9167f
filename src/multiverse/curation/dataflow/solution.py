"""Solutions with their arithmetic: read from a source, cut into statements, and every expression evaluated.

A solution is a text whose expressions carry an annotation, as in GSM8K: ``48/2 = <<48/2=24>>24 clips``, with the answer behind
``####``. A statement is a sentence with its expressions, and the sentences beside it that hold none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ...data import Fault
from ...data.records import checked
from ...data.source import scan_source
from ..errors import ValidationError
from ..sentences import cut
from ..types import Trace
from .arithmetic import Mention, evaluate, mentions, number, shown, stated

QUESTIONS = ("question", "prompt", "problem")
SOLUTIONS = ("solution", "answer", "reasoning")

HUB_CONFIGS = {"openai/gsm8k": "main", "gsm8k": "main"}
"""Data sets of the hub that have several configurations, with the one that is read."""

MARK = "####"
"""What stands before the answer."""

WRONG, UNREADABLE, NOTHING, ALGEBRA, MISMATCH = (
    "wrong arithmetic",
    "arithmetic that cannot be evaluated",
    "no arithmetic",
    "algebra",
    "wrong answer",
)
"""Reasons for which a solution is rejected before its steps are ordered."""

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_TWICE = re.compile(r"\$(<<[^<>]*>>)\s?\$")  # a sign for money on both sides of an annotation
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_RESULT = re.compile(rf"\s*[-(]?\s*\$?\s*-?(?P<number>{_NUMBER})(?P<scale>\s*%)?")
_EQUALS = re.compile(rf"=\s*-?\s*\$?\s*(?P<number>{_NUMBER})(?![\d,.]*\d)(?!\s*[-+*/×÷^](?!\s*[A-Za-z])|\s*x\s*\d|\s*\()")
_LABEL = re.compile(r"^\s*(?:(?:step|part)\s+\d+\s*[:.)]|\(?\d{1,2}[.)](?!\d)|\(?[a-h]\)|[-*•])\s+", re.IGNORECASE)
_VARIABLE = re.compile(r"(?<![A-Za-z'’.])(?:[b-hj-wyzB-HJ-WYZ]|[xX](?!\s*[\d$(.½¼]))(?![A-Za-z'’]|\.[A-Za-z]|-)")
_OPERATOR = re.compile(r"[-+*/×÷^%]|\bx\b")


@dataclass(frozen=True)
class Solution(Trace):
    """A solution as a trace: `sentences` are its lines without annotations, and `answer` is what a document answers.

    Attributes:
        annotated: the text with its annotations, without the answer.
        value: the reference answer.
    """

    annotated: str = ""
    value: Fraction = Fraction(0)


@dataclass(frozen=True)
class Equation:
    """An expression of a statement with its value.

    Attributes:
        expression: as it is written, without units.
        operands: its numbers.
        value: its value as it is written, which may be rounded.
        exact: its exact value.
        start, end: place in the statement's text of expression, sign and value.
        result: place of the value.
    """

    expression: str
    operands: tuple[Fraction, ...]
    value: Fraction
    exact: Fraction
    start: int
    end: int
    result: tuple[int, int]


@dataclass(frozen=True)
class Statement:
    """One step of a solution.

    Attributes:
        text: its sentences, without annotations.
        equations: its expressions in order; empty for a remark about numbers that are known.
        same_line: whether the statement before it is on the same line.
    """

    text: str
    equations: tuple[Equation, ...]
    same_line: bool = False

    @property
    def mentions(self) -> list[Mention]:
        """The numbers of its text, in digits or words."""
        return mentions(self.text)


def read_solutions(source: str | Path, *, split: str | None = None, config: str | None = None) -> Iterator[Solution | Fault]:
    """Every solution of a source in order, and a fault for each row that cannot be read.

    Args:
        source: a file, a folder of files, or a hub id (see `data.source.scan_source`).
        split: only this split of a folder or a hub data set; if `None`, only the training split of a source that has one.
        config: name of a hub data set's configuration; `HUB_CONFIGS` has those that need one.

    Raises:
        ExtraError: the library that reads such a source is not installed.
    """
    path = Path(str(source)).expanduser()
    root = path if path.is_dir() else path.parent
    config = HUB_CONFIGS.get(str(source)) if config is None else config
    for item in scan_source(source, columns=_columns, split=split, prefer="train", config=config):
        place = Path(item.source).relative_to(root).as_posix() if path.exists() else item.source
        if isinstance(item, Fault):
            yield item._replace(source=place)
        else:
            yield solution_of(item.value, place, item.line)


def _columns(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in {*QUESTIONS, *SOLUTIONS}]


def solution_of(record: Any, source: str, line: int) -> Solution | Fault:
    """The solution of a record, or a fault: a question, and under one of `SOLUTIONS` a text with the answer behind `MARK`."""
    try:
        if not isinstance(record, dict):
            raise ValueError(f"the record is {type(record).__name__}: it must be an object with named fields")
        question, text = _field(record, QUESTIONS, ""), _field(record, SOLUTIONS, MARK)
        steps, _, answer = _TWICE.sub(r"\1$", text).replace("$$", "$").rpartition(MARK)
        try:
            value = number(answer.strip().strip("$% ").removeprefix("-"))
        except ValueError:
            raise ValueError(f"the answer behind {MARK} is no number: {answer.strip()[:40]!r}") from None
        value = -value if answer.strip().strip("$ ").startswith("-") else value
    except ValueError as error:
        return Fault(source, line, str(error))
    lines = [_LABEL.sub("", _ANNOTATION.sub("", one), count=1).strip() for one in steps.split("\n")]
    reasoning = "\n".join(" ".join(one.split()) for one in lines if one)
    sentences = tuple(reasoning.splitlines(keepends=True))
    name = f"{source}:{line}"
    about = (name, question.strip(), sentences, f"Answer: {shown(value)}", source, line)
    return Solution(*about, annotated=steps.strip(), value=value)


def _field(record: dict[str, Any], names: tuple[str, ...], mark: str) -> str:
    """The first of these fields that is a text with the mark in it."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value.strip() and mark in value:
            return checked(value, f"the {name}")
    has = ", ".join(map(repr, record)) or "none at all"
    wanted = f"a solution that ends with {mark} and its answer" if mark else "a question"
    raise ValueError(f"it needs {wanted} under {' or '.join(map(repr, names))}, and has {has}: rename or fill them")


class _Sentence(NamedTuple):
    text: str
    equations: tuple[Equation, ...]
    line: int


def statements(solution: Solution) -> tuple[Statement, ...]:
    """The statements of a solution, every expression evaluated.

    Raises:
        ValidationError: it holds no arithmetic, or some that is wrong, or that cannot be evaluated.
    """
    sentences: list[_Sentence] = []
    for line, text in enumerate(solution.annotated.split("\n")):
        text = _LABEL.sub("", text, count=1).strip()
        for piece in cut(text):
            if variable := _variable(_ANNOTATION.sub("", piece), solution.question):
                raise ValidationError(ALGEBRA, f"it calculates with an unknown, {variable!r}, in {piece.strip()[:80]!r}")
            if piece.strip():
                sentences.append(_sentence(piece.strip(), line))
    if not any(sentence.equations for sentence in sentences):
        raise ValidationError(NOTHING, "no expression of the solution has a value that could be followed")
    return tuple(_glued(sentences))


def _variable(text: str, question: str) -> str:
    """A letter that stands for a number; those of the question are names."""
    for match in _VARIABLE.finditer(text):
        if not re.search(rf"(?<![A-Za-z]){match[0]}(?![A-Za-z])", question):
            return match[0]
    return ""


def _glued(sentences: list[_Sentence]) -> Iterator[Statement]:
    """Sentences without expressions are put to those beside them; with numbers, a line of their own stays a statement."""
    groups: list[list[_Sentence]] = []
    waiting: list[_Sentence] = []
    for at, sentence in enumerate(sentences):
        alone = all(other.line != sentence.line for other in sentences[max(0, at - 1) : at] + sentences[at + 1 : at + 2])
        if sentence.equations or (alone and mentions(sentence.text, words=False)):
            groups.append([*waiting, sentence])
            waiting = []
        elif groups and groups[-1][-1].line == sentence.line and not _same_line_follows(sentences, at):
            groups[-1].append(sentence)
        else:
            waiting.append(sentence)
    if waiting:
        groups[-1] += waiting
    before = -1
    for group in groups:
        yield _statement(group, same_line=group[0].line == before)
        before = group[-1].line


def _same_line_follows(sentences: Sequence[_Sentence], at: int) -> bool:
    """Whether an expression follows on the same line."""
    line = sentences[at].line
    return any(other.line == line and other.equations for other in sentences[at + 1 :])


def _statement(group: Sequence[_Sentence], *, same_line: bool) -> Statement:
    text, equations = "", []
    for before, sentence in zip((None, *group), group, strict=False):
        if before is not None:
            text += " " if before.line == sentence.line else "\n"
        by = len(text)
        text += sentence.text
        equations += [_moved(equation, by) for equation in sentence.equations]
    return Statement(text, tuple(equations), same_line)


def _moved(equation: Equation, by: int) -> Equation:
    one = equation
    places = (one.start + by, one.end + by, (one.result[0] + by, one.result[1] + by))
    return Equation(one.expression, one.operands, one.value, one.exact, *places)


def _sentence(raw: str, line: int) -> _Sentence:
    """A sentence without annotations, and its equations."""
    raw = " ".join(raw.split())
    text, marks, at = "", [], 0
    for match in _ANNOTATION.finditer(raw):
        text += raw[at : match.start()]
        at = match.end()
        if _RESULT.match(raw, at) is None:  # the value is in the annotation only
            rest = match[1].rpartition("=")[2].strip()
            marks.append((len(text), match[1]))
            text += rest + (" " if raw[at : at + 1].isalpha() else "")
        else:
            marks.append((len(text), match[1]))
    text += raw[at:]
    equations = [_annotated(text, place, content) for place, content in marks]
    equations += _bare(text, equations)
    return _Sentence(text, tuple(sorted(equations, key=lambda equation: equation.result)), line)


def _annotated(text: str, place: int, content: str) -> Equation:
    """The equation of an annotation whose value stands at this place of the text."""
    expression, equals, written = content.replace("$", "").rpartition("=")
    expression = expression.rpartition("=")[2]
    try:
        if not equals:
            raise ValueError("it has no equals sign")
        found = evaluate(expression)
        right, sign = written.strip(), 1
        if right.startswith("-"):
            right, sign = right[1:], -1
        value = evaluate(right).value * sign
        exact = value == found.value or stated(right, sign * found.value)
    except ValueError as error:
        raise ValidationError(UNREADABLE, f"<<{content}>>: {error}") from None
    if not exact:
        raise ValidationError(WRONG, f"<<{content}>>: the value of {expression.strip()} is {shown(found.value)}")
    result = _RESULT.match(text, place)
    if result is None:
        raise ValidationError(UNREADABLE, f"the value of <<{content}>> does not follow it")
    says = number(result["number"])
    if says not in (abs(value), abs(value) * 100, abs(value) / 100) and not stated(result["number"], abs(found.value)):
        raise ValidationError(WRONG, f"the text says {result['number']} for <<{content}>>")
    start = _expression_start(text, place, found.operands)
    return Equation(expression.strip(), found.operands, value, found.value, start, result.end(), result.span("number"))


def _expression_start(text: str, place: int, operands: Sequence[Fraction]) -> int:
    """Where the expression before this place begins: at the number that is as many numbers back as it has operands."""
    before = mentions(text[:place], words=False)
    left = list(operands)
    start = place
    for mention in reversed(before):
        if not left:
            break
        if not mention.forms & set(left):
            break
        start = mention.start
        used = next(value for value in reversed(left) if value in mention.forms)
        left.remove(used)
    if start == place:
        equals = text.rfind("=", 0, place)
        start = equals if equals >= 0 and not text[equals + 1 : place].strip(" $-(") else place
    while start > 0 and text[start - 1] in "$(-":
        start -= 1
    return start


def _bare(text: str, known: Sequence[Equation]) -> Iterator[Equation]:
    """Equations that have no annotation."""
    results = {equation.result for equation in known}
    for match in _EQUALS.finditer(text):
        if match.span("number") in results:
            continue
        begin = max([text.rfind("=", 0, match.start()) + 1, *(one.end for one in known if one.end <= match.start())])
        left = text[begin : match.start()]
        percent = text[match.end() :].lstrip().startswith("%")
        found = _suffix(left, match["number"], percent=percent)
        if found is not None:
            start, expression = found
            value = evaluate(expression)
            says = number(match["number"])
            says = -says if value.value < 0 else says
            yield Equation(expression, value.operands, says, value.value, begin + start, match.end(), match.span("number"))
        elif (len(mentions(left, words=False)) > 1 and _OPERATOR.search(left)) or left.rstrip().endswith(
            ("+", "*", "/", "×", "÷")
        ):
            raise ValidationError(UNREADABLE, f"{(left.strip() + ' ' + match[0]).strip()[-80:]!r} cannot be evaluated")


def _suffix(left: str, written: str, *, percent: bool) -> tuple[int, str] | None:
    """The longest end of a text that, without its units, is an expression with this value; with its place."""
    bare = re.sub(r"[A-Za-z'’$]+", lambda match: "x" if match[0] in "xX" else " " * len(match[0]), left)
    for match in re.finditer(r"(?<![\d.,])[-(]*[\d.]", bare):
        expression = bare[match.start() :].strip()
        if not _OPERATOR.search(expression):
            return None
        for tried in (expression, re.sub(r"/\s+(?=[-+*/x×÷]|$)", " ", expression).strip()):  # the units of "$5/hour"
            try:
                value = evaluate(tried).value
            except ValueError:
                continue
            if stated(written, abs(value)) or (percent and stated(written, abs(100 * value))):
                return match.start(), tried
    return None
