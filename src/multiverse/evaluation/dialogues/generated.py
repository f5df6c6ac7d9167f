"""Dialogues over this project's task families as a set: without images, and judged by code."""

from __future__ import annotations

from collections.abc import Mapping

from ...prompting import Mode
from ...structure import render
from ...tasks import Exchange, ExpressionRule, IntegerRule, NumberRule, generate_dialogues
from ...tasks.dialogues import TURNS
from .dialogue import Dialogue, Item, Turn

NAME = "tasks"
SIZE = 100
"""Dialogues unless a limit is given; they are endless."""


def generated(count: int | None, seed: int, turns: int | None) -> list[Dialogue]:
    """The first dialogues of the test split.

    The criterion of an item is the kind of its turn (new, follow-up, correction), the sub-criterion its family.
    """
    found = generate_dialogues(SIZE if count is None else count, seed, turns=TURNS if turns is None else turns)
    return [Dialogue(str(number), tuple(_turn(one) for one in own)) for number, own in enumerate(found)]


def _turn(exchange: Exchange) -> Turn:
    problem = exchange.problem
    assert isinstance(problem.rule, IntegerRule | NumberRule | ExpressionRule)
    item = Item(f"Is the final answer {problem.answer}?", exchange.kind, problem.family, problem.rule)
    solutions: Mapping[Mode, str] = {"parallel": render(problem.structured), "sequential": render(problem.sequential)}
    return Turn(problem.question, f"Answer: {problem.answer}", (item,), solutions)
