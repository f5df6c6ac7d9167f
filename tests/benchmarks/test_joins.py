"""The head to head of joins: what is timed, and the slopes."""

from __future__ import annotations

import pytest

from benchmarks import joins
from benchmarks.joins import Measured, join_seconds
from benchmarks.puzzles import ask, figures, questions
from multiverse import LLM
from multiverse.engine import BranchEndEvent, Event, TokenEvent


@pytest.fixture(scope="module")
def mini() -> LLM:
    return LLM(kv_memory=64 << 20)


def test_slopes_are_of_all_paths_together() -> None:
    constant = Measured("a", "kv", joins={32: [0.003, 0.002, 0.004], 512: [0.003]})
    grows = Measured("b", "text", joins={n: [0.010 + joins.WIDTH * n * 2e-6] for n in (32, 128, 512)})
    assert constant.slope() == pytest.approx((0.0, 3.0), abs=1e-9)
    assert grows.slope() == pytest.approx((2.0, 10.0))


def test_paths_are_as_long_as_asked_for(mini: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Event] = []
    plain = mini.stream

    def stream(*given: object, **more: object) -> object:
        for event in plain(*given, **more):  # type: ignore[arg-type]
            seen.append(event)
            yield event

    monkeypatch.setattr(mini, "stream", stream)
    (problem,) = questions(("worksheet",), 1, 5)["worksheet"]
    assert 1e-4 < join_seconds(mini, problem, 48) < 60  # a forward at least
    ends = [event for event in seen if isinstance(event, BranchEndEvent)]
    assert {event.reason for event in ends} == {"length"}
    assert {event.counts.branch for event in ends} == {47}  # and the tag that closes it
    assert isinstance(seen[-1], TokenEvent)
    assert not seen[-1].branch  # the first token of the conclusion, and nothing after it


def test_puzzles_are_graded(mini: LLM) -> None:
    (problems,) = questions(("cases",), 2, 5).values()
    row = figures(*ask(mini, problems))
    assert (row["n"], row["accuracy"], row["forks"], row["reread"]) == (2, 1.0, 2, 0)
