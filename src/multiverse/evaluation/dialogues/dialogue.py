"""A dialogue: the user's turns, and for each the reference answer and the checklist by which an answer is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ...prompting import Mode
from .images import Picture
from .rules import Rule, rule_of, rule_record

CATEGORIES = (
    "main_goal_category",
    "sub_goal_category",
    "main_task_category",
    "sub_task_category",
    "image_main_category",
    "image_sub_category",
)
"""The columns of MultiVerse that say what a dialogue is about."""
PERSONA = ("character", "scenario", "goal")
"""The columns that say who the user is, where, and what for."""


@dataclass(frozen=True)
class Item:
    """One question of a checklist, to be answered by yes or no.

    Attributes:
        main_criteria, sub_criteria: the aspect that it is about.
        rule: what decides it by code; `None` if a judge has to.
    """

    question: str
    main_criteria: str
    sub_criteria: str
    rule: Rule | None = None


@dataclass(frozen=True)
class Turn:
    """One turn of the user, and what is known of a good answer.

    Attributes:
        reference: the assistant's utterance in the data set.
        checklist: empty if the answer is not judged.
        solutions: the reference as models of this project write it in each mode; empty for others' data.
    """

    utterance: str
    reference: str
    checklist: tuple[Item, ...]
    solutions: Mapping[Mode, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Dialogue:
    """One row of a data set.

    Attributes:
        id: unique in the set.
        persona: the texts of `PERSONA`; some may be empty.
        categories: the texts of `CATEGORIES`; some may be empty.
    """

    id: str
    turns: tuple[Turn, ...]
    image: Picture | None = field(default=None, repr=False)
    persona: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged_by_code(self) -> bool:
        """Whether every item has a rule."""
        return all(item.rule is not None for turn in self.turns for item in turn.checklist)

    def record(self) -> dict[str, Any]:
        """All of it as JSON; the image by its hash and size."""
        return {
            "index": self.id,
            "image": self.image.described() if self.image is not None else None,
            **{name: self.persona.get(name, "") for name in PERSONA},
            "turns": [_turn_record(turn) for turn in self.turns],
            **{name: self.categories.get(name, "") for name in CATEGORIES},
        }

    @property
    def digest(self) -> str:
        """Hash of all that it says, image included."""
        return sha256(json.dumps(self.record(), ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Dialogue:
        """The dialogue of a `record`, without its image."""
        return cls(
            str(record["index"]),
            tuple(_turn_of(turn) for turn in record["turns"]),
            None,
            {name: record[name] for name in PERSONA},
            {name: record[name] for name in CATEGORIES},
        )


def _turn_record(turn: Turn) -> dict[str, Any]:
    found: dict[str, Any] = {
        "utterance": turn.utterance,
        "reference": turn.reference,
        "checklist": [
            {
                "question": item.question,
                "main_criteria": item.main_criteria,
                "sub_criteria": item.sub_criteria,
                **({"rule": rule_record(item.rule)} if item.rule is not None else {}),
            }
            for item in turn.checklist
        ],
    }
    return found | ({"solutions": dict(turn.solutions)} if turn.solutions else {})


def _turn_of(record: Mapping[str, Any]) -> Turn:
    items = tuple(
        Item(
            one["question"],
            one["main_criteria"],
            one["sub_criteria"],
            rule_of(one["rule"]) if one.get("rule") is not None else None,
        )
        for one in record["checklist"]
    )
    return Turn(record["utterance"], record["reference"], items, record.get("solutions", {}))
