"""Log-probabilities, token ids and bytes over HTTP: those of the engine, in OpenAI's and vLLM's forms."""

from __future__ import annotations

from typing import Any

import pytest

from multiverse import SamplingParams
from multiverse.engine.token_bytes import TokenBytes
from multiverse.serving import responses
from multiverse.serving.logprobs import TokenNames, text_offsets
from multiverse.structure import encode, render
from tests.cli.scripted import NESTED
from tests.conftest import build_tokenizer
from tests.serving.conftest import Site, choices, chunks, error_of

PROMPTS = ["3+4=7, 你好", "Mia has two."]


def scores_of(site: Site, prompt: str | list[int], top: int) -> list[Any]:
    """What the engine says of a prompt."""
    params = SamplingParams(temperature=0, max_tokens=0, prompt_logprobs=top)
    (result,) = site.llm.generate(prompt if isinstance(prompt, str) else [prompt], params)
    assert result.prompt_logprobs is not None
    return list(result.prompt_logprobs)


@pytest.mark.parametrize("as_ids", [False, True], ids=["text", "ids"])
@pytest.mark.parametrize("most", [0, 1])
def test_an_echoed_prompt_has_log_probabilities(mini: Site, as_ids: bool, most: int) -> None:
    encoded = [mini.llm.tokenizer.encode(text) for text in PROMPTS]
    expected = [scores_of(mini, ids, 1) for ids in encoded]
    body = mini.complete(encoded if as_ids else PROMPTS, echo=True, logprobs=1, max_tokens=most).json()
    assert responses.TextCompletion.model_validate(body)
    assert body["usage"]["prompt_tokens"] == sum(map(len, encoded))
    for text, ids, scores, choice in zip(PROMPTS, encoded, expected, body["choices"], strict=True):
        told = choice["logprobs"]
        assert choice["text"].startswith(text)
        assert choice["finish_reason"] == "length"
        assert {len(column) for column in told.values()} == {len(ids) + most}
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        values = [score.logprob for score in scores[1:]]
        assert told["token_logprobs"][1 : len(ids)] == pytest.approx(values, abs=1e-4)
        for name, value, top, score in zip(
            told["tokens"][1:], told["token_logprobs"][1:], told["top_logprobs"][1:], scores[1:], strict=False
        ):
            # As lm-eval finds out whether a text is what greedy sampling would have written.
            assert (value == max(top.values())) == (score.rank == 1)
            assert name in top
        for at, (name, offset) in enumerate(zip(told["tokens"], told["text_offset"], strict=True)):
            if not name.startswith("bytes:") and at < len(ids):
                assert choice["text"][offset : offset + len(name)] == name
    if not most:
        assert [choice["text"] for choice in body["choices"]] == PROMPTS
        assert body["usage"]["completion_tokens"] == 0


def test_the_prompt_alone_may_be_asked_for_without_anything(mini: Site) -> None:
    choice = mini.complete("3+4=", max_tokens=0).json()["choices"][0]
    assert (choice["text"], choice["logprobs"], choice["finish_reason"]) == ("", None, "length")
    assert mini.complete("3+4=", max_tokens=0, echo=True).json()["choices"][0]["text"] == "3+4="
    for fields in ({}, {"multiverse": {"branches": True}}):
        stream = choices(chunks(mini.complete("3+4=", max_tokens=0, echo=True, stream=True, **fields)))
        assert "".join(part["text"] for part in stream) == "3+4="
        assert stream[-1]["finish_reason"] == "length"
    assert error_of(mini.chat("3+4=", max_tokens=0))["param"] == "max_tokens"
    assert mini.chat("3+4=", max_tokens=0, prompt_logprobs=0).json()["choices"][0]["message"]["content"] == ""


def test_streams_of_echoed_prompts_add_up(mini: Site) -> None:
    for extension in ({}, {"multiverse": {"branches": True}}):
        fields = {"echo": True, "logprobs": 2, "max_tokens": 4, "return_token_ids": True, "prompt_logprobs": 1}
        whole = mini.complete("3+4=", **fields).json()["choices"][0]
        stream = chunks(mini.complete("3+4=", **fields, **extension, stream=True))
        parts = choices(stream)
        assert "".join(part["text"] for part in parts) == whole["text"]
        for name, column in whole["logprobs"].items():
            told = [value for part in parts if part["logprobs"] for value in part["logprobs"][name]]
            assert told == (pytest.approx(column, abs=1e-4) if name == "text_offset" else told)
            assert len(told) == len(column)
        assert [token for part in parts for token in part.get("token_ids", [])] == whole["token_ids"]
        assert parts[0]["prompt_token_ids"] == whole["prompt_token_ids"]
        assert [list(one or ()) for one in parts[0]["prompt_logprobs"]] == [list(one or ()) for one in whole["prompt_logprobs"]]
        assert not any("prompt_logprobs" in part for part in parts[1:])


def test_a_structured_prompt_is_scored_under_its_layout(mini: Site) -> None:
    tokens = mini.llm.engine.tokens
    assert tokens is not None
    encoded = encode(NESTED, tokens)
    (score,) = mini.llm.score(NESTED)
    for prompt in (list(encoded.token_ids), render(NESTED)):
        choice = mini.complete(prompt, echo=True, logprobs=0, max_tokens=0).json()["choices"][0]
        assert choice["text"] == render(NESTED)
        assert choice["logprobs"]["token_logprobs"] == [
            None if value is None else pytest.approx(value, abs=1e-4) for value in score.logprobs
        ]
        assert None in choice["logprobs"]["token_logprobs"][1:]


