"""`Rewards`: judges all rollouts of a step by the reward functions of a run, and adds their values up. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Self

from ....errors import ConfigError, RewardError
from ..rollout import Group, Rollout, Scores
from .config import Reward, check_rewards
from .correct import Asked, Correct
from .forks import read_work
from .functions import FUNCTIONS, Judged
from .judging import Judging
from .workers import Outcome, Pool

_DECIDED = 0.5
"""A value from which on an answer is correct, of a function that decides."""
_FEW = 4
"""Failures in a row, over steps, from which on a function that was called for few rollouts is given up."""

Place = tuple[int, int]
"""Group and rollout."""


class Rewards:
    """The reward functions of a run. A context manager; `close` ends its processes.

    Args:
        rewards: which functions, and their part in the sum.
        folder: of the run; the judgements of a judge are stored there.
        max_tokens: most tokens of a rollout, the limit of ``overlong`` unless it has its own.

    Raises:
        ConfigError: the settings do not fit together, or a function of the user's is not there, cannot be imported, or cannot
            be called as ``function(question, rollout, **args)``. All of that is found before a model is loaded.
        ExtraError: a library that a judge needs is not installed.
    """

    def __init__(self, rewards: Sequence[Reward], folder: Path | str = ".", max_tokens: int | None = None) -> None:
        check_rewards(list(rewards))
        self.rewards = tuple(_with_limit(reward, max_tokens) for reward in rewards)
        self._failures: dict[str, int] = {}
        self._asked: dict[str, Asked] = {}
        self._pools: dict[str, Pool] = {}
        self._correct: Correct | None = None
        for reward in self.rewards:
            if reward.judge is not None:
                form = "verdict" if reward.name == "correct" or reward.decides else "grade"
                self._asked[reward.name] = Judging(reward.judge, form, Path(folder))
            if reward.name == "correct":
                self._correct = Correct(self._asked.get("correct"))
            if reward.users:
                self._pools[reward.name] = _pool(reward)
        try:
            for pool in self._pools.values():
                pool.check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; they are started again on demand."""
        for pool in self._pools.values():
            pool.close()
        if self._correct is not None:
            self._correct.close()

    def judge(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The groups with scores. The same groups in the same step give the same scores.

        Args:
            step: number of the step, from 0, for weights that change.

        Raises:
            RewardError: a function failed for all rollouts, or a judge cannot be reached. Its `groups` are these groups; those
                of a function that failed have scores.
        """
        places = _interleaved(groups)
        parts: dict[str, dict[Place, Outcome]] = {}
        deciding = next((reward for reward in self.rewards if reward.judges), None)
        correct: dict[Place, bool] = {}
        try:
            if deciding is not None:
                parts[deciding.name] = self._outcomes(deciding, groups, places, step)
                correct = {place: (found.value or 0.0) >= self._bar(deciding) for place, found in parts[deciding.name].items()}
            judged = self._read(groups, places, correct if deciding is not None else None)
            for reward in self.rewards:
                if reward is deciding:
                    continue
                wanted = [place for place in places if not reward.conditional or correct[place]]
                if reward.name in FUNCTIONS:
                    values = {place: Outcome(FUNCTIONS[reward.name](judged[place], reward)) for place in wanted}
                else:
                    values = self._outcomes(reward, groups, wanted, step)
                parts[reward.name] = values
        except RewardError as error:
            error.groups = tuple(groups)
            raise
        scored = [
            replace(group, scores=tuple(self._score((g, r), parts, correct, step) for r in range(len(group.rollouts))))
            for g, group in enumerate(groups)
        ]
        self._check_failures(parts, len(places), step, scored)
        return scored

    def _bar(self, deciding: Reward) -> float:
        return 1.0 if deciding.name == "correct" else _DECIDED

    def _read(self, groups: Sequence[Group], places: Sequence[Place], correct: dict[Place, bool] | None) -> dict[Place, Judged]:
        """Each rollout with its work and that of the others that are right."""
        if not any(reward.name in FUNCTIONS for reward in self.rewards):
            return {}
        work = {(g, r): read_work(groups[g].question, groups[g].rollouts[r]) for g, r in places}
        found = {}
        for g, r in places:
            others = [(g, other) for other in range(len(groups[g].rollouts)) if other != r]
            rivals = [work[other] for other in others if correct is not None and correct[other] and work[other].whole]
            own = correct[g, r] if correct is not None else None
            found[g, r] = Judged(groups[g].rollouts[r].generation, work[g, r], own, rivals)
        return found

    def _outcomes(self, reward: Reward, groups: Sequence[Group], places: Sequence[Place], step: int) -> dict[Place, Outcome]:
        """What a function gives that needs more than the rollout's work."""
        rollouts = [(groups[g].question, groups[g].rollouts[r]) for g, r in places]
        if reward.name == "correct":
            assert self._correct is not None
            outcomes = self._correct(rollouts)
        elif reward.name == "judged":
            # A judge that has no weight any more is not paid for; one that never had any is asked for its figures.
            if reward.weight and not reward.factor(step) and not reward.decides:
                return {}
            outcomes = self._asked[reward.name](rollouts)
        else:
            calls = [((question, _slim(rollout)), f"{question.id}/{rollout.seed}") for question, rollout in rollouts]
            outcomes = self._pools[reward.name].call(calls)
        return dict(zip(places, outcomes, strict=True))

    def _score(self, place: Place, parts: dict[str, dict[Place, Outcome]], correct: dict[Place, bool], step: int) -> Scores:
        values, faults, terms = {}, {}, []
        for reward in self.rewards:
            outcomes = parts[reward.name]
            if place in outcomes:
                value, fault = outcomes[place]
                if fault:
                    faults[reward.name] = fault
                if reward.name == "correct":
                    wrong, right = reward.worth
                    value = wrong + (right - wrong) * (value or 0.0)
                elif value is None:
                    value = reward.fault_score or 0.0
            elif reward.conditional:
                value = 0.0
            else:
                continue  # it was not asked in this step
            values[reward.name] = float(value)
            terms.append(reward.factor(step) * float(value))
        return Scores(math.fsum(terms), values, correct.get(place), faults)

    def _check_failures(self, parts: dict[str, dict[Place, Outcome]], rollouts: int, step: int, scored: list[Group]) -> None:
        """Raise if a function has failed for everything."""
        for reward in self.rewards:
            outcomes = list(parts[reward.name].values())
            if not outcomes:
                continue
            if not all(outcome.fault for outcome in outcomes):
                self._failures[reward.name] = 0
                continue
            self._failures[reward.name] = self._failures.get(reward.name, 0) + len(outcomes)
            if len(outcomes) == rollouts or self._failures[reward.name] >= _FEW:
                reasons = list(dict.fromkeys(outcome.fault for outcome in outcomes))
                more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
                raised = RewardError(
                    f"the reward {reward.name!r} failed for all {len(outcomes)} rollouts that it was called for in step "
                    f"{step}: {reasons[0]}{more}. Mend it and resume the run: the rollouts are not lost"
                )
                raised.groups = tuple(scored)
                raise raised


def _with_limit(reward: Reward, max_tokens: int | None) -> Reward:
    if reward.name != "overlong" or reward.limit is not None:
        return reward
    if max_tokens is None:
        raise ConfigError("the reward 'overlong' needs limit: the rollouts have no max_tokens to take it from")
    return replace(reward, limit=max_tokens)


def _pool(reward: Reward) -> Pool:
    memory = 8.0 if reward.memory is None else reward.memory
    timeout = 10.0 if reward.timeout is None else reward.timeout
    names = ["question", "rollout"]
    return Pool(reward.name, names, reward.args, timeout=timeout, memory=memory * 2**30, workers=reward.workers)


def _interleaved(groups: Sequence[Group]) -> list[Place]:
    """All rollouts, the first of each group, then the second of each: failures in a row are then not those of one question."""
    columns = zip_longest(*([(g, r) for r in range(len(group.rollouts))] for g, group in enumerate(groups)))
    return [place for column in columns for place in column if place is not None]


def _slim(rollout: Rollout) -> Rollout:
    """A rollout without what only the update needs, and is large: the supports."""
    return replace(rollout, supports=())
