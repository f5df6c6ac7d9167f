"""Our own reward functions over a rollout's forks and tokens. Each gives a number from 0 to 1, or a penalty from -1 to 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ....engine import Generation
from .config import Reward
from .forks import Work


@dataclass(frozen=True)
class Judged:
    """A rollout as these functions get it.

    Attributes:
        generation: the answer.
        work: what its tokens are.
        correct: whether it is right; `None` where nothing decides that.
        rivals: the work of the other right rollouts of its group that are whole.
    """

    generation: Generation
    work: Work
    correct: bool | None
    rivals: Sequence[Work] = ()


Function = Callable[[Judged, Reward], float]


def acceleration(judged: Judged, reward: Reward) -> float:
    """``min(1 - critical / work, cap)`` of a whole answer with a block that counts, else 0.

    ThreadWeaver's term, min(1 - longest / total, 0.2), pays for tokens outside the longest path whatever they are. Here the
    critical path is compared with tokens that are work (see `forks`), and with the shortest right answer of the group
    (``baseline: group``): what is only padded takes longer than that, or is no work.
    """
    work = judged.work
    if not work.whole or not work.parallel:
        return 0.0
    total = work.useful
    if reward.baseline != "own":
        total = min(total, *(rival.useful for rival in judged.rivals)) if judged.rivals else total
    return min(max(0.0, 1 - work.critical / total), float(reward.value("cap")))


def well_formed(judged: Judged, reward: Reward) -> float:  # noqa: ARG001
    """1 for a whole answer with at least one block, of whose blocks each has two paths with content of their own."""
    return float(judged.work.well_formed)


def forked(judged: Judged, reward: Reward) -> float:  # noqa: ARG001
    """1 for an answer with a block that counts (PARL's reward for using sub-agents, against serial collapse)."""
    return float(judged.work.parallel)


def finished_paths(judged: Judged, reward: Reward) -> float:  # noqa: ARG001
    """The share of paths that were finished and have content of their own; 0 without paths (PARL's reward for finished
    sub-tasks, against spurious forks)."""
    paths = [path for fork in judged.work.blocks() for path in fork.paths]
    return sum(path.counts for path in paths) / len(paths) if paths else 0.0


def total_tokens(judged: Judged, reward: Reward) -> float:
    """Minus the share of `limit` that its tokens take over all branches, at most 1."""
    return -min(1.0, judged.generation.usage.total_tokens / int(reward.value("limit")))


def critical_path(judged: Judged, reward: Reward) -> float:
    """The soft penalty on the length of its critical path, a budget."""
    return soft_penalty(judged.generation.usage.critical_path_tokens, *_limits(reward))


def overlong(judged: Judged, reward: Reward) -> float:
    """The soft penalty on its tokens over all branches; -1 where it was cut off or closed for its length."""
    if judged.generation.finish_reason == "length":
        return -1.0
    return soft_penalty(judged.generation.usage.total_tokens, *_limits(reward))


def soft_penalty(length: int, limit: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (Yu et al., 2025, equation 13): 0 up to limit - buffer, -1 from the limit on, linear
    between."""
    return min(0.0, max(-1.0, (limit - buffer - length) / buffer))


def _limits(reward: Reward) -> tuple[int, int]:
    limit = reward.value("limit")
    buffer = reward.value("buffer")
    return limit, max(1, limit // 5) if buffer is None else buffer


FUNCTIONS: Mapping[str, Function] = {
    "acceleration": acceleration,
    "well_formed": well_formed,
    "forked": forked,
    "finished_paths": finished_paths,
    "total_tokens": total_tokens,
    "critical_path": critical_path,
    "overlong": overlong,
}
"""By name; the others, ``correct`` and ``judged``, need more than the rollout."""
