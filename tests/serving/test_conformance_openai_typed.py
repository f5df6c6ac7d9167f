"""The official `openai` package, unmodified: answers of a type (`parse`), and OpenAI's newer API (`responses`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import pytest

pytest.importorskip("openai", reason="the openai package is not installed")
pytest.importorskip("llguidance", reason="llguidance is not installed")

import openai
from pydantic import BaseModel, Field

from multiverse import LLM
from multiverse.serving.errors import server_error
from tests.serving.conftest import Site, serving

QUESTION = "What is 3 plus 4?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
MODEL = "multiverse-mini"
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0}
BRIEF: dict[str, Any] = {**GREEDY, "extra_body": {"multiverse": {"thinking_budget": 24}}}
"""With a short thinking."""


class Part(BaseModel):
    """A part of the answer."""

    kind: Literal["sum", "product"]
    size: int = Field(ge=0, le=99)


class Answer(BaseModel):
    """What the answer is to be."""

    total: int = Field(ge=0, le=999)
    sure: bool
    part: Part


@pytest.fixture(scope="module")
def site(mini_model: LLM) -> Iterator[Site]:
    with serving(mini_model, api_keys=("sesame",)) as site:
        yield site


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="sesame", max_retries=0) as client:
        yield client


# ---- chats


@pytest.mark.filterwarnings("ignore:Pydantic serializer:UserWarning")  # of the package, on its own class
def test_an_answer_is_parsed_and_goes_back(client: Any) -> None:
    first = client.chat.completions.parse(messages=MESSAGES, response_format=Answer, **BRIEF).choices[0].message
    assert isinstance(first.parsed, Answer)
    assert Answer.model_validate_json(first.content) == first.parsed
    again = client.chat.completions.create(messages=[*MESSAGES, first, *MESSAGES], max_tokens=20, **GREEDY)
    assert again.usage.prompt_tokens_details.cached_tokens > 50  # read as it was written


def test_an_answer_is_parsed_while_it_streams(client: Any) -> None:
    with client.chat.completions.stream(messages=MESSAGES, response_format=Answer, **BRIEF) as stream:
        parts = [event.parsed for event in stream if event.type == "content.delta" and event.parsed]
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Answer)
    assert {"total"} <= set(parts[0])


def test_an_answer_that_was_cut_short_is_told(client: Any) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(messages=MESSAGES, response_format=Answer, max_tokens=4, **BRIEF)


def test_a_type_that_cannot_be_honoured_is_refused(client: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(messages=MESSAGES, response_format=form, **GREEDY)
    assert refused.value.param == "response_format"
    assert "uniqueItems" in refused.value.message


# ---- responses


def test_a_response_and_its_conversation(client: Any) -> None:
    first = client.responses.create(input=QUESTION, **GREEDY)
    chat = client.chat.completions.create(messages=MESSAGES, **GREEDY)
    assert first.output_text == chat.choices[0].message.content
    assert [item.type for item in first.output] == ["reasoning", "message"]
    assert (first.status, first.error, first.incomplete_details) == ("completed", None, None)
    assert first.usage.total_tokens == chat.usage.total_tokens
    again = [*MESSAGES, *first.output, *MESSAGES]
    second = client.responses.create(input=again, instructions="Answer with a number.", **GREEDY)
    assert second.output_text


def test_events_of_a_response(client: Any) -> None:
    whole = client.responses.create(input=QUESTION, **GREEDY)
    texts = {"response.output_text.delta": "", "response.reasoning_text.delta": ""}
    events = list(client.responses.create(input=QUESTION, stream=True, **GREEDY))
    for event in events:
        if event.type in texts:
            texts[event.type] += event.delta
    assert texts["response.output_text.delta"] == whole.output_text
    assert texts["response.reasoning_text.delta"] == whole.output[0].content[0].text
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == whole.output_text
    # Each is of the class that the package has for it, and none of its fields is of another type.
    for event in events:
        assert type(event).__name__ != "BaseModel"
        type(event).model_validate(event.model_dump())


def test_the_helper_of_streams(client: Any) -> None:
    with client.responses.stream(input=QUESTION, text_format=Answer, **BRIEF) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Answer)
    assert Answer.model_validate_json(text) == final.output_parsed


def test_a_response_is_parsed_and_goes_back(client: Any) -> None:
    first = client.responses.parse(input=QUESTION, text_format=Answer, **BRIEF)
    assert isinstance(first.output_parsed, Answer)
    again = client.responses.create(input=[*MESSAGES, *first.output, *MESSAGES], max_output_tokens=20, **GREEDY)
    assert again.usage.input_tokens_details.cached_tokens > 50  # read as it was written


def test_responses_of_an_asynchronous_client(site: Site) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="sesame", max_retries=0) as client:
            whole = await client.responses.create(input=QUESTION, **GREEDY)
            async with client.responses.stream(input=QUESTION, **GREEDY) as stream:
                return [whole.output_text, (await stream.get_final_response()).output_text]

    first, second = asyncio.run(ask())
    assert first == second != ""


def test_limits_and_refusals_of_responses(client: Any, site: Site) -> None:
    cut = client.responses.create(input=QUESTION, max_output_tokens=8, **GREEDY)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(input=QUESTION, previous_response_id=cut.id, **GREEDY)
    assert (refused.value.param, refused.value.type) == ("previous_response_id", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as typed:
        client.responses.create(input=QUESTION, tools=[{"type": "web_search"}], **GREEDY)
    assert typed.value.param == "tools"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(input=QUESTION, model="gpt-5")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(cut.id)
    with pytest.raises(openai.AuthenticationError), openai.OpenAI(base_url=f"{site.url}/v1", api_key="x") as stranger:
        stranger.responses.create(input=QUESTION, **GREEDY)


def test_a_response_whose_generation_fails(client: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.service, "failed", lambda _: server_error("the generation failed", code="generation_failed"))
    last = list(client.responses.create(input=QUESTION, stream=True, **GREEDY))[-1]
    assert (last.type, last.response.status, last.response.error.code) == ("response.failed", "failed", "server_error")
    with pytest.raises(openai.InternalServerError):
        client.responses.create(input=QUESTION, **GREEDY)
