"""Batches of rollouts: drawn, decoded, judged, given advantages; kept while there are updates to be made on them.

One batch after the other, decoded with the weights as they are then; or one step behind (`RLConfig.asynchronous`): when the
updates on a batch begin, the next one is begun, too, with the weights from before these updates.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import RewardError, writing
from .advantages import TrainingGroup, advantages, gather
from .collect import Draw
from .config import RLConfig
from .decoding import Decoded, Decoder, OnPhase
from .metrics import Metrics, measure
from .processes import everywhere, rank, share
from .questions import Questions
from .rewards import Rewards
from .rollout import Group, Question

STATE, PENDING = "rollouts.pkl", "pending-{rank}.pkl"


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


@dataclass(frozen=True)
class Ahead:
    """A batch of rollouts that is decoded while the weights are updated on the one before.

    Attributes:
        index: of the batch.
        decoded: its groups, as a checkpoint has them; `None` while they are the decoder's.
    """

    index: int
    decoded: Decoded | None = None


class Experiences:
    """Collects and judges the rollouts of a run, batch by batch.

    Each process asks its share of the questions and gets the rollouts of all: baselines, the curriculum and what is drawn again
    are the same whatever the number of processes.

    Args:
        config: of the run.
        decoder: decodes with the weights that are trained.
        questions: what is asked.
        rewards: judges the rollouts.
        on_phase: shows how far a batch has come.
    """

    def __init__(
        self, config: RLConfig, decoder: Decoder, questions: Questions, rewards: Rewards, on_phase: OnPhase = lambda *_: None
    ) -> None:
        self.config, self.decoder, self.questions, self.rewards, self.on_phase = config, decoder, questions, rewards, on_phase
        self.algorithm = config.algorithm.bound(config.sampling.max_tokens)
        self.held_out = questions.held_out(config.validation_questions) if config.validation_questions else []
        self._last: Experience | None = None
        self._ahead: Ahead | None = None
        self._drawn: dict[int, list[Group]] = {}
        self._clock: dict[str, float] = {}

    def get(self, index: int, version: int) -> Experience:
        """A batch of rollouts; collected now, unless it was before.

        Args:
            index: of the batch.
            version: updates of the weights so far.

        Raises:
            RewardError: a reward function failed for everything. The rollouts are kept in the run's folder, and judged again
                when the run resumes.
        """
        if self._last is None or self._last.index != index:
            self._last = None
            self._last = self._collect(index, version)
            self._ahead = None
        return self._last

    def begin_next(self, index: int, version: int) -> None:
        """Begin to decode the batch after this one, if there is one, before the weights are updated on this one."""
        if (index + 1) * self.config.updates < self.config.max_steps:
            self.decoder.begin(self.questions.batch(index + 1), Draw(self.config.seed, index + 1, version))
            self._ahead = Ahead(index + 1)

    def _collect(self, index: int, version: int) -> Experience:
        config, asked = self.config, 0
        self._clock = {"rollouts": 0.0, "rewards": 0.0}
        self._drawn = self._read_pending(index, version)

        def draw(count: int, attempt: int) -> list[Group]:
            nonlocal asked
            questions = self.questions.batch(index, count, asked)
            asked += count
            try:
                judged, error = self._judged(questions, Draw(config.seed, index, version, attempt)), None
            except RewardError as failed:
                judged, error = [], failed
            return everywhere(judged, error)

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
        if config.rollout_replicas:
            metrics["lost_replicas"], self.decoder.lost = float(self.decoder.lost), 0
        return Experience(index, made.groups, metrics)

    def _judged(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """Rollouts of this process's share of these questions, with scores."""
        if draw.attempt not in self._drawn:
            self._drawn[draw.attempt] = self._decoded(questions, draw)
        began = time.monotonic()
        self.on_phase("rewards", 0, 1)
        judged = self.rewards.judge(self._drawn[draw.attempt], draw.step)
        self.on_phase("rewards", 1, 1)
        self._clock["rewards"] += time.monotonic() - began
        return judged

    def _decoded(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """Rollouts of this process's share of these questions: decoded now, or before."""
        began = time.monotonic()
        if draw.attempt or self._ahead is None or self._ahead.index != draw.step:
            groups = self.decoder.collect(questions, draw)
            self._clock["rollouts"] += time.monotonic() - began
            return groups
        decoded = self._ahead.decoded
        groups, seconds = self.decoder.finish() if decoded is None else (share(decoded.groups), decoded.seconds)
        self._clock["rollouts"] += seconds
        self._clock["waiting"] = time.monotonic() - began
        return groups

    def validate(self, version: int) -> tuple[list[Group], Metrics]:
        """Ask the held-out questions, one answer each; the judged answers, and figures of them."""
        answered = self.decoder.answer(self.held_out, Draw(self.config.seed, -1, version))
        groups = everywhere(self.rewards.judge(answered, version // self.config.updates))
        return groups, measure(groups)

    @property
    def validates(self) -> bool:
        """Whether there are held-out questions."""
        return bool(self.held_out)

    def save(self, folder: Path, version: int) -> None:
        """Write what a checkpoint needs: curricula, the present rollouts if updates are still to be made on them, and those
        that are decoded ahead, for which it waits: older weights write them, which a resumed run does not have.

        Args:
            version: updates so far.
        """
        last, ahead = self._last, self._ahead
        unfinished = last is not None and version < (last.index + 1) * self.config.updates
        if ahead is not None and ahead.decoded is None:
            ahead = Ahead(ahead.index, self.decoder.begun())
        state = {"questions": self.questions.state(), "experience": last if unfinished else None, "ahead": ahead}
        with writing(folder), (folder / STATE).open("wb") as file:
            pickle.dump(state, file)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint of this run."""
        with (folder / STATE).open("rb") as file:
            state = pickle.load(file)
        self.questions.load(state["questions"])
        self._last = state["experience"]
        self._ahead = state.get("ahead")

    @property
    def _pending(self) -> Path:
        return Path(self.config.out) / PENDING.format(rank=rank())

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
