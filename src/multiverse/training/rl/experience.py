"""Batches of rollouts: drawn, decoded, judged, given advantages; kept while there are updates to be made on them."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import RewardError, writing
from .advantages import TrainingGroup, advantages, gather
from .collect import Draw, collect
from .config import RLConfig
from .metrics import Metrics, measure
from .policy import Policy
from .questions import Questions
from .rewards import Rewards
from .rollout import Group, Question
from .validation import answer

STATE, PENDING = "rollouts.pkl", "pending-{rank}.pkl"
OnPhase = Callable[[str, int, int], None]
"""Called in a long phase with what is done, how much of it, and how much there is."""


@dataclass(frozen=True)
class Experience:
    """One batch of rollouts.

    Attributes:
        index: of the batch, from 0.
        groups: those of all processes, with their advantages.
        metrics: figures of the rollouts.
    """

    index: int
    groups: list[TrainingGroup]
    metrics: Metrics

    def part(self, number: int, parts: int) -> list[TrainingGroup]:
        """The share of the groups that one of several updates is made on."""
        count = len(self.groups)
        return self.groups[count * number // parts : count * (number + 1) // parts]


class Experiences:
    """Collects and judges the rollouts of a run, batch by batch.

    Each process asks its share of the questions and gets the rollouts of all: baselines, the curriculum and what is drawn again
    are the same whatever the number of processes.

    Args:
        config: of the run.
        policy: decodes with the weights that are trained.
        questions: what is asked.
        rewards: judges the rollouts.
        on_phase: shows how far a batch has come.
    """

    def __init__(
        self, config: RLConfig, policy: Policy, questions: Questions, rewards: Rewards, on_phase: OnPhase = lambda *_: None
    ) -> None:
        self.config, self.policy, self.questions, self.rewards, self.on_phase = config, policy, questions, rewards, on_phase
        self.algorithm = config.algorithm.bound(config.sampling.max_tokens)
        self._params = config.sampling.params()
        self.held_out = questions.held_out(config.validation_questions) if config.validation_questions else []
        self._last: Experience | None = None
        self._drawn: dict[int, list[Group]] = {}
        self._clock: dict[str, float] = {}

    def get(self, index: int, version: int) -> Experience:
        """A batch of rollouts; collected now, unless it was before.

        Args:
            index: of the batch.
            version: updates of the weights that decode it.

        Raises:
            RewardError: a reward function failed for everything. The rollouts are kept in the run's folder, and judged again
                when the run resumes.
        """
        if self._last is None or self._last.index != index:
            self._last = None
            self._last = self._collect(index, version)
        return self._last

    def _collect(self, index: int, version: int) -> Experience:
        config, asked = self.config, 0
        self._clock = {"rollouts": 0.0, "rewards": 0.0}
        self._drawn = self._read_pending(index, version)

        def draw(count: int, attempt: int) -> list[Group]:
            nonlocal asked
            questions = self.questions.batch(index, count, asked)
            asked += count
            return _everywhere(self._judged(_share(questions), Draw(config.seed, index, version, attempt)))

        try:
            gathered = gather(draw, config.questions_per_batch, self.algorithm)
        except RewardError:
            self._write_pending(index, version)
            raise
        self._pending.unlink(missing_ok=True)
        made = advantages(gathered.groups, self.algorithm)
        everything = [*gathered.groups, *gathered.replaced]
        stages = {f"stage/{name}": float(stage) for name, stage in self.questions.stages().items()}
        self.questions.observe(index, everything)
        generated = sum(rollout.generation.usage.total_tokens for group in everything for rollout in group.rollouts)
        metrics = measure(gathered.groups) | made.metrics
        metrics |= {"resampled_groups": float(len(gathered.replaced)), "resample_rounds": float(gathered.rounds)}
        metrics |= stages | {f"seconds_{phase}": round(seconds, 3) for phase, seconds in self._clock.items()}
        metrics["tokens_per_second"] = generated / max(self._clock["rollouts"], 1e-9)
        return Experience(index, made.groups, metrics)

    def _judged(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """Rollouts of these questions, with scores."""
        if draw.attempt not in self._drawn:
            began = time.monotonic()
            self._drawn[draw.attempt] = collect(
                self.policy,
                questions,
                group_size=self.config.group_size,
                draw=draw,
                params=self._params,
                mode=None if self.config.mode == "as-is" else self.config.mode,
                on_progress=lambda done, total: self.on_phase("rollouts", done, total),
            )
            self._clock["rollouts"] += time.monotonic() - began
        began = time.monotonic()
        self.on_phase("rewards", 0, 1)
        judged = self.rewards.judge(self._drawn[draw.attempt], draw.step)
        self.on_phase("rewards", 1, 1)
        self._clock["rewards"] += time.monotonic() - began
        return judged

    def validate(self, version: int) -> tuple[list[Group], Metrics]:
        """Ask the held-out questions, one answer each; the judged answers, and figures of them."""
        temperature = self.config.validation_temperature
        answered = answer(
            self.policy,
            _share(self.held_out),
            self.config.sampling.params(temperature=temperature),
            mode=self.config.mode,
            draw=Draw(self.config.seed, -1, version),
            on_progress=lambda done, total: self.on_phase("validation", done, total),
        )
        groups = _everywhere(self.rewards.judge(answered, version // self.config.updates))
        return groups, measure(groups)

    @property
    def validates(self) -> bool:
        """Whether there are held-out questions."""
        return bool(self.held_out)

    def save(self, folder: Path, version: int) -> None:
        """Write what a checkpoint needs: curricula, and the present rollouts if updates are still to be made on them.

        Args:
            version: updates so far.
        """
        last = self._last
        unfinished = last is not None and version < (last.index + 1) * self.config.updates
        state = {"questions": self.questions.state(), "experience": last if unfinished else None}
        with writing(folder), (folder / STATE).open("wb") as file:
            pickle.dump(state, file)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint of this run."""
        with (folder / STATE).open("rb") as file:
            state = pickle.load(file)
        self.questions.load(state["questions"])
        self._last = state["experience"]

    @property
    def _pending(self) -> Path:
        return Path(self.config.out) / PENDING.format(rank=_rank())

    def _write_pending(self, index: int, version: int) -> None:
        """Keep rollouts that could not be judged."""
        with writing(self._pending), self._pending.open("wb") as file:
            pickle.dump({"index": index, "version": version, "drawn": self._drawn}, file)

    def _read_pending(self, index: int, version: int) -> dict[int, list[Group]]:
        """Rollouts of this batch that an earlier start could not judge, by attempt."""
        if not self._pending.exists():
            return {}
        with self._pending.open("rb") as file:
            kept = pickle.load(file)
        drawn: dict[int, list[Group]] = kept["drawn"] if (kept["index"], kept["version"]) == (index, version) else {}
        return drawn


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _share(questions: Sequence[Question]) -> list[Question]:
    """Those that this process asks."""
    if not torch.distributed.is_initialized():
        return list(questions)
    return list(questions[_rank() :: torch.distributed.get_world_size()])


def _everywhere(groups: list[Group]) -> list[Group]:
    """The groups of all processes, in the order of the questions."""
    if not torch.distributed.is_initialized():
        return groups
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, groups)
    columns = max(map(len, found))
    return [own[at] for at in range(columns) for own in found if at < len(own)]
