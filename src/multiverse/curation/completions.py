"""Parse completions: extract JSON from the text around it, and reject what cannot stand in a document.

Everything invalid is a `ValidationError`, whose message is sent back to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..structure import Dialect
from .errors import ValidationError
from .outline import SentenceSpan

_FENCE = re.compile(r"```[A-Za-z]*\s*\n(.*?)```", re.DOTALL)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_COMMANDS = (
    "bar|begin|beta|big[lr]?|bigg[lr]?|binom|bmod|boldsymbol|bot|boxed|bullet|frac|forall|fbox|nabla|neg|neq|newline|nmid|not"
    "|notin|nleq|ngeq|rangle|rceil|rfloor|rho|right|rightarrow|tan|tanh|tau|text|textbf|textit|tfrac|therefore|theta|tilde"
    "|times|to|top|triangle"
)
_ESCAPE = re.compile(rf"\\(?:(?P<valid>[\"\\/]|u[0-9A-Fa-f]{{4}}|(?!(?:{_COMMANDS})(?![A-Za-z]))[bfnrt])|)")
_STARTS = 40  # braces at which parsing is tried
_LABEL = re.compile(r"\s*(?:\(?\d+(?:\.\d+)*[:.)]\s|(?:path|outline)\s+\d)", re.IGNORECASE)

OUTLINE_LENGTH = 240
"""Longest outline, in characters."""


def read_json(text: str, field: str, dialect: Dialect, longest: int) -> Any:
    """The value of a field of the JSON object in a completion (`ValidationError` if there is none)."""
    if len(text) > longest:
        raise ValidationError("answer too long", f"the answer has {len(text)} characters, at most {longest} are read: be brief")
    if not text.strip():
        raise ValidationError("no answer", "the answer is empty: answer with one JSON object")
    _check_characters(text, dialect, allowed="\t\r\n")
    value = _object(_with_backslashes(text), field)[field]
    for inner in _strings(value):
        _check_characters(inner, dialect, allowed="\n")
    return value


def _check_characters(text: str, dialect: Dialect, allowed: str) -> None:
    for tag in dialect.tags:
        if tag in text:
            raise ValidationError(
                "tag in the answer", f"the answer holds the tag {tag}: tags are written by the program, use none"
            )
    for match in _FORBIDDEN.finditer(text):
        if match[0] in allowed:
            continue
        if match[0] >= "\ud800":
            raise ValidationError("half a character", f"the answer holds half a character ({match[0]!a}): write it whole")
        detail = f"the answer holds the control character {match[0]!a}: leave it out, and write backslashes twice"
        raise ValidationError("control character", detail)


def _with_backslashes(text: str) -> str:
    """Double the backslashes of LaTeX commands, which models often do not escape in JSON.

    Unescaped, ``\\sum`` is invalid JSON, and ``\\theta`` a tab before ``heta``.
    """
    return _ESCAPE.sub(lambda match: match[0] if match["valid"] else f"\\{match[0]}", text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _strings(item)


def _object(text: str, field: str) -> dict[str, Any]:
    """The first object with the field: the whole text, a fenced part, or what begins at some brace."""
    problem = "there is no JSON object in it"
    found = False
    for candidate in _candidates(text):
        try:
            value, _ = _DECODER.raw_decode(candidate)
        except ValidationError:
            raise
        except (ValueError, RecursionError) as error:
            if isinstance(error, json.JSONDecodeError) and not found:
                problem = f"{error.msg} at character {error.pos + 1}"
            continue
        if isinstance(value, dict):
            if field in value:
                return value
            problem, found = f"the object has no field {field!r}", True
    raise ValidationError("not JSON", f"the answer cannot be read ({problem}): answer with one JSON object that has {field!r}")


def _candidates(text: str) -> Iterator[str]:
    yield text.strip()
    for match in _FENCE.finditer(text):
        yield match[1].strip()
    at = -1
    for _ in range(_STARTS):
        at = text.find("{", at + 1)
        if at < 0:
            return
        yield text[at:]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValidationError("not JSON", f"the field {twice[:60]!r} stands twice in one object: give it once")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def items(value: Any, what: str) -> list[Any]:
    """The value, which must be a list; `what` names it in errors."""
    if not isinstance(value, list):
        raise ValidationError("wrong shape", f"{what} must be a list")
    return value


def fields(value: Any, what: str, *names: str) -> list[Any]:
    """The values of these fields of an object."""
    if not isinstance(value, dict):
        raise ValidationError("wrong shape", f"{what} must be an object with {', '.join(map(repr, names))}")
    for name in names:
        if name not in value:
            raise ValidationError("wrong shape", f"{what} lacks {name!r}")
    return [value[name] for name in names]


def sentence_text(value: Any, what: str, longest: int = 1000) -> str:
    """The value, which must be a non-empty text, stripped."""
    if not isinstance(value, str) or not value.strip():
        raise ValidationError("wrong shape", f"{what} must be a text that is not empty")
    if len(value) > longest:
        raise ValidationError("text too long", f"{what} has {len(value)} characters: at most {longest} will do")
    return value.strip()


def outline_text(value: Any, what: str) -> str:
    """The value, which must be an outline: one short line that does not begin with a number."""
    text = sentence_text(value, what)
    if "\n" in text or len(text) > OUTLINE_LENGTH:
        raise ValidationError("outline too long", f"{what} must be one line of at most {OUTLINE_LENGTH} characters")
    if _LABEL.match(text):
        raise ValidationError(
            "wrong numbering", f"{what} begins with a number: numbers are written by the program, leave them out"
        )
    return text


def span(value: Any, what: str, last: int) -> SentenceSpan:
    """The value, which must be ``[first, last]``, numbers of sentences from 1 to `last`."""
    pair = items(value, what)
    if len(pair) != 2 or not all(type(number) is int for number in pair):
        raise ValidationError("wrong shape", f"{what} must be two numbers of sentences, [first, last]")
    first, final = pair
    for number in pair:
        if not 1 <= number <= last:
            raise ValidationError("unknown sentences", f"{what} names sentence {number}: there are sentences 1 to {last}")
    if first > final:
        raise ValidationError("wrong numbering", f"{what} is [{first}, {final}]: the first may not come after the last")
    return SentenceSpan(first, final)


def check_cover(spans: list[tuple[str, SentenceSpan]], last: int) -> None:
    """Raise `ValidationError` unless the spans, in order, cover every sentence from 1 to the last exactly once."""
    due = 1
    for what, (first, final) in spans:
        if first > due:
            raise ValidationError(
                "lost sentences", f"{what} begins with sentence {first}, but {_range(due, first - 1)} went nowhere"
            )
        if first < due:
            detail = f"{what} begins with sentence {first}, but sentences up to {due - 1} have a place already"
            raise ValidationError("doubled sentences", f"{detail}: each belongs to exactly one, in order")
        due = final + 1
    if due <= last:
        raise ValidationError("lost sentences", f"{_range(due, last)} went nowhere: every sentence up to {last} needs a place")


def _range(first: int, last: int) -> str:
    return f"sentence {first}" if first == last else f"sentences {first} to {last}"
