"""Two sides: what a worker measures on a tiny model, and how figures are put against each other."""

from __future__ import annotations

import math

import pytest

from benchmarks.spine import KV_MEMORY, Figures, Settings, cases, shapes, show, write_model
from benchmarks.spine_worker import Side


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Side:
    folder = tmp_path_factory.mktemp("tiny")
    return Side({"tiny": write_model(folder, *shapes()["tiny"])})


def positive(seconds: list[float]) -> bool:
    return all(0 < value < 10 for value in seconds)


@pytest.mark.parametrize("rows", [1, 3])
def test_decode_steps(side: Side, rows: int) -> None:
    seconds = side.decode("tiny", "float32", rows, prompt=40, steps=5)
    assert len(seconds) == 5
    assert positive(seconds)
    assert not side.engine("tiny", "float32").busy


def test_schedule_is_timed_and_put_back(side: Side) -> None:
    seconds = side.schedule("tiny", rows=4, prompt=8, steps=6)
    assert len(seconds) == 6
    assert positive(seconds)
    assert "schedule" not in vars(side.engine("tiny").scheduler)


def test_a_long_prompt_is_blocked(side: Side) -> None:
    without, blocked = side.blocked("tiny", rows=8, prompt=500, steps=4, waiting=30_000, kv_memory=KV_MEMORY)
    assert len(without) == len(blocked) == 4
    assert positive(without + blocked)
    with pytest.raises(AssertionError, match="too much memory"):
        side.blocked("tiny", rows=2, prompt=20, steps=2, waiting=100, kv_memory=KV_MEMORY)


def test_figures() -> None:
    figures = Figures("a machine")
    for before, after in ((1.0, 1.1), (2.0, 2.0), (1.0, 1.3)):
        figures.add("step", "ms", "before", before)
        figures.add("step", "ms", "after", after)
        figures.add("clients", "tokens/s", "before", after)
        figures.add("clients", "tokens/s", "after", before)
    assert math.isclose(figures.ratio("step"), 1.1)
    assert math.isclose(figures.slower("step"), 0.1)
    assert math.isclose(figures.slower("clients"), 0.1)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures("a machine")
    figures.add("step", "ms", "before", 2.0)
    figures.add("step", "ms", "after", 3.0)
    show(figures)
    out = capsys.readouterr().out
    assert "1.500" in out
    assert "+50.0%" in out
    assert "a machine" in out


def test_cases() -> None:
    settings = Settings()
    assert len(list(cases(settings))) == len(settings.models) * len(settings.rows) + 3
