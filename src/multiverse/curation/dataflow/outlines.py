"""Outlines by code: what a statement determines, in a few of its own words and without the result."""

from __future__ import annotations

import re
from fractions import Fraction

from ..sentences import cut
from .arithmetic import mentions
from .references import DEMONSTRATIVE, without_connective
from .solution import Statement

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
_SUBORDINATE = re.compile(r"^(?:since|if|when|because|as|given that|while)\s+(?=\S+\s+\S+)", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_CHAIN = re.compile(r"[\s$(]*[\d.][\d\s.,+\-*/×÷x%()$]*=.*$")
_PURPOSE = re.compile(
    r"\bto (?:find|get|determine|calculate|figure out)(?: out)? (?=(?:the|how|his|her|their|its)\b)", re.IGNORECASE
)
_SO = " so "
_OR = re.compile(r",? or$")
_OPEN = re.compile(r"\s*\([^)]*$")
_MEANS = re.compile(r"^(?:this|that|which|it) (?:therefore )?means(?: that)?,? ", re.IGNORECASE)
_APIECE = re.compile(r"^(?:each|apiece|more|total|in total|per \w+)$")


def result_text(statement: Statement) -> str:
    """The last result of a statement as its text shows it, with a sign for money or per cent."""
    equation = statement.equations[-1]
    start, end = equation.result
    before, behind = statement.text[:start].rstrip("-( "), statement.text[end:].lstrip()
    sign = "-" if equation.value < 0 else ""
    return sign + "$" * before.endswith("$") + statement.text[start:end] + "%" * behind.startswith("%")


def weak(text: str) -> bool:
    """Whether an outline says little: it refers to something else, or has hardly more than a pronoun."""
    return DEMONSTRATIVE.search(text) is not None or (_WEAK.match(text) is not None and text.count(" ") < _SHORTEST_OUTLINE)


def outline(text: str, statement: Statement, hidden: set[Fraction]) -> str:
    """What a statement determines; empty if its words do not say.

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
    if before.endswith("=") and "=" not in before[:-1] and not any(character.isdigit() for character in before):
        return _shortened(before[:-1], hidden)
    if colon and _LETTERS.search(label):
        return _shortened(label, hidden)
    for other in statement.equations[:-1]:
        before = before.replace(statement.text[other.start : other.end], "")
    left = shown.partition("=")[0].strip()
    found = _described(_CHAIN.sub("", before), behind, hidden)
    return left if len(found.split()) <= _SHORT and len(_LETTERS.findall(left)) > 1 else found


def _described(before: str, behind: str, hidden: set[Fraction]) -> str:
    """An outline from the words on both sides of an expression."""
    behind = re.split(r"[.;,:=]| (?:because|since|so|and|which|if|when) ", re.sub(r"^\s*[%)]", "", behind), maxsplit=1)[0]
    behind = _APIECE.sub("", behind.strip())
    if not before:
        return _shortened(_VERB.sub("", behind), hidden)
    described = _COPULA.sub("", before)
    if described != before and described.count(" ") > 1 and behind.count(" ") < 2:
        return _shortened(described, hidden)  # only the unit of the value is left: "the length is ... feet"
    first = mentions(before, words=False)[:1]
    if first and not first[0].start and first[0].value in hidden and behind.count(" ") >= _SHORT:
        return _shortened(behind, hidden)  # "100 seeds a bed and 2 beds, ... seeds for all beds"
    head, so, main = f"{before} ".rpartition(_SO)
    if so:
        before, behind = (head, "") if main.count(" ") < _SHORT else (main, behind)
    elif _OR.search(before):
        before, behind = _OR.sub("", before), ""
    tail = _CUT_OFF if behind and not _PREPOSITION.match(behind) else _TAIL
    before = tail.sub(lambda match: "," if behind and match[0].strip() == "," else "", before)
    return _shortened(f"{before} {behind}", hidden)


def _shortened(text: str, hidden: set[Fraction]) -> str:
    text = without_connective(_MEANS.sub("", without_connective(text.strip())))
    if purpose := _PURPOSE.search(text):
        text = f"Find {text[purpose.end() :]}"
    text = _capital(text.rpartition(", then ")[2])
    if match := _SUBORDINATE.match(text):
        clause, comma, main = text[match.end() :].partition(", ")
        main = without_connective(main.removeprefix("then "))
        little = _WEAK.match(main) is not None or main.count(" ") < 2
        text = without_connective(clause if comma and little and clause.count(" ") > 1 else main or clause)
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
    text = _TAIL.sub("", _OPEN.sub("", text)).strip(" ,;:$=")
    if "=" in text:
        return ""
    return without_connective(text) if len(_LETTERS.findall(text)) > 1 or (text.isalpha() and len(text) > 2) else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
