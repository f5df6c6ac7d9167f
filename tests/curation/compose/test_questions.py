"""Reading questions from files of every kind, and holding out topics and wordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiverse.curation.compose.questions import Question, hold_out, read_form, read_questions


def test_lines_records_and_tables_are_read(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    (tmp_path / "a.txt").write_text("# a remark\nWhat is bread?\n\n  Why is the sky blue?  \n", encoding="utf-8")
    rows = [
        {"question": "Tell me about cats.", "topic": "pets", "group": "animals", "split": "heldout"},
        {"prompt": "Write a story.", "single": True},
        {
            "messages": [
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "Why?"},
            ]
        },
        {"question": "How is X, the letter, written?", "item": "X", "template": "How is {x}, the letter, written?"},
    ]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parquet.write_table(arrow.table({"question": ["What are tides?"], "topic": ["sea"]}), tmp_path / "c.parquet")
    found, faults = read_questions([str(tmp_path / name) for name in ("a.txt", "b.jsonl", "c.parquet")])
    assert not faults
    assert [one.text for one in found[:4]] == [
        "What is bread?",
        "Why is the sky blue?",
        "Tell me about cats.",
        "Write a story.",
    ]
    bread, sky, cats, story, why, letter, tides = found
    assert (bread.id, bread.topic, bread.item, bread.template) == ("a.txt:2", "bread", "bread", "What is {x}?")
    assert (sky.topic, sky.template, sky.new_topic) == ("Why is the sky blue?", "", None)
    assert (cats.topic, cats.item, cats.group, cats.new_topic, cats.new_wording) == ("pets", "cats", "animals", True, True)
    assert story.single
    assert why.history == (("user", "Hi."), ("assistant", "Hello!"))
    assert letter.item == "X"
    assert (tides.topic, tides.template) == ("sea", "What are {x}?")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "breaks off"),
        ('{"answer": 3}', "the question is missing"),
        ('["What is it?"]', "not an object"),
        ('{"question": 3}', "not a text"),
        ('{"question": "What is bread?"}', "asked before"),
        ('{"question": "Why?", "split": "test"}', "'test' is not known"),
        ('{"question": "Why?", "template": "Why {x}?"}', "needs an item"),
        ('{"question": "Why?", "topic": 3}', "the topic is not a text"),
        ('{"messages": [{"role": "assistant", "content": "Hi."}]}', "not the user's"),
        (json.dumps({"question": "why " * 600}), "at most 2,000 will do"),
    ],
)
def test_bad_rows_are_faults_and_cost_nothing_else(tmp_path: Path, row: str, problem: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "What is  bread?"}\n' + row + '\n{"question": "What is rice?"}\n', encoding="utf-8")
    found, faults = read_questions([str(path)])
    assert [one.text for one in found] == ["What is  bread?", "What is rice?"]
    (fault,) = faults
    assert fault.line == 2
    assert problem in fault.problem


def test_common_forms_are_recognised() -> None:
    assert read_form("what is the capital of Peru?") == ("Peru", "What is the capital of {x}?")
    assert read_form("Give me a tip on how to save money.") == ("save money", "Give me a tip on how to {x}.")
    assert read_form("What is the difference between a frog and a toad?") == ("", "")
    assert read_form("What is it that makes the old house at the sea so sad?") == ("", "")


def many(count: int, template: str = "What is {x}?") -> list[Question]:
    return [
        Question(f"q:{n}", template.replace("{x}", f"thing {n}"), f"thing {n}", f"thing {n}", template) for n in range(count)
    ]


def test_what_is_held_out_is_drawn_by_topic_and_wording() -> None:
    both = [*many(40), *many(40, "Describe {x}."), *many(10, "Who was {x}?"), *many(10, "Where is {x}?")]
    found = hold_out(both, 0.15, seed=3)
    new = {one.topic for one in found if one.new_topic}
    assert len(new) == 6
    assert all((one.topic in new) == one.new_topic for one in found), "all questions of a topic are on one side"
    worded = {one.template for one in found if one.new_wording}
    assert worded, "there is one of the others"
    assert worded < {"Who was {x}?", "Where is {x}?"}, "a template of nearly half the questions stays"
    assert hold_out(both, 0.15, seed=3) == found
    assert hold_out(both, 0.15, seed=4) != found


def test_the_split_of_the_file_is_kept() -> None:
    given = [Question("a", "Why?", "a", new_topic=True, new_wording=False), *many(20)]
    found = hold_out(given, 0.5, seed=0)
    assert (found[0].new_topic, found[0].new_wording) == (True, False)
    assert sum(bool(one.new_topic) for one in found[1:]) == 10
