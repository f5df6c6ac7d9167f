"""Solutions: read from records, cut into statements, every expression evaluated."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.dataflow.solution import Solution, Statement, read_solutions, solution_of, statements
from multiverse.curation.errors import ValidationError
from multiverse.data import Fault


def made(text: str, question: str = "How many?", answer: str = "1") -> Solution:
    found = solution_of({"question": question, "answer": f"{text}\n#### {answer}"}, "x.jsonl", 7)
    assert isinstance(found, Solution), found
    return found


def steps(text: str, question: str = "How many?") -> tuple[Statement, ...]:
    return statements(made(text, question))


def test_a_record() -> None:
    found = made("Mia has 48/2 = <<48/2=24>>24 clips.\nThat is $<<24*1000=24000>>24,000.", answer="$24,000")
    assert (found.id, found.source, found.line) == ("x.jsonl:7", "x.jsonl", 7)
    assert found.reasoning == "Mia has 48/2 = 24 clips.\nThat is $24,000."
    assert (found.answer, found.value) == ("Answer: 24000", Fraction(24000))


@pytest.mark.parametrize(
    ("written", "answer"), [("-12", "Answer: -12"), ("1,080", "Answer: 1080"), ("$2.50", "Answer: 2.5"), ("5%", "Answer: 5")]
)
def test_answers(written: str, answer: str) -> None:
    assert made("It is 1+1 = <<1+1=2>>2.", answer=written).answer == answer


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([], "it must be an object"),
        ({"question": "How many?"}, "a solution that ends with ####"),
        ({"question": "How many?", "answer": "24"}, "a solution that ends with ####"),
        ({"answer": "2\n#### 2"}, "it needs a question"),
        ({"question": "  ", "answer": "2\n#### 2"}, "it needs a question"),
        ({"question": "How many?", "answer": "2\n#### many"}, "is no number: 'many'"),
        ({"question": "How\0many?", "answer": "2\n#### 2"}, "zero character"),
        ({"question": 3, "answer": None}, "it needs a question"),
    ],
)
def test_what_is_no_solution(record: Any, problem: str) -> None:
    found = solution_of(record, "x.jsonl", 7)
    assert isinstance(found, Fault)
    assert problem in found.problem
    assert found.line == 7


def test_equations_and_their_places() -> None:
    (step,) = steps("Mia sold 2 boxes * $5/box = $<<2*5=10>>10 of clips, and 10 + 7 = 17 in all.")
    assert step.text == "Mia sold 2 boxes * $5/box = $10 of clips, and 10 + 7 = 17 in all."
    shown = [step.text[one.start : one.end] for one in step.equations]
    assert shown == ["2 boxes * $5/box = $10", "10 + 7 = 17"]
    assert [(one.expression, one.value) for one in step.equations] == [("2*5", 10), ("10 + 7", 17)]


def test_sentences_without_numbers_belong_to_those_beside_them() -> None:
    found = steps(
        "First we look at the boys. There are 3*4 = <<3*4=12>>12 of them. They are tall.\n"
        "Now the girls.\n"
        "2) There are 12+1 = <<12+1=13>>13 girls.\n"
        "So 13 girls came.\n"
        "That is all."
    )
    assert [step.text for step in found] == [
        "First we look at the boys. There are 3*4 = 12 of them. They are tall.",
        "Now the girls.\nThere are 12+1 = 13 girls.",
        "So 13 girls came.\nThat is all.",
    ]
    assert [len(step.equations) for step in found] == [1, 1, 0]


def test_two_steps_on_one_line() -> None:
    first, second = steps("He has 3*4 = <<3*4=12>>12 eggs. She has 12+1 = <<12+1=13>>13 eggs.")
    assert (first.same_line, second.same_line) == (False, True)


def test_a_value_that_only_the_annotation_has() -> None:
    (step,) = steps("They pay $<<4*5=20>> for it.")
    assert step.text == "They pay $20 for it."


def test_a_sign_on_both_sides_of_an_annotation_is_written_once() -> None:
    found = made("He pays 4*15 = $<<4*15=60>>$60.00.")
    assert found.reasoning == statements(found)[0].text == "He pays 4*15 = $60.00."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("It is 2+2 = <<2+2=5>>5.", "wrong arithmetic"),
        ("It is 7/2 = <<7/2=3>>3.", "wrong arithmetic"),
        ("It is 2+2 = <<2+2=4>>5.", "wrong arithmetic"),
        ("It is 2+ = <<2+=4>>4.", "arithmetic that cannot be evaluated"),
        ("It is 1/0 = <<1/0=4>>4.", "arithmetic that cannot be evaluated"),
        ("It is <<4>>4.", "arithmetic that cannot be evaluated"),
        ("He has 162 * 2 = 64 eggs, and 1+1 = <<1+1=2>>2 more.", "arithmetic that cannot be evaluated"),
        ("He hikes 8*=40 hours, and 1+1 = <<1+1=2>>2 more.", "arithmetic that cannot be evaluated"),
        ("So 3x + 5 = 20 and 20/4 = <<20/4=5>>5.", "algebra"),
        ("There are many.", "no arithmetic"),
    ],
)
def test_rejected(text: str, reason: str) -> None:
    with pytest.raises(ValidationError) as failed:
        steps(text)
    assert failed.value.reason == reason


@pytest.mark.parametrize(
    "text", ["It is 10/3 = <<10/3=3.33>>3.33.", "It is 25% because 1/4 = <<1/4=.25>>0.25.", "5 x 3 = <<5*3=15>>15."]
)
def test_what_is_right(text: str) -> None:
    assert len(steps(text)[0].equations) == 1


def test_letters_of_the_question_are_names() -> None:
    assert steps("Box B has 2+2 = <<2+2=4>>4 eggs.", "How many has box B?")


def test_a_folder_gives_its_training_split(tmp_path: Path) -> None:
    for name in ("train", "test"):
        record = {"question": f"{name}?", "answer": "1+1 = <<1+1=2>>2\n#### 2"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    assert [one.question for one in read_solutions(tmp_path) if isinstance(one, Solution)] == ["train?"]
    assert [one.question for one in read_solutions(tmp_path, split="test") if isinstance(one, Solution)] == ["test?"]


def test_rows_that_cannot_be_read_are_faults(tmp_path: Path) -> None:
    good = json.dumps({"question": "How many?", "answer": "1+1 = <<1+1=2>>2\n#### 2"})
    (tmp_path / "x.jsonl").write_text(f"{good}\n{{broken\n{good}\n")
    found = list(read_solutions(tmp_path / "x.jsonl"))
    assert [isinstance(one, Solution) for one in found] == [True, False, True]
