"""What goes wrong on the way: one clear error or a right retry, no text twice, and nothing left running on the server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from multiverse import AsyncLLM, Generation, SamplingParams
from multiverse.errors import EngineError, RequestError, UpstreamError
from multiverse.structure import Document, render
from tests.engine.steering import two_paths
from tests.stock.conftest import PROMPT, Serve
from tests.stock.loopback import Fault, Plan

GREEDY = SamplingParams(temperature=0, max_tokens=2000)
LONG = Document((), "x" * 600)
MIDDLE = [Fault(kind, after=2) for kind in ("drop", "end", "error", "garbage")]  # type: ignore[arg-type]


def once(fault: Fault, number: int) -> Plan:
    """This goes wrong with one request, the first being 0."""
    return lambda at, _: fault if at == number else None


@pytest.mark.parametrize("fault", [*MIDDLE, Fault("empty"), Fault("status", status=503)], ids=lambda fault: fault.kind)
@pytest.mark.parametrize("by_text", [False, True], ids=["ids", "text"])
@pytest.mark.parametrize("number", [0, 1, 3], ids=["trunk", "path", "conclusion"])
def test_a_request_that_breaks_off_goes_on_where_it_was(serve: Serve, fault: Fault, by_text: bool, number: int) -> None:
    llm, up = serve(two_paths(), by_text=by_text, plan=once(fault, number))
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.text == render(two_paths())
    assert up.ended[fault.kind] == 1
    again = [context for context in up.contexts[number + 1 :] if context[: len(up.contexts[number])] == up.contexts[number]]
    assert len(again[0]) == len(up.contexts[number]) + fault.after
    up.settled()


def test_a_server_that_says_nothing_is_asked_again(serve: Serve) -> None:
    llm, up = serve(two_paths(), plan=once(Fault("stall", after=3), 2), stall_timeout=0.2)
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.text == render(two_paths())
    assert up.ended["left"] == 1
    up.settled()


def test_retry_after_is_honoured_and_fewer_requests_are_sent(serve: Serve) -> None:
    fault = Fault("status", status=429, headers=(("retry-after", "0.3"),))
    llm, up = serve(two_paths(), plan=once(fault, 1), concurrency=8)
    began = time.monotonic()
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.text == render(two_paths())
    assert time.monotonic() - began >= 0.3
    up.settled()


def failing(fault: Fault, start: str, tokenizer: Any) -> Plan:
    """It goes wrong with every request whose prompt begins so, once it has forked."""
    ids = tokenizer.encode(start)
    return lambda _, body: fault if body["prompt"][: len(ids)] == ids and len(body["prompt"]) > 60 else None


@pytest.mark.parametrize("fault", [Fault("drop", after=0), Fault("status", status=500), Fault("status", status=400)], ids=str)
def test_what_fails_for_good_is_one_error_and_touches_no_other(serve: Serve, tokenizer: Any, fault: Fault) -> None:
    llm, up = serve(two_paths(), tries=3)
    bad = PROMPT.replace("Q", "B")
    up.plan = failing(fault, "B", tokenizer)
    found: dict[int, Generation] = {}
    with pytest.raises(UpstreamError, match=r"^prompt 1 failed") as caught:
        llm.generate([PROMPT, bad, PROMPT], GREEDY, on_finish=found.__setitem__)
    assert {at: out.text for at, out in found.items()} == {0: render(two_paths()), 2: render(two_paths())}
    assert isinstance(caught.value, EngineError)
    if fault.status == 400:
        assert caught.value.status == 400
        assert up.ended["status"] <= 2  # both paths, at most: not sent again
    else:
        assert "failed 3 times on the same request" in str(caught.value)
    up.settled()


def test_a_server_that_is_gone_is_one_error(serve: Serve) -> None:
    llm, up = serve(LONG, pause=0.002, tries=2)
    events = llm.stream(PROMPT, GREEDY)
    for _ in range(5):
        next(events)
    up.plan = lambda _number, _body: Fault("drop")
    up.break_off()
    with pytest.raises(UpstreamError, match="failed 2 times on the same request, last with: the connection broke"):
        list(events)
    up.settled()


def test_closing_a_stream_ends_what_runs_upstream(serve: Serve) -> None:
    llm, up = serve(LONG, pause=0.002)
    events = llm.stream(PROMPT, GREEDY)
    for _ in range(5):
        next(events)
    assert up.open == 1
    events.close()  # type: ignore[attr-defined]
    up.settled()
    assert up.ended["left"] == 1


def test_an_interrupt_ends_what_runs_upstream(serve: Serve) -> None:
    llm, up = serve(two_paths(), pause=0.002)

    def interrupt(_: int, __: Generation) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.generate(
            [PROMPT, "Q: another?\n"] * 3, [GREEDY, SamplingParams(temperature=0, max_tokens=900)] * 3, on_finish=interrupt
        )
    up.settled()
    assert llm.generate(PROMPT, GREEDY)[0].finish_reason == "stop"


def test_a_cancelled_call_ends_its_requests_alone(serve: Serve) -> None:
    llm, up = serve(LONG, pause=0.002)

    async def run() -> None:
        async with AsyncLLM(llm) as model:
            gone = asyncio.create_task(model.generate([PROMPT] * 2, GREEDY))
            kept = asyncio.create_task(model.generate(PROMPT, SamplingParams(temperature=0, max_tokens=40)))
            while up.open < 3:
                await asyncio.sleep(0.005)
            gone.cancel()
            (out,) = await kept
            assert out.finish_reason == "length"
            with pytest.raises(asyncio.CancelledError):
                await gone
            await model.engine.drain()

    asyncio.run(run())
    up.settled()
    assert up.ended["left"] >= 2


def test_a_model_that_is_closed_ends_everything(serve: Serve) -> None:
    llm, up = serve(LONG, pause=0.002)
    events = llm.stream(PROMPT, GREEDY)
    next(events)
    llm.close()
    assert [event.generation.finish_reason for event in events if hasattr(event, "generation")] == ["abort"]
    up.settled()
    with pytest.raises(RequestError, match="closed"):
        llm.generate(PROMPT)
    llm.close()
