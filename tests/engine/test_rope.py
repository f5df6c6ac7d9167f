"""Rotary embeddings that change with the length of the text: as one dense forward of what a token sees, and no further."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedTokenizerFast,
)

from multiverse import LLM, Generation, SamplingParams
from multiverse.attention import dense_inputs
from multiverse.engine.scripted import ScriptedSampler
from multiverse.errors import ModelError, RequestError
from multiverse.models.rope import short_positions
from multiverse.structure import layout
from tests.conftest import SHAPE, save_model
from tests.engine.steering import GREEDY, NESTED, two_paths
from tests.engine.test_oracle import PARAMS, TOLERANCE, Trouble, predecessors, run_scripted

CASES = ((20, False), (60, False), (60, True), (84, False), (150, False))
"""Borders before the first block, inside of it, in a nested block, near the end; and whether the backend is deterministic."""

Phi3 = Callable[[int], tuple[Path, Any]]


def rope(short: int, **more: Any) -> dict[str, Any]:
    """Parameters of a longrope embedding whose two lists of factors differ clearly."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 2.0, 16.0]}
    return {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": short, **factors, **more}


@pytest.fixture(scope="module")
def phi3(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Phi3:
    """Folder and untouched model of a Phi-3 whose border is after so many positions."""

    @cache
    def made(short: int) -> tuple[Path, Any]:
        torch.manual_seed(1)
        ids = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
        config = Phi3Config(
            vocab_size=len(tokenizer), original_max_position_embeddings=short, rope_parameters=rope(short), **ids, **SHAPE
        )
        folder = save_model(tmp_path_factory.mktemp("phi3"), Phi3ForCausalLM(config), tokenizer)
        return folder, AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    return made


def agree(model: Any, generation: Generation, tokens: Any, short: int) -> tuple[int, int]:
    """Compare every sampled token; returns how many were on each side of the border.

    A token is computed from the row before it. Up to the border its distribution is that of a dense forward of the text so far;
    that forward is here the one of the whole text with what lies behind the border, which no compared row sees, moved to
    it. Beyond the border it is that of a dense forward of the whole text.
    """
    prompt = len(generation.prompt_token_ids)
    ids = [*generation.prompt_token_ids, *generation.token_ids[:-1]]
    whole = layout(ids, tokens, decoded=True)
    inputs, before = dense_inputs(ids, whole), predecessors(whole)
    moved = {**inputs, "position_ids": inputs["position_ids"].clamp(max=short - 1)}
    with torch.inference_mode():
        near, far = (model(**given).logits[0].log_softmax(-1) for given in (moved, inputs))
    assert generation.logprobs is not None
    sides = [0, 0]
    for i, value in enumerate(generation.logprobs[:-1], prompt):
        if value is not None:
            beyond = whole.positions[before[i]] >= short
            assert value == pytest.approx(float((far if beyond else near)[before[i], ids[i]]), abs=TOLERANCE)
            sides[beyond] += 1
    return sides[0], sides[1]


@pytest.mark.parametrize(("short", "deterministic"), CASES)
def test_a_text_that_outgrows_the_short_factors_is_read_again(phi3: Phi3, short: int, deterministic: bool) -> None:
    outgrow(phi3, short, deterministic=deterministic)


@pytest.mark.parametrize(("short", "deterministic"), [(60, False), (72, False), (84, False), (84, True)])
def test_separators_that_are_read_at_the_join_outgrow_them_too(phi3: Phi3, short: int, deterministic: bool) -> None:
    outgrow(phi3, short, deterministic=deterministic, layout="released")


def outgrow(phi3: Phi3, short: int, *, deterministic: bool, layout: str = "engine") -> None:
    folder, model = phi3(short)
    llm = LLM(folder, layout=layout, kv_memory=1 << 20, deterministic=deterministic)
    llm.engine.sampler = ScriptedSampler()
    tokens, rng = llm.engine.tokens, random.Random(short)
    assert tokens is not None
    results = []
    for width, trouble in ((256, False), (1, True)):  # all branches at once; in waves, with preemption
        llm.engine.scheduler.max_batch_branches = width
        disturb = Trouble(rng, evict=True) if trouble else None
        # One prompt is itself longer than some borders; texts on both sides of a border share every forward.
        results += run_scripted(llm, [NESTED, two_paths()], ["Q" * 30, "Hello"], [2, 0], disturb=disturb)
    sides = [agree(model, generation, tokens, short) for generation in results]
    assert sides[0][1] > 20
    assert sides[1][0] > 5
    if deterministic:
        assert results[0].logprobs == results[2].logprobs


def test_paths_that_share_cross_the_border_too(phi3: Phi3) -> None:
    short = 60
    folder, _ = phi3(short)
    llm = LLM(folder, kv_memory=1 << 20)
    llm.engine.sampler = ScriptedSampler()
    params = replace(PARAMS, share_every=8)
    alone, small = (run_scripted(llm, [NESTED], ["Q"], [0], budget, params)[0] for budget in (2048, 3))
    assert alone.tree == small.tree == NESTED
    assert alone.logprobs is not None
    assert small.logprobs is not None
    for a, b in zip(alone.logprobs, small.logprobs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, abs=TOLERANCE)


def test_plain_text_is_that_of_transformers_before_at_and_behind_the_border(phi3: Phi3) -> None:
    short = 40
    folder, model = phi3(short)
    llm = LLM(folder, kv_memory=1 << 20)
    params = SamplingParams(temperature=0, max_tokens=24, max_depth=0, logprobs=True)
    for count in (5, 30, short - 1, short, short + 1, 70):
        (generation,) = llm.generate("x" * count, params)
        ids = [*generation.prompt_token_ids, *generation.token_ids]
        assert generation.logprobs is not None
        for i, value in enumerate(generation.logprobs, count):
            with torch.inference_mode():
                row = model(torch.tensor([ids[:i]])).logits[0, -1].log_softmax(-1)
            assert value == pytest.approx(float(row[ids[i]]), abs=TOLERANCE)
    # The next turn of a long chat reads what is cached of it; a short text that begins alike does not.
    (again,) = llm.generate([ids[:80]], replace(params, max_tokens=2))
    assert again.usage.cached_tokens > 60
    (other,) = llm.generate("x" * 35, replace(params, max_tokens=2))
    assert other.usage.cached_tokens <= 35
    with torch.inference_mode():
        row = model(torch.tensor([[*other.prompt_token_ids]])).logits[0, -1].log_softmax(-1)
    assert other.logprobs is not None
    assert other.logprobs[0] == pytest.approx(float(row[other.token_ids[0]]), abs=TOLERANCE)


def test_a_text_is_scored_as_one_forward_of_all_of_it(phi3: Phi3) -> None:
    folder, model = phi3(40)
    llm = LLM(folder, kv_memory=1 << 20)
    for text in ("a" * 40, "ab" * 30):
        (score,) = llm.score(text)
        with torch.inference_mode():
            logprobs = model(torch.tensor([score.token_ids])).logits[0].log_softmax(-1)
        for i in range(1, len(text)):
            assert score.logprobs[i] == pytest.approx(float(logprobs[i - 1, score.token_ids[i]]), abs=TOLERANCE)


def test_a_model_with_factors_of_its_own_kind(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    # PhiMoE scales the angles otherwise on either side of the border.
    torch.manual_seed(2)
    parameters = rope(30, short_mscale=1.1, long_mscale=1.6)
    config = PhimoeConfig(vocab_size=len(tokenizer), num_local_experts=2, rope_parameters=parameters, **SHAPE)
    folder = save_model(tmp_path, PhimoeForCausalLM(config), tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    llm = LLM(folder, kv_memory=1 << 20)
    (generation,) = llm.generate("x" * 20, SamplingParams(temperature=0, max_tokens=20, max_depth=0, logprobs=True))
    ids = [*generation.prompt_token_ids, *generation.token_ids]
    for i, value in enumerate(generation.logprobs or (), 20):
        with torch.inference_mode():
            row = model(torch.tensor([ids[:i]])).logits[0, -1].log_softmax(-1)
        assert value == pytest.approx(float(row[ids[i]]), abs=TOLERANCE)


def test_layers_that_change_at_different_lengths_are_refused() -> None:
    config = Phi3Config(pad_token_id=None)
    config.rope_parameters = {"full_attention": rope(30), "sliding_attention": rope(40)}
    with pytest.raises(ModelError, match=r"'m' has layers whose .* change at different lengths \(30, 40\)"):
        short_positions(config, "m")


@pytest.mark.parametrize("deterministic", [False, True])
def test_dynamic_embeddings_end_at_the_trained_length(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, deterministic: bool
) -> None:
    torch.manual_seed(3)
    parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    shape = {**SHAPE, "max_position_embeddings": 160}
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, rope_parameters=parameters, **shape)
    folder = save_model(tmp_path, LlamaForCausalLM(config), tokenizer)
    llm = LLM(folder, kv_memory=1 << 20, deterministic=deterministic)
    with pytest.raises(
        RequestError, match=r"has 160 tokens, .* at most 159 \(.*dynamic rotary embedding would change with every"
    ):
        llm.generate("x" * 160)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    (generation,) = llm.generate("x" * 140, SamplingParams(temperature=0, max_tokens=99, max_depth=0, logprobs=True))
    assert generation.finish_reason == "length"
    ids = [*generation.prompt_token_ids, *generation.token_ids]
    assert len(ids) == 160
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for i, value in enumerate(generation.logprobs or (), 140):
        assert value == pytest.approx(float(logprobs[i - 1, ids[i]]), abs=TOLERANCE)


def test_greedy_answers_cross_the_border(phi3: Phi3) -> None:
    # Not scripted: the guard, limits and forced tokens are in force on both sides.
    folder, _ = phi3(60)
    llm = LLM(folder, kv_memory=1 << 20)
    params = replace(GREEDY, max_tokens=80, max_branches=6)
    together = llm.generate([f"question {i}<Think>\n" for i in range(4)], params)
    for i, generation in enumerate(together[::2]):
        assert max(generation.positions) >= 60
        (alone,) = llm.generate(f"question {2 * i}<Think>\n", params)
        assert alone.token_ids == generation.token_ids
