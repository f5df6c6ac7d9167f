"""Fork and join with quantised weights: the same as one dense forward of a model that has the numbers they stand for."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from multiverse import LLM, Generation
from multiverse.backends.cpu import quantised_linears
from multiverse.backends.cpu.build import quantised_kernels
from multiverse.backends.cpu.quantised_linears import BITS, QuantisedLinear, make_quantised_invariant, quantise_model
from multiverse.engine.scripted import ScriptedSampler
from tests.engine.test_oracle import TOLERANCE, Trouble, dense_logprobs, run_scripted
from tests.strategies import documents

SLOTS = 4200


@cache
def models(folder: Path, quantize: str) -> tuple[LLM, Any, Any]:
    """Our engine; the untouched model with the numbers that the codes stand for; and one with quantised layers."""
    llm = LLM(folder, quantize=quantize, kv_memory=SLOTS * 512)
    llm.engine.sampler = ScriptedSampler()
    plain, layers = (AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval() for _ in range(2))
    quantise_model(layers, BITS[quantize])
    with torch.no_grad():
        for name, module in layers.named_modules():
            if isinstance(module, QuantisedLinear):
                plain.get_submodule(name).weight.copy_(module.weight.dequantised())
    return llm, plain, layers


def write(llm: LLM, data: st.DataObject) -> list[Generation]:
    """Random trees in one batch, some of them preempted on the way."""
    docs = data.draw(st.lists(documents(depth=2, forks=True), min_size=2, max_size=3))
    gaps = data.draw(st.lists(st.integers(0, 9), min_size=len(docs), max_size=len(docs)))
    trouble = Trouble(random.Random(data.draw(st.integers(0, 99))), evict=True)
    return run_scripted(llm, docs, ["Q"] * len(docs), gaps, data.draw(st.sampled_from([31, 2048])), disturb=trouble)


def apart(generation: Generation, expected: np.ndarray) -> float:
    """The largest difference from these log-probabilities."""
    assert generation.logprobs is not None
    pairs = zip(generation.logprobs, expected, strict=False)
    return max(abs(value - reference) for value, reference in pairs if value is not None)


def dense(model: Any, llm: LLM, generation: Generation) -> np.ndarray:
    assert llm.engine.tokens is not None
    ids = generation.token_ids[:-1] if generation.finish_reason == "stop" else generation.token_ids
    return dense_logprobs(model, generation.prompt_token_ids, ids, llm.engine.tokens)[0]


@pytest.mark.parametrize(("family", "quantize"), [("llama", "int4")])
@settings(max_examples=1)
@given(data=st.data())
def test_by_numbers_they_are_the_same(model_folders: dict[str, Path], family: str, quantize: str, data: st.DataObject) -> None:
    """Where codes are turned into numbers nothing is rounded, so the tolerance is that of plain weights."""
    llm, plain, _ = models(model_folders[family], quantize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantised_linears, "FEW_ROWS", 0)
        for generation in write(llm, data):
            assert apart(generation, dense(plain, llm, generation)) <= TOLERANCE


@pytest.mark.skipif(quantised_kernels() is None, reason="no compiler")
@pytest.mark.parametrize(("family", "quantize"), [("qwen2", "int8"), ("llama", "int4")])
@settings(max_examples=1)
@given(data=st.data())
def test_by_codes_they_differ_by_the_rounding_of_activations(
    model_folders: dict[str, Path], family: str, quantize: str, data: st.DataObject
) -> None:
    """The tolerance is measured on the same text without the engine: what rounding activations to 8 bits changes in one
    dense forward.

    Forks and joins add nothing to it: keys and values in another order change activations by their rounding in float32, and
    those that lie between two steps go to the other one. That moves some numbers by a whole step, where the rounding itself
    moves all of them by up to half a step; so at most twice as far.
    """
    llm, plain, layers = models(model_folders[family], quantize)
    make_quantised_invariant(layers)  # all rows by codes
    generations = write(llm, data)
    exact = [dense(plain, llm, generation) for generation in generations]
    rounded = [dense(layers, llm, generation) for generation in generations]
    noise = max(np.abs(one - other).max() for one, other in zip(exact, rounded, strict=True))
    assert 1e-4 < noise < 1
    for generation, expected in zip(generations, rounded, strict=True):
        assert apart(generation, expected) <= 2 * noise
