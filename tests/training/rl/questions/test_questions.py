"""Questions of a run: the same for the same seed and step, mixed by weight, harder when the model is ready."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse.errors import ConfigError
from multiverse.tasks import generate, problems, read_rule, rule_json
from multiverse.training.rl.questions import Questions, QuestionSource, Stage
from multiverse.training.rl.questions.config import check_judge
from multiverse.training.rl.rewards import Judge, Reward
from multiverse.training.rl.rollout import Group, Question, Scores
from tests.training.rl.answers import said


def judged(question: Question, *correct: bool) -> Group:
    return Group(question, [said("1")] * len(correct), [Scores(float(one), correct=one) for one in correct])


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(path: Path, count: int) -> str:
    return write(path, *({"question": f"What is {number}+1?", "answer": number + 1} for number in range(count)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a source of questions is one of family, file and gym: none is given"),
        ({"family": "nested", "file": "x.jsonl"}, "family and file are given"),
        ({"family": "worksheets"}, "family='worksheets' is not known: use worksheet, "),
        ({"family": "worksheet", "check": "math"}, "check='math' has no effect with family: it is for file"),
        ({"file": "x.jsonl", "width": 3}, "width=3 has no effect with file: it is for family"),
        ({"file": "x.jsonl", "args": {"a": 1}}, "args={'a': 1} has no effect with file: it is for gym"),
        ({"family": "worksheet", "width": 9}, "width 9 is out of range for family 'worksheet': allowed are 2, 3, 4, 5, 6"),
        ({"family": "worksheet", "width": [2, 9]}, "width 9 is out of range"),
        ({"family": "chain", "depth": 2}, "depth 2 given, but family 'chain' has no depth"),
        ({"family": "nested", "width": 3, "depth": 3}, "width 3 is too wide for family 'nested' at depth 3"),
        ({"family": "sorting", "wording": "plain"}, "family 'sorting' has natural wording only"),
        ({"family": "worksheet", "curriculum": [Stage(width=2), Stage(width=3)]}, "stage 1 of the curriculum never ends"),
        ({"family": "worksheet", "curriculum": [Stage(width=2, for_steps=3)]}, "stage 1 is the last of the curriculum"),
        ({"family": "worksheet", "curriculum": [Stage(width=7)]}, "width 7 is out of range"),
        ({"family": "worksheet", "curriculum": [Stage(args={"a": 1})]}, "has args={'a': 1}, which family does not have"),
        ({"family": "worksheet", "widht": 2}, "QuestionSource has no 'widht': did you mean 'width'?"),
        ({"file": "x.jsonl", "validation": 1.0}, "validation=1.0 is not valid: it must be a number from 0 to 0.99"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QuestionSource(**values)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_questions_for_a_judge_need_one() -> None:
    sources = [QuestionSource(family="chain"), QuestionSource(file="essays.jsonl", check="judge")]
    with pytest.raises(
        ConfigError, match="the questions of 'essays' have check='judge', and the reward 'correct' has no judge"
    ):
        check_judge(sources, [Reward("correct")])
    check_judge(sources, [Reward("correct", judge=Judge(base_url="http://127.0.0.1:1/v1", model="m"))])
    check_judge(sources, [Reward("mine:score")])
    check_judge(sources[:1], [Reward("correct")])


def test_a_stage_ends_in_one_way() -> None:
    with pytest.raises(ConfigError, match=r"for_steps=3 and until_correct=0.5 both end the stage"):
        Stage(for_steps=3, until_correct=0.5)


def test_no_sources() -> None:
    with pytest.raises(ConfigError, match="questions is empty: begin with"):
        Questions([], seed=0, per_step=4)


def test_families_with_their_own_checks() -> None:
    sources = [QuestionSource(family="worksheet", width=[2, 3], append="Be brief."), QuestionSource(family="listing")]
    questions = Questions(sources, seed=3, per_step=8)
    batch = questions.batch(5)
    assert Counter(question.source for question in batch) == {"worksheet": 4, "listing": 4}
    assert len({question.id for question in batch}) == 8
    assert all(
        str(question.messages[0]["content"]).endswith("Be brief.") for question in batch if question.source == "worksheet"
    )
    json.dumps([question.extra for question in batch])
    again = Questions(sources, seed=3, per_step=8)
    assert again.batch(5) == batch  # without the steps before
    assert again.batch(5, count=3) == batch[:3]
    assert again.batch(5, count=2, start=4) == batch[4:6]
    assert questions.batch(6) != batch
    assert Questions(sources, seed=4, per_step=8).batch(5) != batch


def test_rules_as_json() -> None:
    for family in ("worksheet", "countdown", "cases", "sorting", "listing", "lookup", "nested", "chain"):
        for problem in generate(family, 3, seed=1):
            assert read_rule(json.loads(json.dumps(rule_json(problem.rule)))) == problem.rule


def test_training_and_held_out_questions_of_a_family_are_apart() -> None:
    questions = Questions([QuestionSource(family="countdown", width=3)], seed=0, per_step=16)
    trained = {str(question.messages[0]["content"]) for step in range(4) for question in questions.batch(step)}
    held = {str(question.messages[0]["content"]) for question in questions.held_out(16)}
    assert len(held) > 10
    assert not trained & held
    split = {problem.question for problem, _ in zip(problems("countdown", seed=1, width=3), range(40), strict=False)}
    assert not trained & split


def test_weights_hold_over_the_steps() -> None:
    sources = [
        QuestionSource(family="worksheet", weight=6),
        QuestionSource(family="chain", weight=3),
        QuestionSource(family="chain", weight=1, name="hard"),
        QuestionSource(family="worksheet", weight=2),
    ]
    questions = Questions(sources, seed=0, per_step=3)
    assert questions.names == ["worksheet", "chain", "hard", "worksheet-2"]
    counts = Counter(question.source for step in range(8) for question in questions.batch(step))
    assert counts == {"worksheet": 12, "chain": 6, "hard": 2, "worksheet-2": 4}


def test_a_file_is_asked_whole_before_anything_is_asked_again(tmp_path: Path) -> None:
    file = numbered(tmp_path / "sums.jsonl", 10)
    questions = Questions([QuestionSource(file=file), QuestionSource(family="chain")], seed=0, per_step=4)
    asked = [question.reference for step in range(10) for question in questions.batch(step) if question.source == "sums"]
    assert sorted(asked[:10], key=int) == sorted(asked[10:], key=int) == [str(number) for number in range(1, 11)]  # type: ignore[arg-type]
    assert asked[:10] != asked[10:]
    again = Questions([QuestionSource(file=file), QuestionSource(family="chain")], seed=0, per_step=4)
    assert again.batch(9) == questions.batch(9)
    in_order = Questions([QuestionSource(file=file, shuffle=False)], seed=0, per_step=4)
    assert [question.reference for question in in_order.batch(1)] == ["5", "6", "7", "8"]


def test_questions_beyond_a_step_take_none_of_the_next(tmp_path: Path) -> None:
    file = numbered(tmp_path / "sums.jsonl", 10)
    questions = Questions([QuestionSource(file=file, shuffle=False)], seed=0, per_step=4)
    more = questions.batch(0, count=2, start=4)
    assert more == questions.batch(0, count=2, start=4)
    assert questions.batch(0, count=6)[:4] == questions.batch(0)
    assert [question.reference for question in questions.batch(1)] == ["5", "6", "7", "8"]


def test_a_share_of_a_file_is_held_out(tmp_path: Path) -> None:
    source = QuestionSource(file=numbered(tmp_path / "sums.jsonl", 200), validation=0.2)
    questions = Questions([source], seed=0, per_step=10)
    held = {question.id for question in questions.held_out(1000)}
    trained = {question.id for step in range(40) for question in questions.batch(step)}
    assert 25 <= len(held) <= 55
    assert not held & trained
    assert len(held | trained) == 200
    # The same ones with other rows beside them, and whatever the seed.
    other = Questions([replace(source, file=numbered(tmp_path / "more.jsonl", 300))], seed=9, per_step=10)
    assert held <= {question.id for question in other.held_out(1000)}
    assert questions.describe() == [
        f"sums: 100% of the questions, {200 - len(held)} to train on, {len(held)} held out (200 math)"
    ]
    assert Questions([replace(source, validation=0.0)], seed=0, per_step=10).held_out(5) == []


def test_a_curriculum_by_steps_and_by_success() -> None:
    stages = [Stage(width=2, for_steps=2), Stage(width=[3, 4], until_correct=0.75, window=2), Stage(width=6)]
    source = QuestionSource(family="worksheet", curriculum=stages)
    questions = Questions([source], seed=0, per_step=4)
    assert questions.stages() == {"worksheet": 0}
    early = questions.batch(0)
    assert questions.observe(0, [judged(question, False) for question in early]) == []
    assert questions.observe(1, [judged(question, False) for question in questions.batch(1)]) == ["worksheet"]
    assert questions.stages() == {"worksheet": 1}
    # Answers to questions of the stage before do not count.
    for step in (2, 3, 4):
        assert questions.observe(step, [judged(question, True) for question in early]) == []
    second = questions.batch(5)
    assert questions.observe(5, [judged(question, True, False) for question in second]) == []
    state = json.loads(json.dumps(questions.state()))
    resumed = Questions([source], seed=0, per_step=4)
    resumed.load(state)
    assert resumed.batch(6) == questions.batch(6)
    for one in (questions, resumed):
        assert one.observe(6, [judged(question, True, True) for question in one.batch(6)]) == ["worksheet"]  # 12 of 16
        assert one.stages() == {"worksheet": 2}
        assert one.observe(7, [judged(question, True) for question in one.batch(7)]) == []  # the last does not end
    assert questions.batch(8) == resumed.batch(8)
    fresh = Questions([source], seed=0, per_step=4)
    assert fresh.batch(8) != questions.batch(8)


def test_a_curriculum_that_became_shorter() -> None:
    source = QuestionSource(family="worksheet", curriculum=[Stage(width=2, for_steps=1), Stage(width=3)])
    questions = Questions([source], seed=0, per_step=2)
    questions.load({"worksheet": {"stage": 5, "begun": 3, "answers": []}, "gone": {"stage": 1, "begun": 0, "answers": []}})
    assert questions.stages() == {"worksheet": 1}
