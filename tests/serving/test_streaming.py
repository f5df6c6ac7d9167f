"""Streams: what ordinary clients put together is the whole answer, and those who watch see every branch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from multiverse.streaming import WireEvent
from multiverse.structure import MULTIVERSE, render
from tests.cli.scripted import NESTED
from tests.serving.conftest import Site, choices, chunks, error_of, joined, serving

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"


@pytest.mark.parametrize("question", ["nested", "wide", "plain"])
@pytest.mark.parametrize("extension", [{}, {"branches": True}], ids=["ordinary", "branches"])
def test_deltas_add_up_to_the_whole_answer(scripted: Site, question: str, extension: dict[str, Any]) -> None:
    whole = scripted.chat(question).json()["choices"][0]
    stream = chunks(scripted.chat(question, stream=True, multiverse=extension))
    message = whole["message"]
    assert joined(stream) == message["content"]
    assert joined(stream, "reasoning") == joined(stream, "reasoning_content") == (message["reasoning"] or "")
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    reasons = [choice["finish_reason"] for choice in choices(stream)]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert choices(stream)[-1]["multiverse"]["answer"] == whole["multiverse"]["answer"]
    assert len({chunk["id"] for chunk in stream}) == 1
    assert {chunk["object"] for chunk in stream} == {"chat.completion.chunk"}


@pytest.mark.parametrize("stops", [["1+2"], ["9.", "am\n1.2"], [". "], "er: 3"])
def test_with_stop_strings_too(scripted: Site, stops: Any) -> None:
    whole = scripted.chat("nested", stop=stops).json()["choices"][0]["message"]
    assert whole["reasoning"] == scripted.chat("nested").json()["choices"][0]["message"]["reasoning"]
    for extension in ({}, {"branches": True}):
        stream = chunks(scripted.chat("nested", stop=stops, stream=True, multiverse=extension))
        assert joined(stream) == whole["content"]
        assert joined(stream, "reasoning") == whole["reasoning"]


def test_with_bounds_and_the_real_model_too(mini: Site) -> None:
    for most in (30, 75, 200):
        message = mini.chat(QUESTION, max_tokens=most).json()["choices"][0]["message"]
        stream = chunks(mini.chat(QUESTION, max_tokens=most, stream=True))
        assert joined(stream) == message["content"]
        assert joined(stream, "reasoning") == (message["reasoning"] or "")


def test_the_first_branch_comes_live_and_siblings_in_order(scripted: Site) -> None:
    stream = chunks(scripted.chat("wide", stream=True))
    written = [choice["delta"].get("reasoning", "") for choice in choices(stream)]
    assert len(written) > 60  # a stream, not one piece at the end
    # The longest branch is the last one; when the first has closed, what its siblings have by then comes at once.
    assert max(len(piece) for piece in written) > 10


def test_usage_comes_last_and_only_on_request(scripted: Site) -> None:
    plain = chunks(scripted.chat("wide", stream=True))
    assert all("usage" not in chunk for chunk in plain)
    for extension in ({}, {"branches": True}):
        options = {"include_usage": True}
        *before, last = chunks(scripted.chat("wide", stream=True, stream_options=options, multiverse=extension))
        assert last["choices"] == []
        assert all(chunk["usage"] is None for chunk in before)
        whole = scripted.chat("wide").json()["usage"]
        for name in ("completion_tokens", "prompt_tokens", "total_tokens", "completion_tokens_details"):
            assert last["usage"][name] == whole[name]
        assert last["usage"]["multiverse"]["critical_path_tokens"] == whole["multiverse"]["critical_path_tokens"]


def test_several_answers_come_mixed_each_under_its_number(mini: Site) -> None:
    fields = {"n": 3, "seed": 5, "temperature": 1.2, "max_tokens": 100}
    whole = mini.chat(QUESTION, **fields).json()["choices"]
    stream = chunks(mini.chat(QUESTION, stream=True, **fields))
    for index in range(3):
        assert joined(stream, "content", index) == whole[index]["message"]["content"]
        assert joined(stream, "reasoning", index) == (whole[index]["message"]["reasoning"] or "")
        assert [choice["finish_reason"] for choice in choices(stream, index)].count(None) == len(choices(stream, index)) - 1
    order = [chunk["choices"][0]["index"] for chunk in stream]
    assert order != sorted(order)


def test_logprobs_come_with_their_text(mini: Site) -> None:
    whole = mini.chat(QUESTION, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]
    stream = chunks(mini.chat(QUESTION, logprobs=True, top_logprobs=2, stream=True))
    for section in ("content", "reasoning"):
        told = [entry for choice in choices(stream) if choice["logprobs"] for entry in choice["logprobs"][section]]
        assert [entry["token"] for entry in told] == [entry["token"] for entry in whole[section]]
        assert [entry["logprob"] for entry in told] == pytest.approx([entry["logprob"] for entry in whole[section]], abs=1e-4)


# -- branches ----------------------------------------------------------------------------------------------------------


def moments_of(stream: list[dict[str, Any]]) -> list[WireEvent]:
    return [WireEvent.from_json(chunk["multiverse"]) for chunk in stream if "multiverse" in chunk]


def test_every_event_is_a_chunk(scripted: Site) -> None:
    stream = chunks(scripted.chat("nested", stream=True, multiverse={"branches": True}))
    moments = moments_of(stream)
    assert len(moments) == len(stream)
    start, finish = moments[0], moments[-1]
    assert (start.event, start.id, start.model) == ("start", stream[0]["id"], "scripted")
    assert finish.event == "finish"
    assert finish.tokens is not None
    assert finish.usage is not None
    assert start.prompt_tokens == finish.usage["prompt_tokens"]
    assert finish.tokens.total == finish.usage["total_tokens"] == sum(moment.event == "token" for moment in moments)
    seconds = [moment.seconds for moment in moments if moment.seconds is not None]
    assert len(seconds) == len(moments)
    assert seconds == sorted(seconds)
    assert [moment.event for moment in moments].count("join") == 3


def test_branches_are_interleaved_and_whole(scripted: Site) -> None:
    moments = moments_of(chunks(scripted.chat("wide", stream=True, multiverse={"branches": True})))
    body = [moment for moment in moments if moment.branch and moment.event == "token"]
    switches = sum(one.branch != two.branch for one, two in pairwise(body))
    assert switches > 20
    for number in range(6):
        own = "".join(moment.text or "" for moment in body if moment.branch == str(number + 1) and moment.role == "text")
        assert own == f" {number} and {'more ' * number}é€.\n"
    outlines = "".join(moment.text or "" for moment in moments if moment.role == "outline")
    assert outlines.split("\n") == [*(f"part {n}" for n in range(6)), ""]
    positions = {moment.position for moment in body if moment.branch == "1"}
    assert positions & {moment.position for moment in body if moment.branch == "2"}


def test_structure_has_its_own_role(scripted: Site) -> None:
    moments = moments_of(chunks(scripted.chat("nested", stream=True, multiverse={"branches": True})))
    for moment in moments:
        if moment.role not in ("structure", None):
            assert not any(tag in (moment.text or "") for tag in MULTIVERSE.tags)
    forced = "".join(moment.text or "" for moment in moments if moment.forced)
    assert MULTIVERSE.path.open in forced
    written = "".join(moment.text or "" for moment in moments if moment.branch == "")
    assert MULTIVERSE.goal.open in written
    assert len(render(NESTED)) == sum(len(moment.text or "") for moment in moments)


# -- errors in the middle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [{}, {"branches": True}], ids=["ordinary", "branches"])
def test_an_error_in_the_middle_has_openais_shape(
    scripted: Site, monkeypatch: pytest.MonkeyPatch, extension: dict[str, Any]
) -> None:
    sampler: Any = scripted.llm.engine.sampler
    monkeypatch.setattr(sampler, "write", lambda _: f"some text {MULTIVERSE.goal.open} text")
    *before, last = chunks(scripted.chat(stream=True, multiverse={"guard": False, **extension}))
    assert joined(before) == f"some text {MULTIVERSE.goal.open}"
    assert set(last) == {"error"}
    assert last["error"]["code"] == "malformed_generation"
    assert all(choice["finish_reason"] is None for choice in choices(before))
    if extension:
        assert moments_of(before)[-1].finish_reason == "malformed"


def test_what_is_refused_is_refused_before_the_stream(scripted: Site) -> None:
    assert error_of(scripted.chat("nested " * 400, stream=True))["code"] == "context_length_exceeded"
    assert error_of(scripted.complete(MULTIVERSE.goal.close, stream=True))["param"] == "prompt"


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_that_passes_while_waiting_is_a_status(mini: Site, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    endless = {"prompt": "3+4=", "max_tokens": 2000, "ignore_eos": True, "stream": True, "multiverse": {"max_depth": 0}}
    monkeypatch.setattr(mini.llm.engine.scheduler, "max_requests", 1)
    with mini.client.stream("POST", "/v1/completions", json=endless) as running:
        assert running.status_code == 200
        lines = running.iter_lines()  # dropping it would end the request
        next(lines)
        monkeypatch.setattr(mini.service, "config", replace(mini.service.config, request_timeout=0.05))
        response = mini.chat(QUESTION, stream=stream)
    assert error_of(response, 503)["code"] == "timeout"
    assert response.headers["retry-after"] == "10"
    assert response.headers["content-type"] == "application/json"


def test_a_quiet_stream_gives_signs_of_life(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse.serving import sse

    monkeypatch.setattr(sse, "PING_SECONDS", 1e-6)
    response = scripted.chat("wide", stream=True)
    assert ": ping\n\n" in response.text
    monkeypatch.undo()
    assert joined(chunks(response)) == scripted.chat("wide").json()["choices"][0]["message"]["content"]


def test_leaving_in_the_middle_gives_everything_back(mini: Site) -> None:
    import httpx

    async def leave() -> None:
        body = {
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
            "n": 3,
            "max_tokens": 2000,
            "ignore_eos": True,
            "multiverse": {"max_depth": 0},
        }
        async with httpx.AsyncClient(base_url=mini.url, timeout=300) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for _ in response.aiter_lines():
                    break
            # Requests are answered in order of their coming, so what was left is over when the server says it is idle.
            for _ in range(2000):
                requests = (await client.get("/get_server_info")).json()["requests"]
                if not requests["admitted"] and not requests["running"]:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(f"somebody is still there: {requests}")

    asyncio.run(leave())
    mini.llm.engine.check_integrity()
    assert mini.llm.engine.slots.owned == 0


def test_too_many_answers_for_the_server(scripted: Site) -> None:
    with serving(scripted.llm, max_concurrent=1, max_queue=1) as site:
        assert error_of(site.chat("plain", n=3))["param"] == "n"
        assert len(site.chat("plain", n=2).json()["choices"]) == 2
