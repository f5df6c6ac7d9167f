"""`Questions`: the questions of every step, drawn from the sources by their weights. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from ....errors import ConfigError
from ..rollout import Group, Question
from .config import QuestionSource, names_of
from .curriculum import Curriculum
from .families import FamilyQuestions
from .files import FileQuestions
from .gym import GymQuestions

_TRIES = 8
"""Draws of a question until it is one that the step does not have yet."""

_Source = FamilyQuestions | FileQuestions | GymQuestions


class Questions:
    """The questions of a run.

    A step has `per_step` questions, shared out among the sources by their weights; rounding is evened out over the steps. Which
    they are depends on the seed, the step, and how far the curricula have come (`state`), and on nothing else.

    Args:
        sources: where they come from.
        seed: of the run.
        per_step: questions of a step.

    Attributes:
        names: of the sources, as `Question.source` has them.

    Raises:
        ConfigError, DataError, ExtraError: a source cannot be used.
    """

    def __init__(self, sources: Sequence[QuestionSource], seed: int, per_step: int) -> None:
        if per_step < 1:
            raise ConfigError(f"per_step={per_step} is not valid: a step needs a question")
        self.names = names_of(sources)
        self._settings, self._seed, self._per_step = tuple(sources), seed, per_step
        self._sources = [_open(source, name, seed) for source, name in zip(sources, self.names, strict=True)]
        self._curricula = [Curriculum(source.curriculum) for source in sources]
        weights = [source.weight for source in sources]
        self._shares = [weight / sum(weights) for weight in weights]
        self._credits = [0.0] * len(sources)
        self._slots: list[tuple[int, int]] = []  # source, and number in it, of every question of the steps so far
        self._counts = [0] * len(sources)

    def batch(self, step: int, count: int | None = None, start: int = 0) -> list[Question]:
        """Questions of a step.

        Args:
            step: from 0.
            count: how many; `None` is all of the step. Those beyond `per_step`, in place of groups without spread, are drawn at
                random and do not count as asked.
            start: index of the first of them.
        """
        count = self._per_step - start if count is None else count
        found: list[Question] = []
        ids: set[str] = set()
        for index in range(start + count):
            found.append(self._question(step, index, ids))
            ids.add(found[-1].id)
        return found[start:]

    def held_out(self, count: int) -> list[Question]:
        """Questions that are never trained on: of families their test split, of the others what `validation` holds out; so many
        by weight, fewer where there are no more."""
        rest = {index: self._sources[index] for index in range(len(self._sources))}
        taken = dict.fromkeys(rest, 0)
        asked: list[Question] = []
        while rest and len(asked) < count:
            index = min(rest, key=lambda one: ((taken[one] + 1) / self._shares[one], one))
            question = rest[index].held(taken[index])
            if question is None:
                del rest[index]
            else:
                taken[index] += 1
                asked.append(question)
        return asked

    def observe(self, step: int, groups: Sequence[Group]) -> list[str]:
        """Take in the judged groups of a step, for curricula; names of sources that begin their next stage."""
        return [
            name
            for name, curriculum in zip(self.names, self._curricula, strict=True)
            if curriculum.observe(step, [group for group in groups if group.question.source == name])
        ]

    def stages(self) -> dict[str, int]:
        """Index of the present stage of each source that has several."""
        rows = zip(self.names, self._settings, self._curricula, strict=True)
        return {name: curriculum.stage for name, source, curriculum in rows if len(source.curriculum) > 1}

    def state(self) -> dict[str, Any]:
        """Where the curricula stand, as JSON, for a checkpoint."""
        return {name: curriculum.state() for name, curriculum in zip(self.names, self._curricula, strict=True)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; sources that it does not know begin at their first stage."""
        for name, curriculum in zip(self.names, self._curricula, strict=True):
            if name in state:
                curriculum.load(state[name])

    def describe(self) -> list[str]:
        """A line for each source, for people."""
        lines = []
        for name, settings, source, share in zip(self.names, self._settings, self._sources, self._shares, strict=True):
            line = f"{name}: {share:.0%} of the questions"
            if isinstance(source, FileQuestions):
                checks = ", ".join(f"{count:,} {check}" for check, count in sorted(source.checks.items()))
                line += f", {len(source):,} to train on, {source.num_held_out:,} held out ({checks})"
                line += f"; {source.duplicates:,} duplicates left out" if source.duplicates else ""
                line += f"; {len(source.faults):,} faulty rows skipped" if source.faults else ""
            else:
                line += f", generated; {len(settings.curriculum)} stages" if settings.curriculum else ", generated"
            lines.append(line)
        return lines

    def _question(self, step: int, index: int, ids: set[str]) -> Question:
        if index < self._per_step:
            place, number = self._slot(step * self._per_step + index)
        else:
            draw = Random(f"{self._seed}/more/{step}/{index}")
            (place,) = draw.choices(range(len(self._sources)), self._shares)
            # Numbers that no step comes to.
            number = (1 << 40) + (step << 16) + index
            source = self._sources[place]
            if isinstance(source, FileQuestions):
                return source.any(draw)
        source, stage = self._sources[place], self._curricula[place].stage
        if isinstance(source, FileQuestions):
            return source.question(number)
        for attempt in range(_TRIES):
            if isinstance(source, GymQuestions):
                found = source.question(number, stage, attempt)
            else:
                found = source.question(f"{step}/{index}/{attempt}", stage)
            if found.id not in ids:
                break
        return found

    def _slot(self, number: int) -> tuple[int, int]:
        """Source, and number within it, of a question, counted over all steps: smooth weighted round robin."""
        while len(self._slots) <= number:
            self._credits = [credit + share for credit, share in zip(self._credits, self._shares, strict=True)]
            best = max(range(len(self._credits)), key=lambda place: (round(self._credits[place], 9), -place))
            self._credits[best] -= 1
            self._slots.append((best, self._counts[best]))
            self._counts[best] += 1
        return self._slots[number]


def _open(source: QuestionSource, name: str, seed: int) -> _Source:
    kind: type[FamilyQuestions] | type[FileQuestions] | type[GymQuestions]
    kind = FamilyQuestions if source.family is not None else FileQuestions if source.file is not None else GymQuestions
    return kind(source, name, seed)
