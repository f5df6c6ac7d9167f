"""reasoning-gym's generators: questions by number, its own scorers, and answers on which those fail."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

pytest.importorskip("reasoning_gym")

from multiverse.errors import ConfigError, ExtraError
from multiverse.training.rl.questions import Questions, QuestionSource, Stage
from multiverse.training.rl.rewards import Reward, Rewards
from tests.training.rl.answers import group, said

SUMS = QuestionSource(gym="chain_sum", args={"min_terms": 2, "max_terms": 3}, append="Give the number alone.")


def test_questions_by_number_and_what_is_held_out() -> None:
    source = replace(SUMS, validation=0.2)
    questions = Questions([source], seed=0, per_step=6)
    batch = questions.batch(100)
    json.dumps([question.extra for question in batch])
    assert len({question.id for question in batch}) == 6
    assert str(batch[0].messages[0]["content"]).endswith("\n\nGive the number alone.")
    assert Questions([source], seed=0, per_step=6).batch(100) == batch
    assert questions.batch(101) != batch
    assert questions.batch(100, count=2, start=6) == Questions([source], seed=0, per_step=6).batch(100, count=2, start=6)
    held = {question.id for question in questions.held_out(10)}
    assert len(held) == 10
    assert not held & {question.id for step in range(20) for question in questions.batch(step)}


def test_its_own_scorers_judge() -> None:
    (question,) = Questions([replace(SUMS, append="")], seed=1, per_step=1).batch(0)
    right = str(question.reference)
    # The scorer gives a part for an answer that holds the right one: that is not correct.
    asked = group(said(right), said("0"), said(f"It is {right} in all"), said(""), question=question)
    with Rewards([Reward("correct", wrong=-1.0)]) as rewards:
        (judged,) = rewards.judge([asked], 0)
    assert [score.correct for score in judged.scores] == [True, False, False, False]
    assert (judged.scores[0].total, judged.scores[1].total, judged.scores[3].total) == (1.0, -1.0, -1.0)
    assert -1 < judged.scores[2].total < 1
    assert not any(score.faults for score in judged.scores)


def test_stages_of_settings() -> None:
    stages = [Stage(args={"max_terms": 2}, for_steps=1), Stage(args={"min_terms": 5, "max_terms": 5})]
    questions = Questions([replace(SUMS, append="", curriculum=stages)], seed=0, per_step=3)

    def terms(step: int) -> set[int]:
        return {sum(sign in "+-" for sign in str(question.messages[0]["content"])) + 1 for question in questions.batch(step)}

    assert terms(0) == {2}
    assert questions.observe(0, []) == ["chain_sum"]
    assert terms(1) == {5}


@pytest.mark.parametrize(
    ("gym", "args", "message"),
    [
        ("chain_sums", {}, "gym='chain_sums' is not known: did you mean 'chain_sum'?"),
        ("chain_sum", {"terms": 3}, "gym='chain_sum' does not take args={'terms': 3}: "),
        ("chain_sum", {"min_terms": 0}, "gym='chain_sum' does not take args={'min_terms': 0}: "),
    ],
)
def test_generators_and_settings_that_are_not_there(gym: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Questions([QuestionSource(gym=gym, args=args)], seed=0, per_step=1)
    assert message in str(caught.value)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ExtraError, match=r"this needs reasoning-gym, .* pip install 'multiverse-llm\[rl\]'"):
        Questions([SUMS], seed=0, per_step=1)
