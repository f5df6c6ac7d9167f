"""Answers in the shapes of all servers; pieces of text in the place of tokens."""

from __future__ import annotations

from typing import Any

import pytest

from multiverse.stock.pieces import PieceTokenizer, Splitter
from multiverse.stock.wire import Chunk, Piece, read_chunk
from multiverse.structure import MULTIVERSE, resolve


def chunk(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "ab", "finish_reason": None, **choice}]}


def test_vllm() -> None:
    scores = {
        "tokens": ["token_id:7", "token_id:9"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"token_id:8": -0.7, "token_id:7": -0.5}, {"token_id:9": -1.0}],
    }
    value = chunk(token_ids=[7, 9], prompt_token_ids=[1, 2], logprobs=scores, finish_reason="stop", stop_reason=9)
    assert read_chunk(value) == Chunk(
        (Piece("", 7, -0.5, ((7, -0.5), (8, -0.7))), Piece("", 9, -1.0, ((9, -1.0),))), "stop", prompt_ids=(1, 2), stop=9
    )
    assert read_chunk(value, by_ids=False).pieces == (Piece("ab"),)
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    assert read_chunk({"choices": [], "usage": usage}) == Chunk((), None, 5, 4)
    assert read_chunk({"choices": [], "usage": {"prompt_tokens": 5, "prompt_tokens_details": None}}) == Chunk((), None, 5, None)


def test_llama_cpp() -> None:
    top = [{"id": 7, "token": "a", "logprob": -0.1}, {"id": 8, "token": "b", "logprob": -0.2}]
    content = [{"id": 7, "token": "ab", "logprob": -0.1, "top_logprobs": top}]
    value = {**chunk(logprobs={"content": content}), "__verbose": {"tokens": [7]}}
    assert read_chunk(value) == Chunk((Piece("", 7, -0.1, ((7, -0.1), (8, -0.2))),))
    assert read_chunk(chunk(text="", finish_reason="stop")) == Chunk((), "stop")


def test_texts() -> None:
    assert read_chunk(chunk()) == Chunk((Piece("ab"),))
    scores = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0], "top_logprobs": [{"a": -0.5, "c": -2.0}, None]}
    assert read_chunk(chunk(logprobs=scores)).pieces == (
        Piece("a", None, -0.5, (("a", -0.5), ("c", -2.0))),
        Piece("b", None, -1.0),
    )
    assert read_chunk(chunk(text=None)).pieces == ()


@pytest.mark.parametrize(
    "value", [{"choices": [3]}, chunk(text=5), chunk(token_ids=["x"]), {"choices": {"a": 1}}, chunk(logprobs=3)]
)
def test_what_is_no_completion(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no completion"):
        read_chunk(value)


def test_pieces() -> None:
    tokenizer = PieceTokenizer(MULTIVERSE)
    tokens = resolve(tokenizer)
    assert len(set(tokens.ids.values())) == 12
    ids = tokenizer.encode("a<Path>\n1:")
    assert len(ids) == 5
    assert tokenizer.decode(ids) == "a<Path>\n1:"
    (piece,) = tokenizer.numbers("several words")
    assert tokenizer.numbers("several words") == [piece]
    assert tokenizer.decode([piece, tokenizer.eos_token_id]) == "several words"
    assert tokenizer.numbers("x") == tokenizer.encode("x")
    assert tokenizer.numbers("\n\nso") == [10, 10, *tokenizer.numbers("so")]
    assert tokenizer.numbers("<Path>") == tokenizer.encode("<Path>")
    assert max(*ids, piece) < len(tokenizer)


def test_there_are_not_more_and_more_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiverse.stock.pieces._MOST", 15)
    tokenizer = PieceTokenizer(MULTIVERSE)
    assert [len(tokenizer.numbers(text)) for text in ("one", "two", "three", "two")] == [1, 1, 5, 1]
    assert tokenizer.decode(tokenizer.numbers("three")) == "three"


def test_tags_are_found_in_parts() -> None:
    splitter = Splitter(("<a>", "<ab>", "</a>"))
    assert splitter.split("x<a>y<ab></a>") == ["x", "<a>", "y", "<ab>", "</a>"]
    assert splitter.split("") == []
    assert [splitter.held(text) for text in ("x", "x<", "x<a", "x<a>", "</", "a<b")] == [0, 1, 2, 0, 2, 0]
