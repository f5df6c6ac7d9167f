"""Dialogues over the families: every turn has a right answer, follow-ups and corrections need the turn before."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from multiverse.structure import parse, render
from multiverse.tasks import Exchange, IntegerRule, dialogues, generate_dialogues

FOUND = generate_dialogues(60, 3)


def test_every_turn_is_a_whole_problem() -> None:
    for dialogue in FOUND:
        assert len(dialogue) == 4
        assert dialogue[0].kind == "new"
        for exchange in dialogue:
            problem = exchange.problem
            assert problem.check(f"Answer: {problem.answer}")
            for document in (problem.structured, problem.sequential):
                assert parse(render(document)) == document
                assert render(document).endswith(f"Answer: {problem.answer}")
            assert not problem.sequential.branches
    kinds = Counter(exchange.kind for dialogue in FOUND for exchange in dialogue[1:])
    assert min(kinds.values()) > 30
    assert any(exchange.problem.structured.branches for dialogue in FOUND for exchange in dialogue if exchange.kind != "new")


def followed(value: int, text: str) -> int:
    """What the steps of a question make of a number, worked out apart from the generator."""
    for step in re.findall(r"(adds?|takes? away) (\d+)|(doubles?|triples?|halves?) it", text.lower()):
        verb, number, other = step
        if verb.startswith("add"):
            value += int(number)
        elif verb:
            value -= int(number)
        else:
            value = {"double": value * 2, "triple": value * 3, "halve": value // 2}[other.removesuffix("s")]
    return value


def value_of(exchange: Exchange) -> int:
    assert isinstance(exchange.problem.rule, IntegerRule)
    return exchange.problem.rule.value


def test_follow_ups_go_on_from_the_last_answer() -> None:
    seen = 0
    for dialogue in FOUND:
        for before, after in itertools.pairwise(dialogue):
            if after.kind == "follow-up":
                seen += 1
                question = after.problem.question
                parts = re.findall(r"starts with your last answer,[^.]*\.", question) or [question]
                assert "your last answer" in question
                assert value_of(after) == sum(followed(value_of(before), part) for part in parts)
    assert seen > 30


def test_corrections_change_one_start() -> None:
    seen = 0
    for dialogue in FOUND:
        for before, after in itertools.pairwise(dialogue):
            if after.kind == "correction":
                seen += 1
                start = re.findall(r"\d+", after.problem.question)[0]
                question = before.problem.question
                if before.problem.family == "chain":
                    asked = re.sub(r"(Start with|Begin at) \d+", rf"\1 {start}", question)
                    assert value_of(after) == followed(int(start), asked.partition(". ")[2])
                else:
                    name = re.findall(r"(\w+) starts with", after.problem.question)[0]
                    changed = re.sub(rf"{name} starts with \d+", f"{name} starts with {start}", question)
                    parts = re.findall(r"starts with (\d+),([^.]*)\.", changed)
                    assert value_of(after) == sum(followed(int(first), steps) for first, steps in parts)
    assert seen > 15


def test_streams_are_seeded_and_their_sides_apart() -> None:
    assert generate_dialogues(5, 3) == FOUND[:5]
    assert generate_dialogues(5, 4) != FOUND[:5]
    train = generate_dialogues(40, 3, split="train", turns=3)
    assert {len(own) for own in train} == {3}
    new = {exchange.problem.question for own in train for exchange in own if exchange.kind == "new"}
    assert all(exchange.problem.split == "train" for own in train for exchange in own if exchange.kind != "correction")
    assert not new & {exchange.problem.question for own in FOUND for exchange in own}
    for wrong in ({"split": "dev"}, {"turns": 0}):
        with pytest.raises(ValueError, match="allowed are"):
            dialogues(1, **wrong)  # type: ignore[arg-type]
