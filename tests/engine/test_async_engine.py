"""The asynchronous engine: its events are those of the synchronous one, and every request comes to an end."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import Event, FinishEvent, ForkEvent, Request, TokenEvent
from multiverse.engine.async_engine import AsyncEngine
from multiverse.engine.event_stream import EventStream
from multiverse.engine.sampler import Sampler
from multiverse.errors import EngineError, RequestError
from tests.engine.steering import PolicySampler, always_fork, prompt_ids

T = TypeVar("T")
SHORT = SamplingParams(temperature=0, max_tokens=12, max_depth=0)
LONG = SamplingParams(temperature=0, max_tokens=1500, max_depth=0, ignore_eos=True)
PROMPTS = [f"{i} is the number" for i in range(50)]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(main, 60))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "multiverse-engine"] == []


def test_scores_are_those_of_the_synchronous_engine(llm: LLM) -> None:
    ids = prompt_ids(llm, "How many are there in all?")

    async def main() -> tuple[tuple[float | None, ...], Generation]:
        async with AsyncEngine(llm.engine) as engine:
            scored, generation, _ = await asyncio.gather(
                engine.score(ids), engine.generate(prompt_ids(llm, "Q"), SHORT), engine.score(ids[:3])
            )
            with pytest.raises(RequestError):
                await engine.score([])
            return scored, generation

    scored, generation = run(main())
    assert generation.finish_reason in ("stop", "length")
    (expected,) = llm.score([ids])
    assert scored[0] is None
    assert len(scored) == len(ids)
    assert scored[1:] == pytest.approx(expected.logprobs[1:], abs=1e-5)
    llm.engine.check_integrity()


@pytest.fixture
def wordy(llm: LLM) -> LLM:
    """One that writes the same word for ever, so that a long request is long."""
    assert llm.engine.tokens is not None
    word = llm.engine.tokens.encode("w")[0]
    llm.engine.sampler = PolicySampler(lambda _request, _branch: word)
    return llm


@pytest.fixture
def aborted(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the requests that were aborted before they were over."""
    ids: list[int] = []
    abort = llm.engine.abort

    def noted(request: Request) -> None:
        if request.finish_reason is None:
            ids.append(request.id)
        abort(request)

    monkeypatch.setattr(llm.engine, "abort", noted)
    return ids


def untimed(generation: Generation) -> Generation:
    """A generation without times."""
    return replace(generation, usage=replace(generation.usage, seconds=0.0))


def timeless(events: list[Event]) -> list[Event]:
    return [FinishEvent(untimed(event.generation)) if isinstance(event, FinishEvent) else event for event in events]


def idle(aio: AsyncEngine) -> bool:
    """No request is in the engine."""
    scheduler = aio.engine.scheduler
    return not (aio.busy or aio.engine.busy or scheduler.running or scheduler.waiting or aio.running or aio.waiting)


async def becomes_idle(aio: AsyncEngine) -> None:
    async with asyncio.timeout(20):
        while not idle(aio):
            await asyncio.sleep(0.001)


async def exhaust(stream: EventStream) -> None:
    """Listen to the end, or to the error that comes after the events."""
    async for _, event in stream:
        assert isinstance(event, TokenEvent | FinishEvent)


async def ending(aio: AsyncEngine, prompt: list[int], params: SamplingParams) -> str:
    """How a request ends, for those who listen."""
    events = [event async for _, event in aio.stream(prompt, params)]
    assert isinstance(events[-1], FinishEvent)
    return events[-1].generation.finish_reason


