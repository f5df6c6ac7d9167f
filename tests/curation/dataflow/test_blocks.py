"""Decomposition of graphs into series and forks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.curation.dataflow.blocks import Fork, Series, components, decompose, forks, members
from tests.curation.dataflow.test_graph import check_truth

Graph = tuple[list[int], dict[int, frozenset[int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Lengths of statements, and the earlier ones that each needs."""
    words = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    needs = {at: frozenset(draw(st.sets(st.integers(0, at - 1), max_size=3)) if at else ()) for at in range(len(words))}
    return words, needs


def cost(series: Series, words: list[int]) -> int:
    return sum(max(cost(path, words) for path in part.paths) if isinstance(part, Fork) else words[part] for part in series)


def longest(words: list[int], needs: dict[int, frozenset[int]]) -> int:
    found: list[int] = []
    for at, own in enumerate(words):
        found.append(own + max((found[before] for before in needs[at]), default=0))
    return max(found)


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 6))
def test_any_graph(graph: Graph, min_gain: int) -> None:
    words, needs = graph
    series = decompose(words, needs, min_gain=min_gain)
    assert sorted(members(series)) == list(range(len(words)))
    check_truth(series, [set(needs[at]) for at in range(len(words))])
    gained = len(forks(series)) * min_gain
    assert longest(words, needs) <= cost(series, words) <= sum(words) - gained
    assert all(len(fork.paths) > 1 for fork in forks(series))


def needs(*edges: tuple[int, ...]) -> dict[int, frozenset[int]]:
    return {at: frozenset(before) for at, before in enumerate(edges)}


def test_shapes() -> None:
    assert decompose([5, 5, 5], needs((), (0,), (1,))) == (0, 1, 2)
    assert decompose([5, 5, 5], needs((), (), (0, 1))) == (Fork(((0,), (1,))), 2)
    assert decompose([5] * 4, needs((), (0,), (0,), (1, 2))) == (0, Fork(((1,), (2,))), 3)
    # Alternating chains are put in order, each in its own path.
    assert decompose([5] * 5, needs((), (), (0,), (1,), (2, 3))) == (Fork(((0, 2), (1, 3))), 4)
    # A chain goes into its path as a whole, even where half of it would do.
    assert decompose([9, 3, 3, 3], needs((), (), (1,), (0, 2))) == (Fork(((0,), (1, 2))), 3)


def test_nested() -> None:
    # 0 and 1 meet in 2, beside the longer 3.
    assert decompose([5, 5, 5, 12, 5], needs((), (), (0, 1), (), (2, 3))) == (Fork(((Fork(((0,), (1,))), 2), (3,))), 4)


def test_a_fork_has_to_gain() -> None:
    two = needs((), (), (0, 1))
    assert decompose([5, 4, 5], two, min_gain=3) == (Fork(((0,), (1,))), 2)
    assert decompose([5, 4, 5], two, min_gain=4) == (0, 1, 2)


def test_components() -> None:
    assert components([0, 1, 2, 3], needs((), (), (0,), ())) == [(0, 2), (1,), (3,)]
