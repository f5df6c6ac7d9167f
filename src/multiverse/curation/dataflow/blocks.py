"""From a graph of statements to forks and joins: independent chains become paths.

A set of statements is either one after the other (a series) or side by side (a fork), down to single statements. Of all such
decompositions that keep the order of the solution within a series, the one with the shortest critical path is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Fork:
    """Series that need nothing of each other."""

    paths: tuple[Series, ...]


Series = tuple["int | Fork", ...]
"""Statements, by number, and forks, in order."""


class _Best(NamedTuple):
    cost: int
    forks: int
    trunk: int
    series: Series


def decompose(words: Sequence[int], needs: Mapping[int, frozenset[int]], *, min_gain: int = 0) -> Series:
    """The series of all statements with the shortest critical path; among equals, the one with the fewest forks, then trunk.

    Args:
        words: length of each statement.
        needs: the earlier statements that each one needs.
        min_gain: words by which a fork has to shorten the critical path, at least; 0 for any gain.
    """
    return _Search(words, needs, min_gain).best(tuple(range(len(words)))).series


class _Search:
    def __init__(self, words: Sequence[int], needs: Mapping[int, frozenset[int]], min_gain: int) -> None:
        self.words, self.needs, self.min_gain = words, needs, min_gain
        self.found: dict[tuple[int, ...], _Best] = {}

    def best(self, nodes: tuple[int, ...]) -> _Best:
        if nodes not in self.found:
            self.found[nodes] = self._best(nodes)
        return self.found[nodes]

    def _best(self, nodes: tuple[int, ...]) -> _Best:
        if len(nodes) == 1:
            return _Best(self.words[nodes[0]], 0, 1, nodes)
        found = [_Best(sum(self.words[node] for node in nodes), 0, len(nodes), nodes)]
        parts = components(nodes, self.needs)
        if len(parts) > 1:
            paths = [self.best(part) for part in parts]
            cost = max(path.cost for path in paths) + self.min_gain
            fork = Fork(tuple(path.series for path in paths))
            found.append(_Best(cost, 1 + sum(path.forks for path in paths), 0, (fork,)))
        for at in range(1, len(nodes)):
            first, second = self.best(nodes[:at]), self.best(nodes[at:])
            found.append(_Best(*(a + b for a, b in zip(first, second, strict=True))))  # type: ignore[operator]
        return min(found, key=lambda best: best[:3])


def components(nodes: Sequence[int], needs: Mapping[int, frozenset[int]]) -> list[tuple[int, ...]]:
    """The statements by connection, each group and all groups in order."""
    group = {node: {node} for node in nodes}
    for node in nodes:
        for other in needs[node]:
            if other in group and group[other] is not group[node]:
                joined = group[other] | group[node]
                group |= dict.fromkeys(joined, joined)
    seen: set[int] = set()
    found = []
    for node in nodes:
        if node not in seen:
            seen |= group[node]
            found.append(tuple(sorted(group[node])))
    return found


def forks(series: Series) -> list[Fork]:
    """Every fork of a series, outer ones before those inside."""
    found: list[Fork] = []
    for part in series:
        if isinstance(part, Fork):
            found.append(part)
            for path in part.paths:
                found += forks(path)
    return found


def members(series: Series) -> list[int]:
    """The numbers of all statements of a series, in document order."""
    found: list[int] = []
    for part in series:
        if isinstance(part, Fork):
            for path in part.paths:
                found += members(path)
        else:
            found.append(part)
    return found