@pytest.mark.parametrize("forks", [False, True])
def test_a_stream_has_the_events_of_the_synchronous_engine(llm: LLM, forks: bool) -> None:
    engine = llm.engine
    assert engine.tokens is not None
    if forks:
        engine.sampler = PolicySampler(always_fork(engine.tokens, 2, int(llm.tokenizer.eos_token_id)))
    params = SamplingParams(temperature=0, max_tokens=300, max_depth=2, max_branches=6, logprobs=True)
    prompt = prompt_ids(llm, "Q")
    expected = list(llm.stream(prompt, params))
    assert any(isinstance(event, ForkEvent) for event in expected) == forks

    async def main() -> tuple[list[Event], Generation]:
        async with AsyncEngine(engine) as aio:
            return [event async for _, event in aio.stream(prompt, params)], await aio.generate(prompt, params)

    events, generation = run(main())
    # On the wire and in the result alike, only the clock differs; log-probabilities to rounding, as the batch was the same.
    assert timeless(events) == timeless(expected)
    assert isinstance(expected[-1], FinishEvent)
    assert untimed(generation) == untimed(expected[-1].generation)


def test_samples_of_one_prompt_are_those_of_n(llm: LLM) -> None:
    prompt, params = prompt_ids(llm, "Q"), SamplingParams(temperature=1.0, top_p=1.0, seed=3, max_tokens=20)
    expected = [generation.token_ids for generation in llm.generate([prompt], replace(params, n=3))]
    assert len(set(expected)) == 3

    async def main() -> list[tuple[int, ...]]:
        async with AsyncEngine(llm.engine) as aio:
            events = [item async for item in aio.stream(prompt, replace(params, n=3))]
        finishes = {index: event for index, event in events if isinstance(event, FinishEvent)}
        return [finishes[index].generation.token_ids for index in range(3)]

    assert run(main()) == expected


def test_samples_of_several_prompts_are_numbered_through(llm: LLM) -> None:
    prompts = [prompt_ids(llm, text) for text in ("first one", "second")]
    params = SamplingParams(temperature=1.0, top_p=1.0, seed=3, max_tokens=10, n=2)
    expected = [generation.token_ids for generation in llm.generate(prompts, params)]

    async def main() -> dict[int, Generation]:
        async with AsyncEngine(llm.engine) as aio:
            items = [item async for item in aio.stream(prompts, params)]
            with pytest.raises(RequestError, match="use stream"):
                await aio.generate(prompts[0], params)
        return {index: event.generation for index, event in items if isinstance(event, FinishEvent)}

    finished = run(main())
    assert [finished[index].token_ids for index in range(4)] == expected
    # The second sample of a prompt finds it in the prefix cache.
    assert [finished[index].usage.cached_tokens for index in (1, 3)] == [len(prompt) - 1 for prompt in prompts]


def test_one_refused_prompt_refuses_the_request(llm: LLM, aborted: list[int]) -> None:
    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            stream = aio.stream([prompt_ids(llm, "Q"), []], LONG)
            with pytest.raises(RequestError, match="the prompt is empty"):
                await stream.accepted()
            assert isinstance(stream.error, RequestError)
            assert len(aborted) == 1
            assert idle(aio)

    run(main())


def test_batches_hold_what_has_arrived_and_are_empty_after_a_while_without_events(llm: LLM) -> None:
    prompt, seen = prompt_ids(llm, "Q"), []
    expected = timeless(list(llm.stream(prompt, SHORT)))

    async def main() -> list[list[tuple[int, Event]]]:
        async with AsyncEngine(llm.engine) as aio:
            stream = aio.stream(prompt, SHORT, observe=lambda index, event: seen.append((index, event)))
            batches = [batch async for batch in stream.batches(timeout=1e-6)]
            late = aio.stream(prompt, SHORT)
            while aio.busy:
                time.sleep(0.001)  # a loop that stands still, and finds all of it at once
            await late.accepted()
            assert [len(batch) async for batch in late.batches()] == [len(expected)]
        return batches

    batches = run(main())
    assert [] in batches
    items = [item for batch in batches for item in batch]
    assert timeless([event for _, event in items]) == expected
    assert seen == items
    assert {index for index, _ in items} == {0}


