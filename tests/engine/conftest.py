"""One engine for all tests of this folder; each must leave it idle, with every slot free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.nn import ModuleList

from multiverse import LLM
from multiverse.engine.sampler import Sampler

BUDGET = 2048


@pytest.fixture(scope="session")
def shared_llm(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["qwen3"], kv_memory=8 << 20)


@pytest.fixture(scope="session")
def shared_steered(model_folders: dict[str, Path]) -> LLM:
    llm = LLM(model_folders["qwen3"], kv_memory=8 << 20, packed_linears=False)
    llm.engine.loaded.model.model.layers = ModuleList()
    return llm


@pytest.fixture
def llm(shared_llm: LLM) -> Iterator[LLM]:
    """A tiny random Qwen3 with the default sampler."""
    yield from _lent(shared_llm)


@pytest.fixture
def steered(shared_steered: LLM) -> Iterator[LLM]:
    """The same without its layers, which halves the time of a step, for tests that choose every token (`steering`)."""
    yield from _lent(shared_steered)


def _lent(llm: LLM) -> Iterator[LLM]:
    engine = llm.engine
    engine.sampler = Sampler()
    engine.scheduler.max_batch_tokens = BUDGET
    yield llm
    assert not engine.busy
    engine.check_integrity()
    assert engine.slots.owned == 0
