"""Rows of the vocabulary that no token has: padding that multiplies of 64 bring with them, and holes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.errors import RequestError
from tests.conftest import SHAPE, save_model
from tests.engine.test_oracle import TOLERANCE

PADDING = 50


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model that would write little else than its padding."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer) + PADDING, tie_word_embeddings=False, **SHAPE))
    folder = save_model(tmp_path_factory.mktemp("padded"), model, tokenizer)
    model.lm_head.weight.data[len(tokenizer) :] *= 3
    model.save_pretrained(folder)
    return folder


def test_the_model_itself_would_write_them(padded: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForCausalLM.from_pretrained(padded)
    with torch.inference_mode():
        likeliest = model(torch.tensor([tokenizer.encode("hello there")])).logits[0].argmax(-1)
    assert int((likeliest >= len(tokenizer)).sum()) > 5


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("more", [{"temperature": 0}, {"temperature": 1.5, "top_p": 1.0}, {"temperature": 1, "top_k": 3}])
def test_they_are_never_sampled_or_listed(padded: Path, guard: bool, deterministic: bool, more: dict[str, Any]) -> None:
    llm = LLM(padded, kv_memory=1 << 20, deterministic=deterministic)
    real = len(llm.tokenizer)
    params = SamplingParams(max_tokens=30, guard=guard, logprobs=True, top_logprobs=5, seed=1, ignore_eos=True, **more)
    for generation in llm.generate(["hello", "there", "<Think>\n"], params):
        assert len(generation.token_ids) > (20 if guard else 1)
        assert all(token < real for token in generation.token_ids)
        assert all(token < real for top in generation.top_logprobs or () for token, _ in top or ())


def test_log_probabilities_are_those_of_transformers(padded: Path) -> None:
    # Of all rows, as plain transformers and trainers compute them: what is never sampled keeps its share.
    llm, model = LLM(padded, kv_memory=1 << 20), AutoModelForCausalLM.from_pretrained(padded)
    params = SamplingParams(temperature=0, max_tokens=10, max_depth=0, logprobs=True, top_logprobs=3)
    (generation,) = llm.generate("hello", params)
    ids = [*generation.prompt_token_ids, *generation.token_ids]
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert generation.logprobs is not None
    assert generation.top_logprobs is not None
    for i, (token, value) in enumerate(zip(generation.token_ids, generation.logprobs, strict=True), 4):
        assert value == pytest.approx(float(logprobs[i, token]), abs=TOLERANCE)
        top = generation.top_logprobs[i - 4]
        assert top is not None
        best = logprobs[i, : len(llm.tokenizer)].topk(3)
        assert [token for token, _ in top] == best.indices.tolist()
        assert [value for _, value in top] == pytest.approx(best.values.tolist(), abs=TOLERANCE)


def test_a_bias_cannot_bring_them_back(padded: Path) -> None:
    llm = LLM(padded, kv_memory=1 << 20)
    row = len(llm.tokenizer) + 3
    with pytest.raises(RequestError, match=rf"logit_bias names token id {row}, which the tokenizer has no token for"):
        llm.generate("hello", SamplingParams(logit_bias={row: 100.0}))
    assert llm.engine.loaded.unused == tuple(range(len(llm.tokenizer), llm.engine.loaded.vocabulary))


def test_more_likely_tokens_are_asked_for_than_there_are(padded: Path) -> None:
    llm = LLM(padded, kv_memory=1 << 20)
    llm.engine.info = llm.engine.info._replace(unused=tuple(range(5, llm.engine.loaded.vocabulary)))
    params = SamplingParams(temperature=0, max_tokens=2, guard=False, top_logprobs=20)
    (generation,) = llm.generate("hello", replace(params, ignore_eos=True))
    assert {token for top in generation.top_logprobs or () for token, _ in top or ()} == set(range(5))


def test_prompts_list_none_of_them_either(padded: Path) -> None:
    llm = LLM(padded, kv_memory=1 << 20)
    (generation,) = llm.generate("hello there", SamplingParams(max_tokens=1, max_depth=0, prompt_logprobs=4))
    assert generation.prompt_logprobs is not None
    scores = [score for score in generation.prompt_logprobs if score is not None]
    assert len(scores) > 5
    assert all(token < len(llm.tokenizer) for score in scores for token, _ in score.top)