def test_fifty_at_once_write_what_each_writes_alone(llm: LLM) -> None:
    prompts = [prompt_ids(llm, text) for text in PROMPTS]
    alone = [llm.generate([prompt], SHORT)[0].text for prompt in prompts]

    async def main() -> list[str]:
        async with AsyncEngine(llm.engine) as aio:
            generations = await asyncio.gather(*(aio.generate(prompt, SHORT) for prompt in prompts))
            assert idle(aio)
            return [generation.text for generation in generations]

    assert run(main()) == alone


def test_cancelling_a_task_aborts_its_own_request_only(llm: LLM, aborted: list[int]) -> None:
    prompt = prompt_ids(llm, "Q")
    (alone,) = llm.generate([prompt], SHORT)

    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            began = asyncio.Event()

            async def listen() -> None:
                async for _ in aio.stream(prompt, LONG):
                    began.set()

            listener, waiter = asyncio.create_task(listen()), asyncio.create_task(aio.generate(prompt, LONG))
            await began.wait()
            other = asyncio.create_task(aio.generate(prompt, SHORT))
            for task in (listener, waiter):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await other).text == alone.text
            await becomes_idle(aio)
            assert len(aborted) == 2

    run(main())


def test_leaving_a_stream_aborts_its_request(wordy: LLM, aborted: list[int]) -> None:
    prompt = prompt_ids(wordy, "Q")

    async def main() -> None:
        async with AsyncEngine(wordy.engine) as aio:
            async for _, event in aio.stream(prompt, LONG):
                assert isinstance(event, TokenEvent)
                break
            await becomes_idle(aio)

            async with aclosing(aio.stream(prompt, LONG)) as events:
                await anext(events)
            await becomes_idle(aio)
            assert [event async for _, event in events] == []

            async with aio.stream(prompt, LONG) as events:
                assert aio.busy
            await becomes_idle(aio)

            async def stumble() -> None:
                async for _ in aio.stream(prompt, LONG):
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await stumble()
            await becomes_idle(aio)

            aio.stream(prompt, LONG)  # dropped before anybody looked
            await becomes_idle(aio)

            held = aio.stream(prompt, LONG)
            second = asyncio.create_task(anext(aiter(held)))
            await asyncio.sleep(0)
            await held.aclose()
            with pytest.raises(StopAsyncIteration):
                await second
            await becomes_idle(aio)
            assert len(aborted) == len(set(aborted)) == 6

            # What is over is not aborted, whether it was listened to or not.
            over = aio.stream(prompt, SHORT)
            await aio.drain()
            assert len([event async for _, event in over]) == 13
            await over.aclose()
            assert len(aborted) == 6

    run(main())


def test_a_closed_stream_has_no_more_events(wordy: LLM, aborted: list[int]) -> None:
    prompt = prompt_ids(wordy, "Q")

    async def main() -> None:
        async with AsyncEngine(wordy.engine) as aio:
            closed = aio.stream(prompt, LONG)
            await anext(closed)
            time.sleep(0.02)  # more events are on their way
            await closed.aclose()
            await asyncio.sleep(0)
            assert [event async for _, event in closed] == []

            unopened = aio.stream(prompt, LONG)
            await unopened.aclose()
            async with unopened:
                assert [event async for _, event in unopened] == []

            cancelled = aio.stream(prompt, LONG)
            task = asyncio.create_task(exhaust(cancelled))
            await asyncio.sleep(0)
            task.cancel()
            await becomes_idle(aio)  # although somebody still holds the stream
            assert [event async for _, event in cancelled] == []
            assert len(aborted) == 3

    run(main())


def test_a_task_that_is_cancelled_between_events_aborts(wordy: LLM, aborted: list[int]) -> None:
    async def main() -> None:
        async with AsyncEngine(wordy.engine) as aio:
            began = asyncio.Event()

            async def dawdle() -> None:
                async for _ in aio.stream(prompt_ids(wordy, "Q"), LONG):
                    began.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(dawdle())
            await began.wait()
            task.cancel()
            await becomes_idle(aio)  # although nobody has asked the task yet how it ended
            assert len(aborted) == 1
            await asyncio.wait([task])

    run(main())


