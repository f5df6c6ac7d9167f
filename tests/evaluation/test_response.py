"""What is measured of a generation: forks are counted as they happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse.engine import FinishEvent, ForkEvent
from multiverse.evaluation.response import Response, count_forks, is_malformed
from tests.cli.scripted import NESTED, scripted_llm
from tests.serving.conftest import WIDE


@pytest.mark.parametrize(
    ("branches", "forks"),
    [
        ((), 0),
        (("", ""), 0),
        (("", "1", "1", "2", ""), 1),
        (("", "1", "2", "", "1", "2", ""), 2),
        (("", "1", "1.1", "1.2", "1", "2", ""), 2),
        (("", "1", "1.1", "1.2", "1", "1.1", "1", "2", "2.1", "2.2"), 4),
        (("1", "1", "2"), 1),
    ],
)
def test_count_forks(branches: tuple[str, ...], forks: int) -> None:
    assert count_forks(branches) == forks


def test_forks_are_those_of_the_engine(model_folders: dict[str, Path]) -> None:
    for document in (NESTED, WIDE):
        events = list(scripted_llm(model_folders["qwen3"], lambda _, document=document: document).stream("Q"))
        finish = events[-1]
        assert isinstance(finish, FinishEvent)
        assert Response.from_generation(finish.generation).forks == sum(isinstance(event, ForkEvent) for event in events) > 0


def test_malformed() -> None:
    assert is_malformed("stop", parses=False)
    assert is_malformed("malformed", parses=False)
    assert not is_malformed("length", parses=False)
    assert not is_malformed("stop", parses=True)
