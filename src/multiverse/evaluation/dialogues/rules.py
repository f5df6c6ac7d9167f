"""Items of a checklist that code decides, and how they are written in a file: ``{"kind": "integer", "value": 24}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...tasks import ExpressionRule, IntegerRule, NumberRule, final_answer


@dataclass(frozen=True)
class ContainsRule:
    """The answer holds each of these texts, in any case and anywhere."""

    texts: tuple[str, ...]

    def accepts(self, answer: str) -> bool:
        """Whether it does."""
        return all(text.casefold() in answer.casefold() for text in self.texts)


Rule = IntegerRule | NumberRule | ExpressionRule | ContainsRule

_KINDS: dict[str, type[Rule]] = {
    "integer": IntegerRule,
    "number": NumberRule,
    "expression": ExpressionRule,
    "contains": ContainsRule,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# The types of the fields of every rule.
_FIELDS: dict[str, tuple[type, ...]] = {
    "value": (int,),
    "target": (int,),
    "operators": (str,),
    "numbers": (list, tuple),
    "texts": (list, tuple),
}
_WORD = re.compile(r"\w+")
# Words that say nothing about what an answer is about.
_COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "s",
        "so",
        "that",
        "the",
        "their",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "we",
        "were",
        "what",
        "which",
        "who",
        "will",
        "with",
        "you",
        "your",
    ]
)
LEXICAL_SHARE = 0.5


def rule_of(record: Any) -> Rule:
    """The rule that a file describes.

    Raises:
        ValueError: it describes none.
    """
    if not isinstance(record, Mapping) or record.get("kind") not in _KINDS:
        raise ValueError(f"the rule {record!r:.100} is not known: its kind is one of {', '.join(_KINDS)}")
    kind = _KINDS[record["kind"]]
    # Parquet has all fields in every row, those of other rules without a value.
    given = {name: value for name, value in record.items() if name != "kind" and value is not None}
    for name, value in given.items():
        if name in _FIELDS and (isinstance(value, bool) or not isinstance(value, _FIELDS[name])):
            raise ValueError(f"the rule {record!r:.100} has the {name} {value!r:.50}: it must be {_FIELDS[name][0].__name__}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return kind(**values)
    except TypeError:
        raise ValueError(
            f"the rule {record!r:.100} is not complete: {record['kind']} has {', '.join(kind.__annotations__)}"
        ) from None


def rule_record(rule: Rule) -> dict[str, Any]:
    """A rule as files have it."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(rule).items()}
    return {"kind": _NAMES[type(rule)], **values}


def decide(rule: Rule, answer: str) -> bool:
    """Whether an answer is right by a rule; of those of our tasks, what follows its last ``Answer:`` counts."""
    return rule.accepts(answer if isinstance(rule, ContainsRule) else final_answer(answer))


def resembles(answer: str, reference: str) -> bool:
    """Whether an answer has half of the reference's words, those left out that say nothing.

    A stand-in for a judge, for tests and trials of a set without one: it measures no quality.
    """
    wanted = _words(reference)
    return bool(wanted) and len(wanted & _words(answer)) >= LEXICAL_SHARE * len(wanted)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold())) - _COMMON
