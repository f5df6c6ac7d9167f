"""Forwards that are begun before the host has their tokens: those that are used are those that would have been computed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from transformers import AutoModelForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.backends.cuda.backend import CudaBackend
from multiverse.engine.sampler import Choice, Row, Sampler
from multiverse.engine.scripted import ScriptedSampler
from multiverse.structure import Block, Document
from tests.backends.cuda.families import TorchTiles, on_cuda_backend
from tests.engine.steering import NESTED, run_documents, two_paths
from tests.engine.test_oracle import Trouble, check, run_scripted

PARAMS = SamplingParams(temperature=0, max_tokens=40)


def with_graphs(folder: Path, *, ahead: bool = True) -> LLM:
    """An engine with graphs, as on a GPU, that begins forwards ahead or does not."""
    llm = on_cuda_backend(LLM(folder, kv_memory=4 << 20, device="cpu"), TorchTiles())
    if not ahead:
        llm.engine.backend.max_rows_ahead = 0
    return llm


def counts(llm: LLM) -> tuple[int, int]:
    """Forwards begun ahead that were used, and that were not."""
    backend = llm.engine.backend
    assert isinstance(backend, CudaBackend)
    return backend.hits, backend.misses


@pytest.fixture(scope="module")
def folder(model_folders: dict[str, Path]) -> Path:
    return model_folders["qwen2"]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_texts_are_those_of_forwards_that_were_not_begun_ahead(folder: Path, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=40, seed=3, logprobs=True)
    prompts = ["first", "a second one", "3"]
    one, other = with_graphs(folder), with_graphs(folder, ahead=False)
    one.engine.sampler = other.engine.sampler = Sampler()
    ours, plain = one.generate(prompts, params), other.generate(prompts, params)
    assert counts(one)[0] > 30
    assert counts(other)[0] == 0
    for generation, expected in zip(ours, plain, strict=True):
        assert generation.token_ids == expected.token_ids
        assert generation.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_one_forward_is_wasted_at_a_fork_and_at_a_join(folder: Path) -> None:
    llm = with_graphs(folder)
    (generation,) = run_documents(llm, [Document((Block(("o", "o"), (("x" * 30,), ("x" * 30,)), "c"), "y" * 30))])
    (hits, misses), steps = counts(llm), generation.usage.critical_path_tokens
    assert hits > 60
    assert hits + misses <= steps + 2
    assert misses < 15  # around the tags, which are forced


def test_branches_of_several_requests_take_their_slots_in_turn(folder: Path) -> None:
    llm = with_graphs(folder)
    run_documents(llm, [two_paths("a" * 40, "b" * 40), two_paths("c" * 40, "d" * 40)])
    assert counts(llm)[0] > 30


def test_forwards_of_many_branches_are_not_begun_ahead(folder: Path) -> None:
    hits = {}
    for width in (4, 5):
        llm = with_graphs(folder)
        run_documents(llm, [Document((Block(("o",) * width, (("x" * 60,),) * width, "c"),))])
        hits[width], _ = counts(llm)
    assert hits[4] - hits[5] > 30  # the goal of the wider one is longer


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_with_preemption_between_two_forwards(folder: Path, seed: int) -> None:
    llm, rng = with_graphs(folder), random.Random(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    assert llm.engine.tokens is not None
    docs = [NESTED, two_paths("one" * 9, "two" * 12), two_paths()]
    for generation in run_scripted(llm, docs, ["Q", "12", "Q"], [40, 3, 0], disturb=Trouble(rng, evict=True)):
        assert check(model, generation, llm.engine.tokens) > 50
    hits, misses = counts(llm)
    assert hits > 10
    assert misses > 3


def test_a_token_that_the_device_did_not_choose_is_read(folder: Path) -> None:
    class Stubborn(ScriptedSampler):
        """Changes its mind on the host, of which the forward that was begun knows nothing."""

        def sample(self, logits_BV: Tensor, rows: list[Row], *more: Any) -> Choice:
            choice = super().sample(logits_BV, rows, *more)
            return Choice([120 for _ in choice.tokens], choice.drawn)

    llm = with_graphs(folder)
    llm.engine.sampler = Stubborn()
    (generation,) = llm.generate(["Q"], PARAMS)
    assert set(generation.token_ids) == {120}
    hits, misses = counts(llm)
    assert hits == 0
    assert misses > 30


def test_nothing_is_begun_where_there_are_no_graphs(folder: Path) -> None:
    llm = on_cuda_backend(LLM(folder, kv_memory=1 << 20, device="cpu"), TorchTiles(), graphs=False)
    llm.generate(["Q"], PARAMS)
    assert counts(llm) == (0, 0)


def test_nothing_is_begun_without_a_slot_for_it(folder: Path) -> None:
    engine = with_graphs(folder).engine
    backend = engine.backend
    assert isinstance(backend, CudaBackend)
    request = engine.submit([5] * 9, SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    engine.step()  # the prompt
    engine.step()  # captures the graph
    engine.step()
    assert backend._ahead is not None
    taken = engine.slots.take(engine.slots.free - 1)
    engine.step()  # takes the last one
    assert engine.slots.free == 0
    assert backend._ahead is None
    assert request.finish_reason is None
    engine.slots.give_back(taken)
    engine.abort(request)
    engine.check_integrity()
