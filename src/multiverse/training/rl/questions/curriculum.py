"""How far a curriculum has come: by steps, or by the share of answers that are correct."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..rollout import Group
from .config import Stage


class Curriculum:
    """The stages of one source.

    Attributes:
        stage: index of the present one.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self.stage = 0
        self._begun = 0
        self._answers: deque[tuple[int, int]] = deque()

    def observe(self, step: int, groups: Sequence[Group]) -> bool:
        """Take in the answers of a step; whether the next stage begins."""
        if self.stage >= len(self._stages) - 1:
            return False
        stage = self._stages[self.stage]
        if stage.for_steps is not None:
            done = step + 1 - self._begun >= stage.for_steps
        else:
            assert stage.until_correct is not None
            # Answers to questions of an earlier stage come in later where rollouts run ahead of the update.
            own = [group for group in groups if group.question.extra.get("stage") == self.stage]
            known = [score.correct for group in own for score in group.scores if score.correct is not None]
            if known:
                self._answers.append((sum(known), len(known)))
            while len(self._answers) > stage.window:
                self._answers.popleft()
            right, total = (sum(column) for column in zip(*self._answers, strict=True)) if self._answers else (0, 1)
            done = len(self._answers) == stage.window and right / total >= stage.until_correct
        if done:
            self.stage, self._begun = self.stage + 1, step + 1
            self._answers.clear()
        return done

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON."""
        return {"stage": self.stage, "begun": self._begun, "answers": [list(pair) for pair in self._answers]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. One beyond the last stage, of a curriculum that had more, is the last."""
        self.stage = min(int(state["stage"]), max(0, len(self._stages) - 1))
        self._begun = int(state["begun"])
        self._answers = deque((int(right), int(total)) for right, total in state["answers"])
