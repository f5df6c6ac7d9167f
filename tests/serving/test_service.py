"""Generations behind the HTTP handlers: queueing, deadlines, failures, metrics, and that leaving frees everything."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import FinishEvent
from multiverse.engine.event_stream import EventStream
from multiverse.engine.sampler import Sampler
from multiverse.errors import EngineError
from multiverse.serving import logs
from multiverse.serving.config import ServerConfig
from multiverse.serving.errors import ApiError
from multiverse.serving.service import Service, model_name
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
    """Repeats one word; each test leaves it idle, with every slot returned."""
    assert shared.engine.tokens is not None
    word = shared.engine.tokens.encode("w")[0]
    shared.engine.sampler = PolicySampler(lambda _request, _branch: word)
    yield shared
    assert not shared.engine.busy
    shared.engine.check_integrity()
    assert shared.engine.slots.owned == 0


@contextmanager
def exchange() -> Iterator[logs.Exchange]:
    """An HTTP exchange, which ends with the block."""
    own = logs.Exchange("one")
    logs.enter(own)
    try:
        yield own
    finally:
        own.end()


async def exhaust(events: EventStream) -> list[Generation]:
    """The results of all samples."""
    finished = [(index, event.generation) async for index, event in events if isinstance(event, FinishEvent)]
    return [generation for _, generation in sorted(finished, key=lambda one: one[0])]


async def generate(service: Service, params: SamplingParams) -> Generation:
    """The result of one request, in an exchange of its own."""
    with exchange():
        return (await exhaust(await service.submit([PROMPT], [params])))[0]


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def metric(service: Service, name: str, **labels: str) -> float:
    value = service.metrics.registry.get_sample_value(f"multiverse:{name}", {"model_name": service.model_name, **labels})
    return 0.0 if value is None else value


def test_a_generation_is_counted(llm: LLM) -> None:
    llm.engine.sampler = Writer(llm, lambda _: NESTED)

    async def main() -> None:
        async with Service(llm, ServerConfig()) as service:
            generation = await generate(service, GREEDY)
            usage = generation.usage
            assert generation.finish_reason == "stop"
            assert metric(service, "forks_total") == metric(service, "joins_total") == 3
            assert metric(service, "prompt_tokens_total") == usage.prompt_tokens == len(PROMPT)
            assert metric(service, "generation_tokens_total") == usage.total_tokens
            assert metric(service, "critical_path_tokens_total") == usage.critical_path_tokens
            assert metric(service, "request_success_total", finished_reason="stop") == 1
            assert metric(service, "parallelism_sum") == pytest.approx(usage.parallelism)
            assert usage.parallelism > 1
            for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
                assert metric(service, f"{name}_count") == 1
            assert metric(service, "request_queue_time_seconds_sum") == usage.queue_seconds > 0
            chosen = sum(not forced for forced in generation.forced)
            # All but the very first one follow something in their branch: a token, the fork, or the join.
            assert metric(service, "inter_token_latency_seconds_count") == chosen - 1
            assert metric(service, "branches_running") == metric(service, "num_requests_running") == 0
            assert metric(service, "kv_cache_usage_perc") == 0
            assert metric(service, "prefix_cache_queries_total") == llm.engine.cache.queries > 0
            page = service.metrics.render().decode()
            assert "process_resident_memory_bytes" in page
            assert 'multiverse:preemptions_total{model_name="' in page

    run(main())


def test_branches_are_counted_while_they_run(llm: LLM) -> None:
    llm.engine.sampler = Writer(llm, lambda _: NESTED)

    async def main() -> list[int]:
        async with Service(llm, ServerConfig()) as service:
            seen = []
            with exchange():
                async for _ in await service.submit([PROMPT], [GREEDY]):
                    seen.append(int(metric(service, "branches_running")))
            return seen

    seen = run(main())
    assert max(seen) == 2  # siblings; a branch that has forked waits
    assert seen[-1] == 0


def test_requests_beyond_max_concurrent_wait_in_order(llm: LLM) -> None:
    async def main() -> None:
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            done: list[int] = []

            async def finish(tokens: int) -> None:
                done.append((await generate(service, replace(ENDLESS, max_tokens=tokens))).usage.total_tokens)

            with exchange():
                first = await service.submit([PROMPT], [ENDLESS])
                await anext(first)
                tasks = [asyncio.create_task(finish(tokens)) for tokens in (3, 4)]
                await until(lambda: metric(service, "num_requests_waiting") == 2)
                assert metric(service, "num_requests_running") == 1
                assert service.stats()["requests"] == {"admitted": 3, "running": 1, "waiting": 2, "branches": 1}
                assert not done
            await asyncio.gather(*tasks)
            assert done == [3, 4]

    run(main())


def test_a_consumer_who_does_not_read_delays_nobody(llm: LLM) -> None:
    async def main() -> None:
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            with exchange():
                unread = await service.submit([PROMPT], [replace(ENDLESS, max_tokens=20)])
                other = asyncio.create_task(generate(service, replace(ENDLESS, max_tokens=10)))
                assert (await other).usage.total_tokens == 10
                (generation,) = await exhaust(unread)
                assert generation.usage.total_tokens == 20  # nothing is lost

    run(main())


def test_after_the_grace_the_rest_is_aborted(llm: LLM) -> None:
    async def main() -> None:
        service = Service(llm, ServerConfig(max_concurrent=1))
        service.admission.started = True
        with exchange():
            running = await service.submit([PROMPT], [ENDLESS])
            waiting = asyncio.create_task(service.submit([PROMPT], [ENDLESS]))
            await until(lambda: service.admission.held == 2)
            assert await service.admission.drain(0) is False
            await service.close()
            await service.close()
            (generation,) = await exhaust(running)
            error = service.failed(generation)
            assert error is not None
            assert (error.status, error.code) == (503, "shutting_down")
            with pytest.raises(ApiError, match="shutting down") as stopped:  # before its answer has begun
                await waiting
            assert (stopped.value.status, stopped.value.code) == (503, "shutting_down")
            with pytest.raises(ApiError, match="shutting down"):
                await service.submit([PROMPT], [ENDLESS])
        assert metric(service, "request_failure_total", reason="shutdown") == 2

    run(main())


def test_the_deadline_closes_a_generation_in_good_form(llm: LLM) -> None:
    async def main() -> None:
        async with Service(llm, ServerConfig(request_timeout=0.05)) as service:
            generation = await generate(service, ENDLESS)
            assert generation.finish_reason == "deadline"
            assert 0 < generation.usage.total_tokens < 1900
            assert metric(service, "request_success_total", finished_reason="deadline") == 1
            assert service.failed(generation) is None

    run(main())


def test_waiting_counts_towards_the_deadline(llm: LLM) -> None:
    async def main() -> None:
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            with exchange():
                await anext(await service.submit([PROMPT], [ENDLESS]))
                with pytest.raises(ApiError, match="deadline while it was waiting") as late:
                    await asyncio.create_task(generate(service, replace(ENDLESS, max_seconds=0.05)))
                assert (late.value.status, late.value.code, late.value.headers) == (503, "timeout", {"retry-after": "10"})
                assert metric(service, "request_failure_total", reason="timeout") == 1
                assert metric(service, "num_requests_waiting") == 0
            assert (await generate(service, replace(ENDLESS, max_tokens=2))).usage.total_tokens == 2

    run(main())


def test_a_request_is_submitted_once_it_is_in_the_batch(llm: LLM) -> None:
    async def main() -> None:
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            with exchange():
                running = await service.submit([PROMPT], [ENDLESS])
                waiting = asyncio.create_task(service.submit([PROMPT], [replace(ENDLESS, max_tokens=2)]))
                await until(lambda: service._engine.waiting == 1)
                for _ in range(10):
                    await anext(running)
                assert not waiting.done()
                running.close()
                (generation,) = await exhaust(await waiting)
                assert generation.usage.total_tokens == 2

    run(main())


@pytest.mark.parametrize("how", ["exchange", "break", "drop", "cancel", "at once"])
def test_however_a_consumer_leaves_the_engine_stops(llm: LLM, how: str) -> None:
    async def leave(service: Service) -> None:
        with exchange():
            stream = await service.submit([PROMPT], [ENDLESS])
            if how == "exchange":
                await anext(stream)
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
                await until(lambda: service.metrics.branches == 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert service.admission.held == 0

    async def main() -> None:
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            await leave(service)
            gc.collect()
            await until(lambda: not service._engine.busy)
            assert metric(service, "branches_running") == 0
            assert metric(service, "request_failure_total", reason="disconnect") == 1
            # The place is free again.
            assert (await generate(service, replace(ENDLESS, max_tokens=2))).usage.total_tokens == 2

    run(main())


def test_a_request_that_the_engine_refuses(llm: LLM) -> None:
    async def main() -> None:
        async with Service(llm, ServerConfig()) as service:
            with exchange(), pytest.raises(ApiError, match="the prompt is empty") as refused:
                await service.submit([PROMPT, []], [GREEDY] * 2, "prompt")
            assert (refused.value.status, refused.value.param) == (400, "prompt")
            assert metric(service, "request_failure_total", reason="refused") == 2
            assert service.admission.held == 0
            assert (await generate(service, replace(ENDLESS, max_tokens=2))).usage.total_tokens == 2

    run(main())


def test_a_failure_of_the_engine_affects_no_later_request(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    good = llm.engine.sampler

    class Broken(Sampler):
        def sample(self, *_: Any) -> Any:
            raise RuntimeError("out of luck")

    async def main() -> None:
        async with Service(llm, ServerConfig()) as service:
            monkeypatch.setattr(llm.engine, "sampler", Broken())
            with pytest.raises(EngineError, match="out of luck"):
                await generate(service, GREEDY)
            monkeypatch.setattr(llm.engine, "sampler", good)
            assert metric(service, "request_failure_total", reason="error") == 1
            assert (await generate(service, replace(ENDLESS, max_tokens=2))).usage.total_tokens == 2

    run(main())


def test_a_failure_of_the_engine_spares_requests_that_wait(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    good = llm.engine.backend.run

    async def main() -> None:
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            with exchange():
                running = await service.submit([PROMPT], [ENDLESS])
                waiting = asyncio.create_task(generate(service, replace(ENDLESS, max_tokens=2)))
                await until(lambda: service._engine.waiting == 1)

                def broken(_batch: Any) -> Any:
                    monkeypatch.setattr(llm.engine.backend, "run", good)
                    raise RuntimeError("out of luck")

                monkeypatch.setattr(llm.engine.backend, "run", broken)
                with pytest.raises(EngineError, match="out of luck"):
                    await exhaust(running)
                assert (await waiting).usage.total_tokens == 2

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lost_engine_thread_is_reported(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("a fault of the thread itself")

    async def main() -> None:
        async with Service(llm, ServerConfig()) as service:
            assert service.admission.ready
            assert service.alive
            monkeypatch.setattr(service._engine, "_step", lost)
            with pytest.raises(ApiError, match="must be restarted") as dead:
                await generate(service, ENDLESS)
            assert (dead.value.status, dead.value.code) == (503, "dead")
            assert not service.admission.ready
            assert not service.alive
            with exchange(), pytest.raises(ApiError, match="must be restarted"):
                await service.submit([PROMPT], [GREEDY])

    run(main())


def test_the_log_line_has_the_usage(llm: LLM) -> None:
    async def main() -> dict[str, Any]:
        async with Service(llm, ServerConfig()) as service:
            with exchange() as own:
                for _ in range(2):
                    await exhaust(await service.submit([PROMPT], [replace(ENDLESS, max_tokens=5)]))
                return own.fields

    fields = run(main())
    assert fields["generations"] == 2
    assert fields["prompt_tokens"] == 2 * len(PROMPT)
    assert fields["completion_tokens"] == 10
    assert fields["finish_reasons"] == ["length", "length"]
    assert fields["first_token_seconds"] >= 0


def test_model_names(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def name(**options: Any) -> str:
        return Service(llm, ServerConfig(**options)).model_name

    assert run(name()) == Path(llm.model_path).name
    assert run(name(served_model_name="mine")) == "mine"
    monkeypatch.setattr(llm, "model_path", "owner/model")
    assert run(name()) == "owner/model"
    assert model_name(str(Path(logs.__file__).parents[1] / "models" / "mini")) == "multiverse-mini"


def test_stats_keep_the_keys_secret(llm: LLM) -> None:
    async def main() -> dict[str, Any]:
        return Service(llm, ServerConfig(api_keys=("secret", "other"))).stats()

    stats = run(main())
    assert "secret" not in str(stats)
    assert stats["settings"]["api_keys"] == 2
    slots = stats["kv_slots"]
    assert slots["free"] + slots["cached"] + slots["owned"] == slots["size"]


def test_samples_share_their_prompt_and_differ(llm: LLM) -> None:
    llm.engine.sampler = Sampler()
    prompts = [PROMPT * 20, PROMPT * 21]

    async def main() -> list[Generation]:
        params = SamplingParams(temperature=1.0, seed=7, n=2, max_tokens=20, ignore_eos=True, max_depth=0)
        async with Service(llm, ServerConfig(max_concurrent=1)) as service:
            with exchange():
                return await exhaust(await service.submit(prompts, [params] * 2))

    generations = run(main())
    assert [list(generation.prompt_token_ids) for generation in generations] == [prompts[0], prompts[0], prompts[1], prompts[1]]
    assert generations[0].token_ids != generations[1].token_ids
    assert [generation.usage.cached_tokens for generation in generations][1::2] == [len(prompts[0]) - 1, len(prompts[1]) - 1]
