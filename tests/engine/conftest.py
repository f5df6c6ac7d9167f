"""One engine for all tests of this folder; each must leave it idle, with every slot free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiverse import LLM
from multiverse.engine.sampler import Sampler

BUDGET = 2048


@pytest.fixture(scope="session")
def shared_llm(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["qwen3"], kv_memory=8 << 20)


@pytest.fixture
def llm(shared_llm: LLM) -> Iterator[LLM]:
    """A tiny random Qwen3 with the default sampler."""
    engine = shared_llm.engine
    engine.sampler = Sampler()
    engine.scheduler.max_batch_tokens = BUDGET
    yield shared_llm
    assert not engine.busy
    engine.check_integrity()
    assert engine.slots.owned == 0
