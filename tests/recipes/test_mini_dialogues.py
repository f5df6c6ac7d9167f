"""Training data of several turns: a record for each turn, after the turns before it as a chat has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiverse.data import Fault
from multiverse.data.records import row_of
from multiverse.prompting import INSTRUCTIONS, Mode
from multiverse.structure import MULTIVERSE, parse
from multiverse.tasks import generate_dialogues
from recipes.mini.dialogues import records, write


@pytest.mark.parametrize("earlier", ["parallel", "sequential"])
def test_a_record_for_each_turn(earlier: Mode) -> None:
    (dialogue,) = generate_dialogues(1, 4, split="train")
    found = list(records(dialogue, earlier))
    assert len(found) == 4
    for number, own in enumerate(found):
        row = row_of(own, "data", 1, MULTIVERSE)
        assert not isinstance(row, Fault), row
        *before, question = row.prompt
        problem = dialogue[number].problem
        assert (question.content, row.document, row.sequential) == (problem.question, problem.structured, problem.sequential)
        assert [message.role for message in before] == ["user", "assistant"] * number
        assert all(message.content.endswith(INSTRUCTIONS[earlier]) for message in before if message.role == "user")
        answers = [parse(message.content) for message in before if message.role == "assistant"]
        expected = [one.problem.structured if earlier == "parallel" else one.problem.sequential for one in dialogue[:number]]
        assert answers == expected


def test_the_file(tmp_path: Path) -> None:
    number = write(tmp_path / "a" / "data.jsonl", seed=1, count=6)
    lines = (tmp_path / "a" / "data.jsonl").read_text().splitlines()
    assert len(lines) == number > 24  # four turns each, and single questions among them
    lengths = [len(json.loads(line)["messages"]) for line in lines]
    assert {2, 4, 6, 8} == set(lengths)
    assert lengths.count(2) == 6 + number - 24
    write(tmp_path / "b.jsonl", seed=1, count=6)
    assert (tmp_path / "b.jsonl").read_text().splitlines() == lines
