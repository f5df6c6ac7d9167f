"""The official `openai` package of Python, unmodified, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("openai", reason="the openai package is not installed")

import openai

from multiverse import LLM
from multiverse.streaming import WireEvent
from multiverse.structure import Role
from tests.serving.conftest import Site, occupied, serving

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
MODEL = "multiverse-mini"


@pytest.fixture(scope="module")
def site(mini_model: LLM) -> Iterator[Site]:
    with serving(mini_model, api_keys=("sesame",), max_concurrent=2, max_queue=0) as site:
        yield site


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="sesame", max_retries=0) as client:
        yield client


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_chat(client: Any) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, logprobs=True, top_logprobs=2)
    (choice,) = completion.choices
    assert choice.message.content
    assert choice.message.reasoning == choice.message.reasoning_content
    assert choice.finish_reason == "stop"
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
    assert usage.multiverse["parallelism"] > 1


def test_a_conversation_sends_its_answers_back(client: Any) -> None:
    first = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
    messages = [*MESSAGES, first.choices[0].message.model_dump(), *MESSAGES]
    second = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=100)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.total_tokens - 2


def test_streaming(client: Any) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0).choices[0].message
    content = reasoning = ""
    with client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                content += choice.delta.content or ""
                reasoning += getattr(choice.delta, "reasoning", None) or ""
    assert (content, reasoning) == (whole.content, whole.reasoning)
    assert chunk.usage.completion_tokens > 0


def test_stream_helper(client: Any) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0) as stream:
        assert "content.delta" in {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content


def test_branches_pass_through(client: Any) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, stream=True, extra_body={"multiverse": {"branches": True}}
    )
    content, moments = "", []
    for chunk in stream:
        moments.append(WireEvent.from_json(chunk.model_extra["multiverse"]))
        content += chunk.choices[0].delta.content or ""
    assert (moments[0].event, moments[-1].event) == ("start", "finish")
    assert any(moment.event == "fork" for moment in moments)
    assert content.endswith(moments[-1].answer)


def test_completions(client: Any) -> None:
    wanted: dict[str, Any] = {"model": MODEL, "prompt": "3+4=", "temperature": 0, "max_tokens": 12}
    completion = client.completions.create(**wanted, logprobs=2, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert "".join(completion.choices[0].logprobs.tokens) == completion.choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**wanted, stream=True))
    assert streamed == completion.choices[0].text


def test_errors(client: Any, site: Site) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, frequency_penalty=3)
    assert (bad.value.param, bad.value.type) == ("frequency_penalty", "invalid_request_error")
    with pytest.raises(openai.AuthenticationError), openai.OpenAI(base_url=f"{site.url}/v1", api_key="x") as stranger:
        stranger.models.list()
    with occupied(site, 2), pytest.raises(openai.RateLimitError) as full:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert int(full.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, **broken(site))


def broken(site: Site) -> dict[str, Any]:
    """What makes the model break the grammar: a tag where it cannot stand, and no guard."""
    tokens = site.llm.engine.tokens
    assert tokens is not None
    bias = {str(tokens.ids[Role.GOAL_CLOSE]): 100}
    return {"temperature": 0, "logit_bias": bias, "extra_body": {"multiverse": {"guard": False}}}


def test_an_error_in_the_middle_of_a_stream(client: Any, site: Site) -> None:
    with pytest.raises(openai.APIError) as told:
        list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **broken(site)))
    assert told.value.code == "malformed_generation"


def test_disconnecting_from_a_stream_releases_its_permit(client: Any, site: Site) -> None:
    endless: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3000}
    raw = {"ignore_eos": True, "multiverse": {"max_depth": 0}}
    with client.chat.completions.create(**endless, stream=True, extra_body=raw) as stream:
        assert next(iter(stream)).id
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**endless, extra_body=raw)

    async def cancel() -> None:
        async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="sesame", max_retries=0) as own:
            pending = asyncio.ensure_future(own.chat.completions.create(**endless, extra_body=raw))
            await asyncio.sleep(0.05)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            # There is room for two: both come through once those who left are gone.
            for _ in range(2000):
                try:
                    with occupied(site, 2):
                        return
                except Exception:
                    await asyncio.sleep(0.01)
        raise AssertionError("those who left still hold their places")

    asyncio.run(cancel())