def test_prompt_logprobs_have_vllm_s_form(mini: Site) -> None:
    body = mini.chat("Hi", prompt_logprobs=2, max_tokens=3, return_token_ids=True).json()
    assert responses.ChatCompletion.model_validate(body)
    ids = body["prompt_token_ids"]
    scores = scores_of(mini, ids, 2)
    assert body["prompt_logprobs"][0] is None
    of = TokenBytes(mini.llm.tokenizer).of
    for token, entry, score in zip(ids[1:], body["prompt_logprobs"][1:], scores[1:], strict=True):
        assert entry[str(token)]["rank"] == score.rank
        assert entry[str(token)]["logprob"] == pytest.approx(score.logprob, abs=1e-4)
        assert list(entry) == [str(token), *(str(other) for other, _ in score.top if other != token)]
        assert entry[str(token)]["decoded_token"] == of(token).decode(errors="replace")
    stream = chunks(mini.chat("Hi", prompt_logprobs=2, max_tokens=3, return_token_ids=True, stream=True))
    assert stream[0]["prompt_token_ids"] == ids
    assert len(stream[0]["prompt_logprobs"]) == len(ids)
    assert stream[0]["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize("question", ["nested", "wide", "plain"])
def test_token_ids_are_all_that_was_generated(scripted: Site, question: str) -> None:
    (expected,) = scripted.llm.generate(question, SamplingParams(temperature=0))
    text = scripted.complete(question, return_token_ids=True, n=2).json()["choices"]
    assert [choice["token_ids"] for choice in text] == [list(expected.token_ids)] * 2
    assert [choice["prompt_token_ids"] for choice in text] == [scripted.llm.tokenizer.encode(question)] * 2
    chat = scripted.chat(question, return_token_ids=True).json()
    assert chat["choices"][0]["token_ids"] == list(expected.token_ids)
    asked = scripted.client.post("/tokenize", json={"messages": [{"role": "user", "content": question}]}).json()
    assert chat["prompt_token_ids"] == asked["tokens"]
    for fields in ({}, {"multiverse": {"branches": True}}):
        stream = chunks(scripted.chat(question, return_token_ids=True, stream=True, **fields))
        assert [token for part in choices(stream) for token in part.get("token_ids", [])] == list(expected.token_ids)
        assert [chunk["prompt_token_ids"] for chunk in stream if "prompt_token_ids" in chunk] == [asked["tokens"]]
    assert "token_ids" not in scripted.chat(question).json()["choices"][0]


def test_bytes_of_parts_of_characters_add_up_to_the_text(scripted: Site) -> None:
    told = scripted.chat("wide", logprobs=True, top_logprobs=2).json()["choices"][0]
    entries = [*told["logprobs"]["reasoning"], *told["logprobs"]["content"]]
    for part in ("reasoning", "content"):
        raw = b"".join(bytes(entry["bytes"]) for entry in told["logprobs"][part])
        assert raw.decode().removeprefix("\n") == told["message"][part]
    assert "é€" in told["message"]["reasoning"]
    parts = [entry for entry in entries if entry["token"].startswith("\\x")]
    assert {entry["token"]: entry["bytes"] for entry in parts}.items() >= {"\\xc3": [0xC3], "\\xa9": [0xA9]}.items()
    old = scripted.complete("wide", logprobs=1).json()["choices"][0]["logprobs"]
    assert {"bytes:\\xc3", "bytes:\\xa9", "bytes:\\xe2"} <= set(old["tokens"])
    assert all(name in top for name, top in zip(old["tokens"][:-1], old["top_logprobs"], strict=False) if top is not None)


def test_tokens_may_be_called_by_their_ids(mini: Site) -> None:
    fields = {"max_tokens": 5, "return_token_ids": True, "return_tokens_as_token_ids": True}
    choice = mini.complete("3+4=", logprobs=1, **fields).json()["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]
    body = mini.chat("3+4=", logprobs=True, **fields).json()["choices"][0]
    named = [entry["token"] for part in ("reasoning", "content") for entry in body["logprobs"][part]]
    assert set(named) <= {f"token_id:{token}" for token in body["token_ids"]}


def test_special_tokens_can_be_left_out(scripted: Site) -> None:
    tokens = scripted.llm.engine.tokens
    assert tokens is not None
    (text,) = scripted.llm.generate("wide", SamplingParams(temperature=0))
    bare = scripted.llm.tokenizer.decode(
        [token for token in text.token_ids if token not in tokens.roles], skip_special_tokens=True
    )
    for fields in ({}, {"stream": True}):
        response = scripted.complete("wide", skip_special_tokens=True, **fields)
        told = [part["text"] for part in (choices(chunks(response)) if fields else response.json()["choices"])]
        assert "".join(told) == bare
        assert (
            "".join(part["text"] for part in scripted.complete("wide", skip_special_tokens=False).json()["choices"])
            == text.text
        )
    plain, message = (scripted.chat("wide", skip_special_tokens=skip).json()["choices"][0]["message"] for skip in (False, True))
    assert message["content"] == plain["content"]
    assert "<" in plain["reasoning"]
    assert "<" not in message["reasoning"]


def test_offsets_count_characters_and_leave_out_what_a_tokenizer_puts_in_front() -> None:
    tokenizer = build_tokenizer()
    names = TokenNames(TokenBytes(tokenizer).of)
    ids = tokenizer.encode("aé€b")
    assert text_offsets(ids, "aé€b", names) == [0, 1, 1, 2, 2, 2, 3]
    assert text_offsets([tokenizer.eos_token_id, *ids], "aé€b", names) == [0, 0, 1, 1, 2, 2, 2, 3]
