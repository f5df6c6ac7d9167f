"""Questions of our own task families, in the shape of a stage of their curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ....tasks import Problem, Split, problems, rule_json
from ..rollout import Question
from .config import QuestionSource, Stage
from .files import digest


class FamilyQuestions:
    """The questions of one source: endless, each from its own seed."""

    def __init__(self, source: QuestionSource, name: str, seed: int) -> None:
        self._source, self._name, self._seed = source, name, seed
        self._shapes = [source.shapes(stage) for stage in source.curriculum or [Stage()]]

    def question(self, key: str, stage: int) -> Question:
        """The question of a key, which no other has, to train on."""
        return self._draw(f"train/{key}", "train", self._shapes[stage], stage)

    def held(self, number: int) -> Question:
        """A question of the test split, in the shape of the last stage."""
        return self._draw(f"test/{number}", "test", self._shapes[-1], len(self._shapes) - 1)

    def _draw(
        self, key: str, split: Split, shapes: Sequence[tuple[int | None, int | None, int | None]], stage: int
    ) -> Question:
        draw = Random(f"{self._seed}/{self._name}/{key}")
        width, depth, steps = draw.choice(shapes)
        family = self._source.family
        assert family is not None
        wording = self._source.worded(steps)
        seed = draw.getrandbits(63)
        return self._asked(next(problems(family, seed=seed, split=split, width=width, depth=depth, wording=wording)), stage)

    def _asked(self, problem: Problem, stage: int) -> Question:
        text = f"{problem.question}\n\n{self._source.append}" if self._source.append else problem.question
        extra = {"check": "task", "rule": rule_json(problem.rule), **({"stage": stage} if self._source.curriculum else {})}
        name = f"{problem.family}/{digest(text).hex()[:16]}"
        return Question(name, ({"role": "user", "content": text},), problem.answer, self._name, extra)
