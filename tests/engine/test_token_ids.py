"""Token ids as libraries hand them over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from multiverse import LLM
from multiverse.engine.token_ids import as_lists
from multiverse.errors import RequestError
from tests.engine.steering import GREEDY

IDS = [5, 6, 7]
PADDED = [[5], [7, 8]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (BatchEncoding({"input_ids": IDS, "attention_mask": [1, 1, 1]}), IDS),
        (BatchEncoding({"input_ids": [IDS, IDS]}), [IDS, IDS]),
        (BatchEncoding({"input_ids": torch.tensor([[0, 5], [7, 8]]), "attention_mask": np.array([[0, 1], [1, 1]])}), PADDED),
        ({"input_ids": IDS}, IDS),
        (torch.tensor(IDS), IDS),
        (torch.tensor([IDS]), [IDS]),
        (np.array(IDS), IDS),
        ([torch.tensor(IDS), torch.tensor([1])], [IDS, [1]]),
        ([BatchEncoding({"input_ids": torch.tensor([IDS])}), BatchEncoding({"input_ids": [1]})], [IDS, [1]]),
        ([np.int64(5), np.int64(6)], [5, 6]),
        ([torch.tensor(5), torch.tensor(6)], [5, 6]),
    ],
)  # fmt: skip
def test_every_form_becomes_lists(given: Any, expected: Any) -> None:
    found = as_lists(given)
    assert found == expected
    assert all(type(token) is int for row in found for token in (row if isinstance(row, list) else [row]))


@pytest.mark.parametrize("given", ["text", ["text", "two"], IDS, [IDS], [], {"role": "user"}, [{"role": "user"}], None])
def test_everything_else_stays(given: Any) -> None:
    assert as_lists(given) is given


@pytest.mark.parametrize(
    "form",
    [
        lambda tokenizer, text: tokenizer(text),
        lambda tokenizer, text: tokenizer(text, return_tensors="pt"),
        lambda tokenizer, text: tokenizer(text)["input_ids"],
        lambda tokenizer, text: np.array(tokenizer(text)["input_ids"]),
    ],
)
def test_a_prompt_may_be_what_the_tokenizer_returns(llm: LLM, form: Callable[[Any, str], Any]) -> None:
    params = replace(GREEDY, max_tokens=3, max_depth=0)
    (expected,) = llm.generate("hello", params)
    given = form(llm.tokenizer, "hello")
    assert llm.generate(given, params)[0].token_ids == expected.token_ids
    assert llm.generate([given, given], params)[1].token_ids == expected.token_ids
    assert list(llm.stream(given, params))[-1].generation.token_ids == expected.token_ids  # type: ignore[union-attr]
    assert llm.score(given)[0].token_ids == expected.prompt_token_ids
    request = llm.engine.submit(given if not hasattr(given, "ndim") else given.tolist(), params)
    llm.engine.run([request])


def test_a_padded_batch_is_its_rows_without_the_padding(llm: LLM) -> None:
    params = replace(GREEDY, max_tokens=3, max_depth=0)
    tokenizer: Any = llm.tokenizer
    for side in ("left", "right"):
        batch = tokenizer(["hello", "a longer one"], padding=True, padding_side=side, return_tensors="pt")
        found = llm.generate(batch, params)
        assert [generation.prompt_token_ids for generation in found] == [
            tuple(tokenizer(text)["input_ids"]) for text in ("hello", "a longer one")
        ]


def test_a_chat_of_token_ids_is_sent_to_generate(llm: LLM) -> None:
    tokenizer: Any = llm.tokenizer
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=True)
    with pytest.raises(RequestError, match=r"chat takes messages, and these are token ids: give them to generate\(\)"):
        llm.chat(ids)
