"""A model with a text join gives over a server what it gives with the engine of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from multiverse import LLM, SamplingParams, StockLLM
from multiverse.structure import MULTIVERSE, Role, TokenDialect
from tests.stock.brains import Network
from tests.stock.loopback import Kind, Loopback, running

PROMPTS = ["Two sums.\n<Think>\n", "abc<Think>\n", "What is it?\n<Think>\n"]


def often(tokens: TokenDialect) -> SamplingParams:
    """Greedy, with tags so likely that a random model forks; to the end of the first block.

    No limit is common to several paths: those would take from it at another pace.
    """
    biases = {
        Role.BLOCK_OPEN: 6.0,
        Role.OUTLINE_OPEN: 4.0,
        Role.GOAL_CLOSE: -4.0,
        Role.OUTLINE_CLOSE: 5.0,
        Role.PATH_CLOSE: 4.0,
        Role.CONCLUSION_CLOSE: 4.0,
        Role.THINK_CLOSE: -20.0,
    }
    bias = {tokens.ids[role]: value for role, value in biases.items()} | {tokens.encode("\n")[0]: 3.0}
    stop = tokens.ids[Role.BLOCK_CLOSE]
    return SamplingParams(
        temperature=0, max_tokens=900, max_depth=1, max_width=3, max_branch_tokens=60, logit_bias=bias, stop_token_ids=[stop]
    )


@pytest.mark.parametrize("kind", ["vllm", "llamacpp"])
def test_greedy_answers_are_those_of_the_engine(
    model_folders: dict[str, Path], tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect, kind: Kind
) -> None:
    folder, params = model_folders["qwen2"], often(tokens)
    expected = LLM(folder, dialect=MULTIVERSE, join="text", kv_memory=4 << 20).generate(PROMPTS, params)
    network: Any = AutoModelForCausalLM.from_pretrained(folder)
    with running(Loopback(Network(network), tokenizer, kind)) as up, StockLLM(up.url, tokenizer=folder) as llm:
        found = llm.generate(PROMPTS, params)
        up.settled()
    assert {one.finish_reason for one in expected} == {"stop"}
    assert sum(one.usage.reread_tokens > 0 for one in expected) >= 2
    for own, theirs in zip(found, expected, strict=True):
        for field in ("token_ids", "text", "branches", "forced", "positions", "finish_reason", "closed", "tree"):
            assert getattr(own, field) == getattr(theirs, field), field
        for field in ("total_tokens", "critical_path_tokens", "critical_path_steps", "reread_tokens", "prompt_tokens"):
            assert getattr(own.usage, field) == getattr(theirs.usage, field), field
