"""`/v1/responses`: items in and out, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from multiverse.serving.errors import server_error
from multiverse.serving.response_schema import ResponseEvent, ResponseObject
from tests.serving.conftest import Site, error_of


def ask(site: Site, given: Any = "nested", **fields: Any) -> httpx.Response:
    return site.client.post("/v1/responses", json={"input": given, "temperature": 0, **fields})


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each named by its type."""
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_reasoning_and_answer_are_items(scripted: Site) -> None:
    body = ask(scripted).json()
    ResponseObject.model_validate(body)
    reasoning, message = body["output"]
    chat = scripted.chat("nested").json()
    assert (reasoning["type"], message["type"]) == ("reasoning", "message")
    assert reasoning["content"] == [{"type": "reasoning_text", "text": chat["choices"][0]["message"]["reasoning"]}]
    assert message["content"][0]["text"] == chat["choices"][0]["message"]["content"] == "Answer: 34"
    assert (body["status"], message["status"]) == ("completed", "completed")
    usage = body["usage"]
    assert usage["output_tokens"] == chat["usage"]["completion_tokens"]
    assert usage["output_tokens_details"] == chat["usage"]["completion_tokens_details"]
    assert usage["multiverse"]["parallelism"] == chat["usage"]["multiverse"]["parallelism"]


def test_an_answer_without_thinking_is_a_message_alone(scripted: Site) -> None:
    (message,) = ask(scripted, "plain").json()["output"]
    assert message["content"][0]["text"] == "No thinking, just text."


@pytest.mark.parametrize("question", ["nested", "wide", "plain"])
def test_events_add_up_to_the_whole(scripted: Site, question: str) -> None:
    whole = ask(scripted, question).json()
    events = events_of(ask(scripted, question, stream=True))
    for event in events:
        ResponseEvent.model_validate(event)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    plain = [[item["type"], item["content"]] for item in whole["output"]]
    assert [[item["type"], item["content"]] for item in events[-1]["response"]["output"]] == plain
    for index, item in enumerate(whole["output"]):
        own = [event for event in events if event.get("output_index") == index]
        kind = "reasoning_text" if item["type"] == "reasoning" else "output_text"
        assert own[0]["type"] == "response.output_item.added"
        assert own[1]["type"] == "response.content_part.added"
        assert [event["type"] for event in own[-3:]] == [
            f"response.{kind}.done",
            "response.content_part.done",
            "response.output_item.done",
        ]
        deltas = [event["delta"] for event in own if event["type"] == f"response.{kind}.delta"]
        assert len(deltas) > 1
        assert "".join(deltas) == own[-3]["text"] == item["content"][0]["text"]


def test_a_conversation_goes_back_as_it_came(scripted: Site) -> None:
    first = ask(scripted).json()
    again = [{"role": "user", "content": "nested"}, *first["output"], {"role": "user", "content": "nested"}]
    second = ask(scripted, again).json()
    assert second["status"] == "completed"
    # The thinking is read as it was generated, and found in the prefix cache.
    assert second["usage"]["input_tokens_details"]["cached_tokens"] >= first["usage"]["total_tokens"] - 2


def test_instructions_come_first(scripted: Site) -> None:
    def tokens(messages: list[dict[str, str]]) -> int:
        return int(scripted.client.post("/tokenize", json={"messages": messages}).json()["count"])

    used = ask(scripted, "plain", instructions="Be brief.").json()["usage"]["input_tokens"]
    assert used == tokens([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "plain"}])
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "pl"}, {"type": "input_text", "text": "ain"}]}]
    assert ask(scripted, parts).json()["usage"]["input_tokens"] == tokens([{"role": "user", "content": "pl\nain"}])


def test_a_limit_makes_it_incomplete(mini: Site) -> None:
    body = ask(mini, "What is 3 plus 4?", max_output_tokens=12).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][-1]["status"] == "incomplete"
    events = events_of(ask(mini, "What is 3 plus 4?", max_output_tokens=12, stream=True))
    assert events[-1]["type"] == "response.incomplete"
    assert [item["content"] for item in events[-1]["response"]["output"]] == [item["content"] for item in body["output"]]
    assert events[-1]["response"]["output"][-1]["status"] == "incomplete"


def test_log_probabilities_of_the_answer(mini: Site) -> None:
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = ask(mini, "What is 3 plus 4?", **fields).json()["output"][-1]["content"][0]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    deltas = [
        e for e in events_of(ask(mini, "What is 3 plus 4?", stream=True, **fields)) if e["type"].endswith("output_text.delta")
    ]
    assert [entry for event in deltas for entry in event["logprobs"]] == part["logprobs"]


def test_json_of_a_schema(mini: Site) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    body = ask(mini, "What is 3 plus 4?", text={"format": form}).json()
    assert json.loads(body["output"][-1]["content"][0]["text"]) in ({"n": 1}, {"n": 2})
    assert body["text"]["format"]["schema"] == schema
    error = error_of(ask(mini, "What?", text={"format": {**form, "schema": {"not": {}}}}))
    assert error["param"] == "text.format"
    assert error["message"].startswith("text.format names a schema")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include.0"),
        ({"n": 2}, "n"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"multiverse": {"branches": True}}, "multiverse.branches"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": ""}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content.0.type"),
        ({"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}]}, "input.0"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
        ({"input": "word " * 5000}, "input"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(scripted: Site, fields: dict[str, Any], param: str) -> None:
    error = error_of(scripted.client.post("/v1/responses", json={"input": "plain", **fields}))
    assert error["param"] == param
    assert "message" in error


def test_what_changes_nothing_is_accepted(scripted: Site) -> None:
    fields: dict[str, Any] = {
        "store": True,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "truncation": "disabled",
        "include": ["reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"effort": None, "summary": "auto"},
        "previous_response_id": None,
        "user": "me",
    }
    body = ask(scripted, "plain", **fields).json()
    assert body["output"][0]["content"] == ask(scripted, "plain").json()["output"][0]["content"]
    assert body["metadata"] == {"a": "b"}


def test_a_failure_in_a_stream_is_an_event(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted.service, "failed", lambda _: server_error("the generation failed", code="generation_failed"))
    events = events_of(ask(scripted, "plain", stream=True))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["status"] == "failed"
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "the generation failed"}
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"
    assert error_of(ask(scripted, "plain"), 500)["code"] == "generation_failed"
