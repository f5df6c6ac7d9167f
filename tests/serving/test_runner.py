"""Who is let in, who waits, until when; and that nobody leaves anything behind, however they go."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import FinishEvent
from multiverse.engine.sampler import Sampler
from multiverse.errors import EngineError, RequestError
from multiverse.serving import logs
from multiverse.serving.errors import ApiError
from multiverse.serving.runner import Runner, Stream
from multiverse.serving.settings import Settings
from tests.cli.scripted import NESTED, Writer
from tests.engine.steering import PolicySampler

T = TypeVar("T")
GREEDY = SamplingParams(temperature=0, max_tokens=1500)
ENDLESS = SamplingParams(temperature=0, max_tokens=1900, max_depth=0, ignore_eos=True)
PROMPT = [100, 101, 102]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(main, 60))


@pytest.fixture(scope="module")
def shared(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["qwen3"], kv_memory=16 << 20)


@pytest.fixture
def llm(shared: LLM) -> Iterator[LLM]:
    """Writes the same word for ever; each test leaves it idle, with every slot returned."""
    assert shared.engine.tokens is not None
    word = shared.engine.tokens.encode("w")[0]
    shared.engine.sampler = PolicySampler(lambda _request, _branch: word)
    yield shared
    assert not shared.engine.busy
    shared.engine.check_integrity()
    assert shared.engine.slots.owned == 0


async def exhaust(stream: Stream) -> Generation:
    async with stream as events:
        *_, finish = [event async for event in events]
    assert isinstance(finish, FinishEvent)
    return finish.generation


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def metric(runner: Runner, name: str, **labels: str) -> float:
    value = runner.metrics.registry.get_sample_value(f"multiverse:{name}", {"model_name": runner.model_name, **labels})
    return 0.0 if value is None else value


def test_a_generation_is_counted(llm: LLM) -> None:
    llm.engine.sampler = Writer(llm, lambda _: NESTED)

    async def main() -> None:
        async with Runner(llm, Settings()) as runner:
            with runner.admit():
                generation = await exhaust(runner.stream(PROMPT, GREEDY))
            usage = generation.usage
            assert generation.finish_reason == "stop"
            assert metric(runner, "forks_total") == metric(runner, "joins_total") == 3
            assert metric(runner, "prompt_tokens_total") == usage.prompt_tokens == len(PROMPT)
            assert metric(runner, "generation_tokens_total") == usage.total_tokens
            assert metric(runner, "critical_path_tokens_total") == usage.critical_path_tokens
            assert metric(runner, "request_success_total", finished_reason="stop") == 1
            assert metric(runner, "parallelism_sum") == pytest.approx(usage.parallelism)
            assert usage.parallelism > 1
            for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
                assert metric(runner, f"{name}_count") == 1
            chosen = sum(not forced for forced in generation.forced)
            # All but the very first one follow something in their branch: a token, the fork, or the join.
            assert metric(runner, "inter_token_latency_seconds_count") == chosen - 1
            assert metric(runner, "branches_running") == metric(runner, "num_requests_running") == 0
            assert metric(runner, "kv_cache_usage_perc") == 0
            assert metric(runner, "prefix_cache_queries_total") == llm.engine.cache.queries > 0
            page = runner.metrics.render().decode()
            assert "process_resident_memory_bytes" in page
            assert 'multiverse:preemptions_total{model_name="' in page

    run(main())


def test_branches_are_counted_while_they_run(llm: LLM) -> None:
    llm.engine.sampler = Writer(llm, lambda _: NESTED)

    async def main() -> list[int]:
        async with Runner(llm, Settings()) as runner:
            seen = []
            async with runner.stream(PROMPT, GREEDY) as events:
                async for _ in events:
                    seen.append(int(metric(runner, "branches_running")))
            return seen

    seen = run(main())
    assert max(seen) == 2  # siblings; whoever forked waits
    assert seen[-1] == 0


def test_those_beyond_wait_in_their_order(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings(max_concurrent=1)) as runner:
            first = runner.stream(PROMPT, ENDLESS)
            async with first:
                others = [runner.stream(PROMPT, SamplingParams(max_tokens=n, ignore_eos=True)) for n in (3, 4)]
                done: list[int] = []

                async def finish(stream: Stream) -> None:
                    done.append((await exhaust(stream)).usage.total_tokens)

                tasks = [asyncio.create_task(finish(stream)) for stream in others]
                await until(lambda: metric(runner, "num_requests_waiting") == 2)
                assert metric(runner, "num_requests_running") == 1
                assert runner.stats()["requests"]["waiting"] == 2
                assert not done
            await asyncio.gather(*tasks)
            assert done == [3, 4]

    run(main())


def test_a_consumer_who_does_not_read_keeps_nobody_waiting(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings(max_concurrent=1)) as runner:
            unread = runner.stream(PROMPT, SamplingParams(max_tokens=20, ignore_eos=True))
            other = SamplingParams(max_tokens=10, ignore_eos=True)
            assert (await exhaust(runner.stream(PROMPT, other))).usage.total_tokens == 10
            assert (await exhaust(unread)).usage.total_tokens == 20  # nothing is lost

    run(main())


def test_when_it_is_full_it_says_so_at_once(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings(max_concurrent=2, max_queue=1)) as runner:
            first = runner.admit(2)
            with runner.admit():
                with pytest.raises(ApiError, match="3 generations run or wait, of 3") as full:
                    runner.admit()
                assert (full.value.status, full.value.type) == (429, "rate_limit_error")
                assert int(full.value.headers["retry-after"]) >= 1
            first.leave()
            first.leave()  # a second time gives nothing back
            assert runner.stats()["requests"]["admitted"] == 0
            runner.admit(3).leave()
            with pytest.raises(ApiError, match="asks for 4 generations at once, and the server takes at most 3") as never:
                runner.admit(4)
            assert (never.value.status, never.value.param) == (400, "n")
            assert metric(runner, "request_rejected_total", reason="full") == 1

    run(main())


def test_nobody_is_let_in_before_the_start() -> None:
    with pytest.raises(ApiError, match="shutting down") as refused:
        asyncio.run(_admit_unstarted())
    assert refused.value.status == 503


async def _admit_unstarted() -> None:
    class Nothing:
        model_path = "a/model"
        engine = None

    runner = Runner(Nothing(), Settings())  # type: ignore[arg-type]
    assert not runner.ready
    runner.admit()


def test_draining_finishes_what_was_let_in(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings(max_concurrent=1)) as runner:
            tickets = [runner.admit(), runner.admit()]
            streams = [runner.stream(PROMPT, SamplingParams(max_tokens=40, ignore_eos=True)) for _ in tickets]
            drained = asyncio.create_task(runner.drain(50))
            await until(lambda: runner.draining)
            assert not runner.ready
            with pytest.raises(ApiError, match="shutting down") as refused:
                runner.admit()
            assert (refused.value.status, refused.value.code) == (503, "shutting_down")
            assert "retry-after" in refused.value.headers
            for ticket, stream in zip(tickets, streams, strict=True):
                assert (await exhaust(stream)).usage.total_tokens == 40
                assert not drained.done()
                ticket.leave()
            assert await drained is True

    run(main())


def test_when_the_grace_is_over_the_rest_is_told(llm: LLM) -> None:
    async def main() -> None:
        runner = Runner(llm, Settings(max_concurrent=1))
        await runner.start()
        with runner.admit(2):
            running, waiting = runner.stream(PROMPT, ENDLESS), runner.stream(PROMPT, ENDLESS)
            async with running:
                assert await runner.drain(0) is False
                await runner.close()
                await runner.close()
                for stream in (running, waiting):
                    with pytest.raises(ApiError, match="shutting down") as told:
                        await exhaust(stream)
                    assert told.value.status == 503
        assert metric(runner, "request_failure_total", reason="shutdown") == 2

    run(main())


def test_the_deadline_winds_up_in_good_form(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings(request_timeout=0.05)) as runner:
            generation = await exhaust(runner.stream(PROMPT, ENDLESS))
            assert generation.finish_reason == "deadline"
            assert generation.usage.total_tokens < 1900
            assert metric(runner, "request_success_total", finished_reason="deadline") == 1

    run(main())


def test_waiting_has_the_same_deadline(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings(request_timeout=0.1, max_concurrent=1)) as runner:
            await runner._turns.acquire()  # somebody has the only place
            with pytest.raises(ApiError, match=r"waited 0\.1 s for its turn") as told:
                await exhaust(runner.stream(PROMPT, ENDLESS))
            assert (told.value.status, told.value.code) == (503, "timeout")
            runner._turns.release()
            assert metric(runner, "request_failure_total", reason="timeout") == 1
            assert metric(runner, "num_requests_waiting") == 0
            assert (await exhaust(runner.stream(PROMPT, SamplingParams(max_tokens=2)))).usage.total_tokens <= 2

    run(main())


@pytest.mark.parametrize("how", ["leave", "break", "drop", "cancel", "exchange", "at once"])
def test_however_a_consumer_leaves_the_engine_stops(llm: LLM, how: str) -> None:
    async def leave(runner: Runner) -> None:
        if how == "exchange":
            logs.enter(logs.Exchange("one"))
            runner.admit()
        stream = runner.stream(PROMPT, ENDLESS)
        if how == "leave":
            await anext(stream)
            await stream.aclose()
            assert [event async for event in stream] == []
        elif how == "break":
            async with stream as events:
                async for _ in events:
                    break
        elif how == "drop":
            await anext(stream)
            del stream
            gc.collect()
        elif how == "cancel":
            task = asyncio.create_task(exhaust(stream))
            await until(lambda: runner._branches == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "exchange":
            await anext(stream)
            exchange = logs.current()
            assert exchange is not None
            exchange.end()
            assert runner.stats()["requests"]["admitted"] == 0

    async def main() -> None:
        async with Runner(llm, Settings(max_concurrent=1)) as runner:
            await asyncio.create_task(leave(runner))
            gc.collect()
            await until(lambda: not runner._engine.busy)
            assert metric(runner, "branches_running") == 0
            # The place is free again.
            assert (await exhaust(runner.stream(PROMPT, SamplingParams(max_tokens=2, ignore_eos=True)))).usage.total_tokens == 2
            if how != "at once":
                assert metric(runner, "request_failure_total", reason="disconnect") == 1

    run(main())


def test_what_the_engine_refuses_is_told_on_entering(llm: LLM) -> None:
    async def main() -> None:
        async with Runner(llm, Settings()) as runner:
            with pytest.raises(RequestError, match="the prompt is empty"):
                async with runner.stream([], GREEDY):
                    pytest.fail("it was taken")
            assert metric(runner, "request_failure_total", reason="refused") == 1
            assert (await exhaust(runner.stream(PROMPT, SamplingParams(max_tokens=2)))).usage.total_tokens <= 2

    run(main())


def test_a_failure_of_the_engine_is_told_and_does_not_last(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    good = llm.engine.sampler

    class Broken(Sampler):
        def sample(self, *_: Any) -> Any:
            raise RuntimeError("out of luck")

    async def main() -> None:
        async with Runner(llm, Settings()) as runner:
            monkeypatch.setattr(llm.engine, "sampler", Broken())
            with pytest.raises(EngineError, match="out of luck"):
                await exhaust(runner.stream(PROMPT, GREEDY))
            monkeypatch.setattr(llm.engine, "sampler", good)
            assert metric(runner, "request_failure_total", reason="error") == 1
            assert (await exhaust(runner.stream(PROMPT, SamplingParams(max_tokens=2)))).usage.total_tokens <= 2

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_engines_thread_is_lost_nobody_pretends(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("a fault of the thread itself")

    async def main() -> None:
        async with Runner(llm, Settings()) as runner:
            assert runner.ready
            assert runner.alive
            monkeypatch.setattr(runner._engine, "_step", lost)
            with pytest.raises(ApiError, match="come to grief") as told:
                async with asyncio.timeout(20):
                    await exhaust(runner.stream(PROMPT, ENDLESS))
            assert told.value.status == 503
            assert not runner.ready
            assert not runner.alive
            with pytest.raises(ApiError, match="come to grief"):
                runner.admit()

    run(main())


def test_the_log_line_learns_what_it_took(llm: LLM) -> None:
    async def main() -> dict[str, Any]:
        async with Runner(llm, Settings()) as runner:
            exchange = logs.Exchange("one")
            logs.enter(exchange)
            for _ in range(2):
                await exhaust(runner.stream(PROMPT, SamplingParams(max_tokens=5, ignore_eos=True)))
            return exchange.fields

    fields = run(main())
    assert fields["generations"] == 2
    assert fields["prompt_tokens"] == 2 * len(PROMPT)
    assert fields["completion_tokens"] == 10
    assert fields["finish_reasons"] == ["length", "length"]
    assert fields["first_token_seconds"] >= 0


def test_what_the_model_is_called(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def name(**options: Any) -> str:
        return Runner(llm, Settings(**options)).model_name

    folder = Path(llm.model_path).name
    assert run(name()) == folder
    assert run(name(served_model_name="mine")) == "mine"
    monkeypatch.setattr(llm, "model_path", "owner/model")
    assert run(name()) == "owner/model"
    monkeypatch.setattr(llm, "model_path", str(Path(logs.__file__).parents[1] / "models" / "mini"))
    assert run(name()) == "multiverse-mini"


def test_stats_keep_the_keys_secret(llm: LLM) -> None:
    async def main() -> dict[str, Any]:
        return Runner(llm, Settings(api_keys=("secret", "other"))).stats()

    stats = run(main())
    assert "secret" not in str(stats)
    assert stats["settings"]["api_keys"] == 2
    slots = stats["kv_slots"]
    assert slots["free"] + slots["cached"] + slots["owned"] == slots["size"]


def test_the_samples_of_one_prompt_have_streams_of_their_own(llm: LLM) -> None:
    llm.engine.sampler = Sampler()

    async def main() -> list[tuple[int, ...]]:
        params = SamplingParams(temperature=1.0, seed=7, max_tokens=20, ignore_eos=True, max_depth=0)
        async with Runner(llm, Settings()) as runner:
            return [(await exhaust(runner.stream(PROMPT, params, sample=n))).token_ids for n in (0, 1, 0, 1)]

    first, second, *again = run(main())
    assert first != second
    assert again == [first, second]
