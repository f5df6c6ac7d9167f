"""Who decodes: the processes that train, each with an engine of its own, or replicas (`replicas.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .collect import Draw, collect
from .config import RLConfig
from .policy import Policy
from .processes import share
from .rollout import Group, Question
from .validation import answer

OnPhase = Callable[[str, int, int], None]
"""Called in a long phase with what is done, how much of it, and how much there is."""


class Decoded(NamedTuple):
    """Groups of all questions that were begun (`Decoder.begin`), and the seconds that it took."""

    groups: list[Group]
    seconds: float


class Decoder(ABC):
    """Decodes questions with the weights as they are now. In a run of several processes, every process calls each method but
    `begun`.

    Attributes:
        lost: how many replicas were lost since it was last set to 0.
    """

    lost = 0

    @abstractmethod
    def collect(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """Rollouts of this process's share of the questions. Raises as `collect.collect`."""

    @abstractmethod
    def answer(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """Answers to this process's share of the held-out questions, as `validation.answer`."""

    def begin(self, questions: Sequence[Question], draw: Draw) -> None:
        """Begin to decode in the background; the weights may be changed meanwhile."""
        raise NotImplementedError  # RLConfig refuses it

    def begun(self) -> Decoded:
        """What was begun last, in the first process; waits until it is there, and may be asked for again."""
        raise NotImplementedError

    def finish(self) -> Decoded:
        """The same in every process, each with its share of the groups."""
        raise NotImplementedError

    def close(self) -> None:
        """End what was started for it."""
        return


class InProcess(Decoder):
    """Decodes with the engine over the weights that are trained (`Policy`).

    Args:
        config: of the run.
        policy: decodes.
        on_phase: shows how far it has come.
    """

    def __init__(self, config: RLConfig, policy: Policy, on_phase: OnPhase = lambda *_: None) -> None:
        self.config, self.policy, self.on_phase = config, policy, on_phase

    def collect(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """See `Decoder`."""
        return collect(
            self.policy,
            share(questions),
            group_size=self.config.group_size,
            draw=draw,
            params=self.config.sampling.params(),
            mode=None if self.config.mode == "as-is" else self.config.mode,
            on_progress=lambda done, total: self.on_phase("rollouts", done, total),
        )

    def answer(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """See `Decoder`."""
        return answer(
            self.policy,
            share(questions),
            self.config.sampling.params(temperature=self.config.validation_temperature),
            mode=self.config.mode,
            draw=draw,
            on_progress=lambda done, total: self.on_phase("validation", done, total),
        )