def test_a_slow_consumer_delays_no_other_and_misses_nothing(llm: LLM) -> None:
    prompt = prompt_ids(llm, "Q")
    expected = timeless(list(llm.stream(prompt, SHORT)))

    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            slow = aio.stream(prompt, SHORT)
            _, first = await anext(slow)
            for _ in range(3):
                assert timeless([event async for _, event in aio.stream(prompt, SHORT)]) == expected
            time.sleep(0.02)  # a loop that stands still
            await aio.drain()
            assert idle(aio)
            assert timeless([first, *[event async for _, event in slow]]) == expected

    run(main())


def test_bad_input_is_raised_before_any_event_and_for_its_sender_only(llm: LLM) -> None:
    engine = llm.engine
    assert engine.tokens is not None
    good = prompt_ids(llm, "Q")
    bad: list[tuple[Any, SamplingParams, str]] = [
        ([], SHORT, "empty"),
        (good * 5000, SHORT, "shorten the prompt"),
        (good, SamplingParams(max_tokens=10**6), "lower max_tokens"),
        ([10**6], SHORT, "no token id"),
        ([-1], SHORT, "no token id"),
        ("text", SHORT, "no token id"),
        ([engine.tokens.fork_tag], SHORT, "prompt"),
    ]
    (alone,) = llm.generate([good], SHORT)

    async def main() -> None:
        async with AsyncEngine(engine) as aio:
            other = asyncio.create_task(aio.generate(good, SHORT))
            for prompt, params, message in bad:
                with pytest.raises(RequestError, match=message):
                    await aio.generate(prompt, params)
                stream = aio.stream(prompt, params)
                with pytest.raises(RequestError, match=message):
                    await anext(stream)
                assert [event async for _, event in stream] == []
                with pytest.raises(RequestError, match=message):
                    async with aio.stream(prompt, params):
                        pytest.fail("a bad request was accepted")
            with pytest.raises(AttributeError):  # a slip that the engine has no words for is the sender's all the same
                await aio.generate(good, {"temperature": 0})  # type: ignore[arg-type]
            assert (await other).text == alone.text
            assert idle(aio)

    run(main())


def test_defaults(llm: LLM) -> None:
    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio, aio.stream(prompt_ids(llm, "Q")) as events:
            assert isinstance((await anext(events))[1], TokenEvent)

    run(main())


