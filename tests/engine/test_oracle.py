"""The oracle: one dense forward of the untouched transformers model must give the engine's own log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from multiverse import LLM, Generation, SamplingParams
from multiverse.attention import dense_inputs
from multiverse.engine import Request
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Document, TokenDialect, layout
from tests.strategies import documents

TOLERANCE = 1e-4


def dense_logprobs(
    model: Any, prompt: tuple[int, ...], generated: tuple[int, ...], tokens: TokenDialect
) -> tuple[np.ndarray, Any]:
    """Log-probability of each generated token by one dense forward, and the layout of the whole sequence."""
    ids = [*prompt, *generated]
    whole = layout(ids, tokens)
    with torch.inference_mode():
        logits_LV = model(**dense_inputs(ids, whole)).logits[0].float()
    logprobs_LV = logits_LV.log_softmax(-1)
    # The token before a token in its own line of thought, which is not always the one before it in document order.
    before = predecessors(whole)
    values = [float(logprobs_LV[before[i], ids[i]]) for i in range(len(prompt), len(ids))]
    return np.array(values), whole


def predecessors(whole: Any) -> list[int]:
    """Index of the visible token at the position before each token; sampled tokens always have it in their own branch."""
    last: dict[int, int] = {}
    out = []
    for i, branch in enumerate(whole.branches):
        out.append(last.get(branch, -1))
        last[branch] = i
    return out


def check(model: Any, generation: Generation, tokens: TokenDialect) -> int:
    """Compare every sampled token; returns how many there were."""
    assert generation.logprobs is not None
    prompt, ids = generation.prompt_token_ids, generation.token_ids
    stop = 1 if generation.finish_reason == "stop" else 0  # end of text is not part of the grammar
    expected, whole = dense_logprobs(model, prompt, ids[: len(ids) - stop] if stop else ids, tokens)
    assert generation.positions[: len(expected)] == whole.positions[len(prompt) :]
    assert generation.branches[: len(expected)] == whole.labels[len(prompt) :]
    assert generation.forced[: len(expected)] == whole.forced[len(prompt) :]
    compared = 0
    for value, reference in zip(generation.logprobs, expected, strict=False):
        if value is not None:
            assert abs(value - reference) <= TOLERANCE
            compared += 1
    return compared


@pytest.fixture(scope="module")
def pairs(model_folders: dict[str, Path]) -> dict[str, tuple[LLM, Any]]:
    """Our engine and the untouched model, per family."""
    pairs = {}
    for name in ("qwen2", "qwen3", "llama"):
        llm = LLM(model_folders[name], kv_memory=8 << 20)
        llm.engine.sampler = ScriptedSampler()
        pairs[name] = llm, AutoModelForCausalLM.from_pretrained(model_folders[name], attn_implementation="sdpa").eval()
    return pairs


def run_scripted(llm: LLM, docs: list[Document], prompts: list[str], gaps: list[int], budget: int = 2048) -> list[Generation]:
    """Write each document after its prompt, submitting one more request every few steps."""
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    assert isinstance(engine.sampler, ScriptedSampler)
    engine.scheduler.max_batch_tokens = budget
    end = int(llm.tokenizer.eos_token_id)
    requests: list[Request] = []
    for document, prompt, gap in zip(docs, prompts, gaps, strict=True):
        request = engine.submit(tokens.encode(prompt), SamplingParams(temperature=0, logprobs=True, max_tokens=4000))
        engine.sampler.scripts[request.id] = Script(document, tokens, end)
        requests.append(request)
        for _ in range(gap):
            if engine.busy:
                engine.step()
    engine.run(requests)
    engine.slots.check_integrity()
    assert engine.slots.free == engine.slots.size
    return [engine.generation(request) for request in requests]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@settings(max_examples=25)
@given(data=st.data())
def test_engine_agrees_with_one_dense_forward(pairs: dict[str, tuple[LLM, Any]], family: str, data: st.DataObject) -> None:
    # 25 examples of up to 4 trees in each of 3 families: the requests share every batch, at random offsets, and prompts and
    # heads are cut into chunks when the budget is small.
    llm, model = pairs[family]
    docs = data.draw(st.lists(documents(depth=3), min_size=1, max_size=4))
    prompts = data.draw(st.lists(st.sampled_from(["Q", "a longer question?", "12+"]), min_size=len(docs), max_size=len(docs)))
    gaps = data.draw(st.lists(st.integers(0, 12), min_size=len(docs), max_size=len(docs)))
    budget = data.draw(st.sampled_from([3, 17, 2048]))
    tokens = llm.engine.tokens
    assert tokens is not None
    for document, generation in zip(docs, run_scripted(llm, docs, prompts, gaps, budget), strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens) > 0
