"""Files of questions and answers: the names that people use, what judges their answers, and faults with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiverse.errors import DataError
from multiverse.training.rl.questions import Questions, QuestionSource
from multiverse.training.rl.questions.rows import Row, answer_in, read_row
from multiverse.training.rl.rewards import Reward, Rewards
from multiverse.training.rl.rewards.correct import check_of, plain
from multiverse.training.rl.rollout import Question, Rollout
from tests.training.rl.answers import group, said

SOURCE = QuestionSource(file="x.jsonl")


def read(**value: object) -> Row:
    return read_row(value, SOURCE, 0)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "question", "reference"),
    [
        ({"question": "2+2?", "answer": "4"}, "2+2?", "4"),
        ({"problem": " 2+2? ", "answer": 4}, "2+2?", "4"),
        ({"prompt": "2+2?", "final_answer": ["4"]}, "2+2?", "4"),
        ({"instruction": "2+2?", "output": "4.0"}, "2+2?", "4.0"),
        ({"question": "2+2?", "answer": 4.0}, "2+2?", "4"),
        ({"question": "Even?", "answer": True}, "Even?", "true"),
        ({"question": "2+2?", "answer": "2+2 is 4.\n#### 4"}, "2+2?", "4"),  # GSM8K
        ({"question": "Cost?", "answer": "So it is\n#### 1,234"}, "Cost?", "1234"),
        ({"problem": "2+2?", "solution": "It is $\\boxed{4}$, as $2+2=4$."}, "2+2?", "4"),  # MATH
        ({"problem": "2+2?", "solution": "Long.", "answer": "4"}, "2+2?", "4"),
        ({"prompt": [{"role": "user", "content": "2+2?"}], "reward_model": {"ground_truth": "4"}}, "2+2?", "4"),  # verl
        ({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "#### 4"}]}, "2+2?", "4"),
        ({"question": "2+2?", "answer": None, "ground_truth": "4"}, "2+2?", "4"),
    ],
)
def test_usual_names(row: dict[str, object], question: str, reference: str) -> None:
    found = read_row(row, SOURCE, 0)
    assert found.messages == ({"role": "user", "content": question},)
    assert found.reference == reference
    assert found.extra == {"check": "auto"}


def test_named_fields_and_a_text_at_the_end() -> None:
    source = QuestionSource(file="x.jsonl", question_field="q.text", answer_field="a", append="Answer with a number.")
    found = read_row({"q": {"text": "2+2?"}, "a": 4, "answer": "5", "id": 17}, source, 0)
    assert found.messages[0]["content"] == "2+2?\n\nAnswer with a number."
    assert (found.reference, found.id) == ("4", "17")


def test_final_answers() -> None:
    assert answer_in("a #### 3 #### 4") == "4"
    assert answer_in("a\n#### 4\n") == "4"
    assert answer_in(r"\boxed{3} or \boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert answer_in(" Paris ") == "Paris"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "4"}, "it has no question (messages/question/problem/prompt): its fields are answer"),
        ({"question": "2+2?"}, "it has no answer (answer/final_answer/"),
        ({"question": " ", "answer": "4"}, "its question is empty"),
        ({"question": "2+2?", "answer": ""}, "it has no answer"),
        ({"question": 4, "answer": "4"}, "its question is a int: it has to be a text, or a list of messages"),
        ({"question": "2+2?", "answer": {"x": 1}}, "its answer is a dict: it has to be a text or a number"),
        ({"messages": [{"role": "tool", "content": "x"}], "answer": "4"}, "message 1 is not valid: it needs a role"),
        ({"messages": [{"role": "system", "content": "x"}], "answer": "4"}, "its messages do not end with a question"),
        ({"question": "?", "choices": ["a", "b"], "answer": "E"}, "its answer 'E' is none of its 2 choices"),
        ({"question": "?", "tests": [{"input": "1"}]}, "test 1 has no input and output"),
        ({"prompt": "?", "instruction_id_list": ["no:such"], "kwargs": [{}]}, "instruction 'no:such', which is none of the 25"),
    ],
)
def test_faults(row: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_row(row, SOURCE, 0)
    assert message in str(caught.value)


def test_faults_have_file_and_line(tmp_path: Path) -> None:
    good = {"question": "2+2?", "answer": "4"}
    file = write(tmp_path / "mixed.jsonl", good, "{broken", {"question": "3+3?"}, "[1]", good, {**good, "answer": "5"})
    with pytest.raises(DataError) as caught:
        Questions([QuestionSource(file=file)], seed=0, per_step=1)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{file} has 4 faults (on_error: skip leaves them out):"
    assert [line.partition(": ")[0].strip() for line in lines[1:]] == [f"{file}:{number}" for number in (2, 3, 4, 6)]
    assert f"the same question stands at {file}:1 with another answer: keep one of them" in lines[4]
    skipped = Questions([QuestionSource(file=file, on_error="skip")], seed=0, per_step=1)
    assert skipped.describe() == [
        "mixed: 100% of the questions, 1 to train on, 0 held out (1 math); 1 duplicates left out; 4 faulty rows skipped"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jsonl", "there is no such file"),
        ("empty.jsonl", "the file is empty"),
        ("x.csv", "the file type is not supported"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=message):
        Questions([QuestionSource(file=str(tmp_path / name))], seed=0, per_step=1)


def test_other_kinds_of_files(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"question": f"{number}+1?", "answer": str(number + 1)} for number in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    for name in ("a.json", "b.parquet"):
        questions = Questions([QuestionSource(file=str(tmp_path / name), shuffle=False)], seed=0, per_step=3)
        assert [question.reference for question in questions.batch(0)] == ["1", "2", "3"]


def judged(question: Question, *rollouts: Rollout) -> list[float]:
    with Rewards([Reward("correct")]) as rewards:
        (found,) = rewards.judge([group(*rollouts, question=question)], 0)
    assert not any(score.faults for score in found.scores)
    return [score.total for score in found.scores]


def asked(**value: object) -> Question:
    row = read_row(value, QuestionSource(file="x.jsonl", check=value.pop("check", None)), 0)  # type: ignore[arg-type]
    return Question("q", row.messages, row.reference, "x", row.extra)


def test_texts_and_mathematics_are_told_apart() -> None:
    assert check_of(asked(question="Capital of France?", answer="Paris")) == "exact"
    assert check_of(asked(question="Half?", answer=r"\frac{1}{2}")) == "math"
    assert plain(r"So \boxed{The  Café.}") == "café"
    assert judged(asked(question="Capital?", answer="Paris"), said("**paris**."), said("Lyon"), said("")) == [1, 0, 0]
    assert judged(asked(question="Half?", answer=r"\frac{1}{2}"), said("0.5"), said("1/3"), said("1", r"\boxed{1/2}")) == [
        1,
        0,
        1,
    ]
    assert judged(asked(question="?", answer="Apollo 11"), said("apollo 11"), said("Apollo 12")) == [1, 0]


def test_several_answers_that_are_right() -> None:
    question = asked(question="Who?", answer=["Samuel Clemens", "Mark Twain", None])
    assert (question.reference, question.extra["also"]) == ("Samuel Clemens", ["Mark Twain"])
    assert judged(question, said("mark twain"), said("Samuel Clemens."), said("Twain")) == [1, 1, 0]


def test_numbers_and_choices() -> None:
    assert judged(asked(question="?", answer="1,041", check="number"), said("It is 1041 in all"), said("41"), said("x")) == [
        1,
        0,
        0,
    ]
    question = asked(question="Which?", choices=["red", "blue"], answer="blue")
    assert question.messages[0]["content"] == "Which?\n\nA) red\nB) blue"
    assert question.reference == "B"
    assert judged(question, said("B"), said("the answer is (A)"), said("blue")) == [1, 0, 1]
    assert asked(question="?", choices={"text": ["red", "blue"], "label": ["A", "B"]}, answer=0).reference == "A"


def test_code_in_the_jail() -> None:
    program = "```python\n{}\n```"
    double = said("x", program.format("print(2 * int(input()))"))
    question = asked(question="Double it.", tests=[{"input": "2", "output": "4"}, {"input": "5", "output": "10"}])
    assert judged(question, double, said("x", program.format("print(4)")), said("x", "no program")) == [1, 0, 0]
    question = asked(question="Double it.", test_list=["assert double(2) == 4", "assert double(5) == 10"])
    right, wrong = (
        said("x", program.format("def double(x): return 2 * x")),
        said("x", program.format("def double(x): return 4")),
    )
    cheats = said("x", program.format("import sys\ndef double(x): sys.exit(0)"))
    assert judged(question, right, wrong, cheats) == [1, 0, 0]
    question = asked(question="Double it.", test="def check(candidate):\n    assert candidate(2) == 4\n", entry_point="double")
    assert judged(question, right, cheats) == [1, 0]


def test_a_program_that_does_harm_is_wrong() -> None:
    program = "```python\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos._exit(0)\n```"
    question = asked(question="Double it.", test_list=["assert double(2) == 4"])
    assert judged(question, said("x", program), said("x", "```python\nimport os; os._exit(0)\n```")) == [0, 0]


def test_instructions() -> None:
    question = asked(prompt="No commas.", instruction_id_list=["punctuation:no_comma"], kwargs=[{}])
    assert question.extra["check"] == "instructions"
    assert judged(question, said("x", "a b c"), said("x", "a, b")) == [1, 0]


def test_an_answer_on_which_the_comparison_hangs_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse.evaluation.graders import mathematics

    class Hangs:
        def ask(self, *_: object) -> None:
            raise mathematics._TimeUpError

        def kill(self) -> None:
            pass

    monkeypatch.setattr(mathematics, "_Worker", Hangs)
    monkeypatch.setattr(mathematics, "shared", mathematics.MathGrader)
    assert judged(asked(question="?", answer="12"), said("9^9^9^9"), said("12")) == [0, 1]
