"""Figures of the rollouts of a step. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from ...evaluation.response import Response
from .rollout import Group, Rollout, Scores

Metrics = dict[str, float]
"""Values by name; a slash parts a kind of figure from what it is of: ``rewards/correct``."""


def measure(groups: Sequence[Group]) -> Metrics:
    """Figures of judged groups.

    reward: mean, as judged. right: share of the rollouts whose answer is right, of those where that is judged; ``right/SOURCE``
    the same for each source if there are several. parallelism, critical_path_tokens, total_tokens, forks: means over rollouts.
    sampled_tokens: sum of the tokens that the model chose. forked: share of rollouts that fork. malformed: share that broke the
    grammar. ``rewards/NAME``: mean of what a reward function gave. ``faults/NAME``: how often it gave nothing.
    """
    pairs = [pair for group in groups for pair in zip(group.rollouts, group.scores, strict=True)]
    if not pairs:
        return {}
    answers = [Response.from_generation(rollout.generation) for rollout, _ in pairs]
    usages = [rollout.generation.usage for rollout, _ in pairs]
    found = {
        "reward": fmean(scores.total for _, scores in pairs),
        "parallelism": fmean(usage.parallelism for usage in usages),
        "critical_path_tokens": fmean(usage.critical_path_tokens for usage in usages),
        "total_tokens": fmean(usage.total_tokens for usage in usages),
        "sampled_tokens": float(sum(rollout.num_sampled for rollout, _ in pairs)),
        "forks": fmean(answer.forks for answer in answers),
        "forked": fmean(answer.forks > 0 for answer in answers),
        "malformed": fmean(answer.malformed for answer in answers),
    }
    return found | _right(groups) | _parts(pairs)


def _right(groups: Iterable[Group]) -> Metrics:
    by_source: dict[str, list[bool]] = {}
    for group in groups:
        judged = (scores.correct for scores in group.scores if scores.correct is not None)
        by_source.setdefault(group.question.source, []).extend(judged)
    by_source = {source: judged for source, judged in by_source.items() if judged}
    if not by_source:
        return {}
    each = {f"right/{source}": fmean(judged) for source, judged in sorted(by_source.items())} if len(by_source) > 1 else {}
    return {"right": fmean(one for judged in by_source.values() for one in judged), **each}


def _parts(pairs: Sequence[tuple[Rollout, Scores]]) -> Metrics:
    parts: dict[str, list[float]] = {}
    faults: Counter[str] = Counter()
    for _, scores in pairs:
        for name, value in scores.parts.items():
            parts.setdefault(name, []).append(value)
        faults.update(scores.faults)
    means = {f"rewards/{name}": fmean(values) for name, values in sorted(parts.items())}
    return means | {f"faults/{name}": float(count) for name, count in sorted(faults.items())}