def test_a_failed_step_ends_the_requests_in_the_engine_and_no_later_one(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = llm.engine
    good, short, failing = engine.backend.run, prompt_ids(llm, "Q"), threading.Event()
    (alone,) = llm.generate([short], SHORT)
    assert engine.tokens is not None
    word = engine.tokens.encode("w")[0]

    def forward(batch: Any) -> Any:
        if failing.is_set():
            raise RuntimeError("out of memory, say")
        return good(batch)

    monkeypatch.setattr(engine.backend, "run", forward)
    monkeypatch.setattr(engine.scheduler, "max_requests", 2)  # so that some of them wait
    engine.sampler = PolicySampler(lambda _request, _branch: word)

    async def main() -> None:
        async with AsyncEngine(engine) as aio:
            for _ in range(2):  # it may happen again
                listener = aio.stream(short, LONG)
                await anext(listener)
                others = [asyncio.create_task(aio.generate(short, LONG)) for _ in range(3)]
                while aio.waiting + aio.running < 4:
                    await asyncio.sleep(0.001)
                failing.set()
                errors = await asyncio.gather(*others, return_exceptions=True)
                failing.clear()
                with pytest.raises(EngineError, match="out of memory, say") as caught:
                    await exhaust(listener)
                assert [event async for _, event in listener] == []
                for error in [*errors, caught.value]:
                    assert type(error) is EngineError
                    assert isinstance(error.__cause__, RuntimeError)
                assert len({id(error) for error in [*errors, caught.value]}) == 4
                assert idle(aio)
            engine.sampler = Sampler()
            # The very prompt that was lost is read anew, and nothing of the failed forward is in the way.
            assert (await aio.generate(short, SHORT)).text == alone.text

    run(main())


def test_events_before_a_failure_are_given_out_before_it(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, forwards = llm.engine.backend.run, iter(range(3))

    def fails_in_the_end(batch: Any) -> Any:
        next(forwards)
        return forward(batch)

    monkeypatch.setattr(llm.engine.backend, "run", fails_in_the_end)

    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            stream = aio.stream(prompt_ids(llm, "Q"), LONG)
            while aio.busy:
                time.sleep(0.001)  # a loop that stands still, and finds all of it at once
            async with stream:
                assert [type((await anext(stream))[1]) for _ in range(3)] == [TokenEvent] * 3
                with pytest.raises(EngineError, match="StopIteration"):
                    await anext(stream)

    run(main())


def test_an_error_that_is_kept_keeps_nothing_of_the_failed_forward(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    class Activations:
        pass

    kept: list[weakref.ref[Activations]] = []

    def forward(_batch: Any) -> None:
        activations = Activations()
        kept.append(weakref.ref(activations))
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(llm.engine.backend, "run", forward)

    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            with pytest.raises(EngineError) as caught:
                await aio.generate(prompt_ids(llm, "Q"), SHORT)
            assert caught.value.__cause__ is not None
            assert [reference() for reference in kept] == [None]

    run(main())


def test_a_request_that_finished_in_a_failed_step_does_not_come_back(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prompt = llm.engine, prompt_ids(llm, "Q")
    (alone,) = llm.generate([prompt], SHORT)
    retire, failures = engine.scheduler.finish, [RuntimeError("once"), RuntimeError("twice")]

    def fails_at_first(request: Any) -> None:
        if failures and request.finish_reason == "length":
            raise failures.pop()
        retire(request)

    monkeypatch.setattr(engine.scheduler, "finish", fails_at_first)

    async def main() -> None:
        async with AsyncEngine(engine) as aio:
            for _ in range(2):
                lost = [aio.generate(prompt, SHORT), aio.generate(prompt, replace(SHORT, max_tokens=40))]
                for error in await asyncio.gather(*lost, return_exceptions=True):
                    assert isinstance(error, EngineError), error
                assert idle(aio)
            assert (await aio.generate(prompt, SHORT)).text == alone.text

    run(main())


def test_nothing_of_a_failed_forward_is_used_again(
    llm: LLM, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = prompt_ids(llm, "a prompt that nobody has read so far")
    (expected,) = llm.generate([prompt], SHORT)
    engine = LLM(model_folders["qwen3"], kv_memory=4 << 20).engine  # which has not read it either

    def fail(_batch: Any) -> None:
        raise RuntimeError("broken")

    async def main() -> None:
        async with AsyncEngine(engine) as aio:
            with monkeypatch.context() as patch:
                patch.setattr(engine.backend, "run", fail)
                with pytest.raises(EngineError, match="broken"):
                    await aio.generate(prompt, SHORT)
            assert (await aio.generate(prompt, SHORT)).text == expected.text

    run(main())


def test_a_request_that_cannot_be_taken_out_does_not_come_back(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(model_folders["qwen3"], kv_memory=4 << 20)  # of its own, since slots are lost for good
    engine, prompt = llm.engine, prompt_ids(llm, "Q")
    (alone,) = llm.generate([prompt], SHORT)
    left: list[Any] = []

    def broken(*_: Any) -> None:
        left.extend(engine.scheduler.running)
        raise RuntimeError("broken")

    async def main() -> None:
        async with AsyncEngine(engine) as aio:
            with monkeypatch.context() as patch:
                running = aio.stream(prompt, LONG)
                await anext(running)
                patch.setattr(engine.scheduler, "max_requests", 1)
                waiting = aio.stream(prompt, LONG)
                async with waiting:
                    patch.setattr(engine.scheduler, "finish", broken)
                    patch.setattr(engine, "step", broken)
                    for stream in (running, waiting):
                        with pytest.raises(EngineError, match="broken"):
                            await exhaust(stream)
                assert len(left) > 0
                assert idle(aio)
            with monkeypatch.context() as patch:
                # Leaving is as hard when nothing can be aborted; the engine counts as failed then, and goes on.
                patch.setattr(engine, "abort", broken)
                patch.setattr(engine, "step", lambda: [])
                async with aio.stream(prompt, LONG):
                    other = asyncio.create_task(aio.generate(prompt, SHORT))
                    await asyncio.sleep(0.01)
                with pytest.raises(EngineError, match="broken"):
                    await other
                assert idle(aio)
            assert (await aio.generate(prompt, SHORT)).text == alone.text

    run(main())


def test_a_result_that_cannot_be_made_is_its_own_request_s_failure(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = llm.engine
    one, two = prompt_ids(llm, "one"), prompt_ids(llm, "two")
    drain = engine.drain

    def picky(request: Any) -> list[Event]:
        if request.prompt == one:
            raise ValueError("no words for it")
        return drain(request)

    monkeypatch.setattr(engine, "drain", picky)

    async def main() -> None:
        async with AsyncEngine(engine) as aio:
            bad = [asyncio.create_task(ending(aio, one, LONG)), asyncio.create_task(aio.generate(one, SHORT))]
            good = asyncio.create_task(ending(aio, two, SHORT))
            for error in await asyncio.gather(*bad, return_exceptions=True):
                assert isinstance(error, EngineError)
                assert "no words" in str(error)
            assert await good != "abort"
            await becomes_idle(aio)

    run(main())


def test_drain_lets_the_running_ones_finish_and_takes_no_new_ones(wordy: LLM) -> None:
    prompt = prompt_ids(wordy, "Q")

    async def main() -> None:
        async with AsyncEngine(wordy.engine) as aio:
            tasks = [asyncio.create_task(aio.generate(prompt, replace(SHORT, max_tokens=n))) for n in (30, 60, 90)]
            stream = aio.stream(prompt, SHORT)
            await anext(stream)
            assert aio.busy
            assert aio.running + aio.waiting >= 3
            impatient = asyncio.create_task(aio.drain())
            drains = [asyncio.create_task(aio.drain()) for _ in range(2)]
            await asyncio.sleep(0)
            impatient.cancel()
            with pytest.raises(RequestError, match="draining"):
                aio.stream(prompt, SHORT)
            with pytest.raises(RequestError, match="draining"):
                await aio.generate(prompt, SHORT)
            await asyncio.gather(*drains)
            assert idle(aio)
            assert [(await task).usage.total_tokens for task in tasks] == [30, 60, 90]
            *_, last = [event async for _, event in stream]
            assert isinstance(last, FinishEvent)
            assert last.generation.finish_reason == "length"
            with suppress(asyncio.CancelledError):
                await impatient
            await aio.drain()
        await aio.drain()
        with pytest.raises(RequestError, match="closed"):
            aio.stream(prompt, SHORT)

    run(main())


def test_an_idle_engine_is_drained_at_once(llm: LLM) -> None:
    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            await aio.drain()

    run(main())


def test_closing_ends_every_stream(wordy: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = prompt_ids(wordy, "Q")
    monkeypatch.setattr(wordy.engine.scheduler, "max_requests", 2)

    async def main() -> None:
        aio = AsyncEngine(wordy.engine)
        listeners = [asyncio.create_task(ending(aio, prompt, LONG)) for _ in range(3)]
        waiters = [asyncio.create_task(aio.generate(prompt, LONG)) for _ in range(3)]
        drain = asyncio.create_task(aio.drain())
        slow = aio.stream(prompt, LONG)
        await anext(slow)
        await asyncio.gather(aio.aclose(), aio.aclose())
        assert idle(aio)
        assert await asyncio.gather(*listeners) == ["abort"] * 3
        assert [generation.finish_reason for generation in await asyncio.gather(*waiters)] == ["abort"] * 3
        *_, last = [event async for _, event in slow]
        assert isinstance(last, FinishEvent)
        assert last.generation.finish_reason == "abort"
        await drain
        await aio.aclose()
        for late in (aio.generate(prompt, SHORT), ending(aio, prompt, SHORT)):
            with pytest.raises(RequestError, match="closed"):
                await late

    run(main())


def test_requests_that_were_just_sent_are_answered_too(llm: LLM) -> None:
    async def main() -> None:
        for _ in range(10):
            async with AsyncEngine(llm.engine) as aio:
                streams = [aio.stream(prompt_ids(llm, "Q"), LONG) for _ in range(5)]
            for stream in streams:
                *_, last = [event async for _, event in stream]
                assert isinstance(last, FinishEvent)
                assert last.generation.finish_reason == "abort"

    run(main())


def test_an_engine_without_requests(llm: LLM) -> None:
    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            assert idle(aio)

    run(main())
    AsyncEngine(llm.engine)


def test_a_thread_that_dies_ends_every_stream(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        pass

    def die() -> None:
        raise Death

    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr(llm.engine, "step", die)

    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            tasks = [asyncio.create_task(aio.generate(prompt_ids(llm, "Q"), SHORT)) for _ in range(3)]
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(ended, RequestError) or (isinstance(ended, Generation) and ended.finish_reason == "abort")
            await aio.drain()
            with pytest.raises(RequestError, match="closed"):
                aio.stream(prompt_ids(llm, "Q"), SHORT)

    run(main())
    assert [args.exc_type for args in seen] == [Death]


def test_an_interrupt_leaves_no_thread(wordy: LLM) -> None:
    async def main() -> None:
        async with AsyncEngine(wordy.engine) as aio:
            events = aio.stream(prompt_ids(wordy, "Q"), LONG)
            await anext(events)
            signal.raise_signal(signal.SIGINT)
            await exhaust(events)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have them ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGINT, handler)


def test_two_loops_in_two_threads(llm: LLM) -> None:
    prompts = [prompt_ids(llm, text) for text in PROMPTS[:12]]
    alone = [generation.text for generation in llm.generate(prompts, SHORT)]
    aio = AsyncEngine(llm.engine)
    results: dict[int, list[str]] = {}

    async def several(mine: list[list[int]]) -> list[str]:
        async def one(prompt: list[int]) -> str:
            *_, last = [event async for _, event in aio.stream(prompt, SHORT)]
            assert isinstance(last, FinishEvent)
            return last.generation.text

        return await asyncio.gather(*(one(prompt) for prompt in mine))

    def work(number: int) -> None:
        results[number] = run(several(prompts[number::2]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(aio.aclose())
    assert [results[0], results[1]] == [alone[0::2], alone[1::2]]


def test_a_stream_stays_on_its_loop(wordy: LLM) -> None:
    async def main() -> None:
        async with AsyncEngine(wordy.engine) as aio:
            stream = aio.stream(prompt_ids(wordy, "Q"), LONG)
            with pytest.raises(RuntimeError, match="event loop on which it was made"):
                await asyncio.to_thread(lambda: run(exhaust(stream)))
            assert isinstance((await anext(stream))[1], TokenEvent)

    run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncEngine(wordy.engine).stream([1], SHORT)


def test_a_loop_that_was_closed_is_forgotten(wordy: LLM, aborted: list[int]) -> None:
    aio, prompt = AsyncEngine(wordy.engine), prompt_ids(wordy, "Q")
    gone = asyncio.new_event_loop()

    async def start() -> list[Any]:
        streams = [aio.stream(prompt, LONG), aio.stream(prompt, LONG)]
        await anext(streams[0])
        return streams

    kept = gone.run_until_complete(start())
    gone.close()

    async def main() -> None:
        assert (await aio.generate(prompt, SHORT)).finish_reason == "length"
        await becomes_idle(aio)
        assert len(aborted) == 2
        await aio.aclose()

    run(main())
    del kept
    gc.collect()


def test_a_loop_that_is_closed_while_the_engine_closes(wordy: LLM) -> None:
    aio = AsyncEngine(wordy.engine)
    gone = asyncio.new_event_loop()

    async def start() -> Any:
        return aio.stream(prompt_ids(wordy, "Q"), LONG)

    kept = gone.run_until_complete(start())
    gone.close()
    run(aio.aclose())
    del kept


def test_every_loop_is_woken_once_a_step(wordy: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = wordy.engine
    step, steps, calls = engine.step, [0], [0]

    def counted() -> Any:
        steps[0] += 1
        return step()

    monkeypatch.setattr(engine, "step", counted)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counting(*args: Any, **more: Any) -> Any:
            calls[0] += threading.current_thread().name == "multiverse-engine"
            return wake(*args, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        async with AsyncEngine(engine) as aio:
            streams = [aio.stream(prompt_ids(wordy, "Q"), replace(SHORT, max_tokens=50)) for _ in range(8)]
            for stream in streams:
                assert len([event async for _, event in stream]) == 51
            assert 50 <= calls[0] <= steps[0] + 8
            idle_from = steps[0]
            worked = time.process_time()
            await asyncio.sleep(0.2)
            assert steps[0] == idle_from  # with nothing to do it sleeps
            assert time.process_time() - worked < 0.1

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_tasks_do_the_engine_ends_up_idle(llm: LLM, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    prompts = [prompt_ids(llm, text) for text in PROMPTS[:6]]
    params = [replace(SHORT, max_tokens=n, ignore_eos=True) for n in (1, 7, 20)]
    alone = {(i, j): llm.generate([p], q)[0].text for i, p in enumerate(prompts) for j, q in enumerate(params)}
    dice = random.Random(seed)
    monkeypatch.setattr(llm.engine.scheduler, "max_requests", 5)
    monkeypatch.setattr(llm.engine.scheduler, "max_batch_tokens", 16)
    finished = 0

    async def visit(aio: AsyncEngine, way: str, patience: int) -> None:
        nonlocal finished
        i, j = dice.randrange(len(prompts)), dice.randrange(len(params))
        match way:
            case "generate":
                assert (await aio.generate(prompts[i], params[j])).text == alone[i, j]
                finished += 1
            case "listen":
                *_, last = [event async for _, event in aio.stream(prompts[i], params[j])]
                assert isinstance(last, FinishEvent)
                assert last.generation.text == alone[i, j]
                finished += 1
            case "leave":
                async for _ in aio.stream(prompts[i], params[j]):
                    patience -= 1
                    if patience < 0:
                        break
            case "drop":
                aio.stream(prompts[i], params[j])
            case "bad":
                with pytest.raises(RequestError):
                    await aio.generate([], params[j])
            case "cancel":
                task = asyncio.create_task(aio.generate(prompts[i], params[j]))
                await asyncio.sleep(0.0005 * patience)
                task.cancel()
                await asyncio.wait([task])

    async def main() -> None:
        async with AsyncEngine(llm.engine) as aio:
            tasks = []
            for _ in range(60):
                way = dice.choice(["generate", "listen", "leave", "drop", "bad", "cancel"])
                tasks.append(asyncio.create_task(visit(aio, way, dice.randrange(12))))
                if dice.random() < 0.5:
                    await asyncio.sleep(0.001 * dice.random())
            await asyncio.gather(*tasks)
            await becomes_idle(aio)
            llm.engine.slots.check_integrity()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns far more often, so that what can cross does
    try:
        run(main())
    finally:
        sys.setswitchinterval(interval)
    assert finished > 5
