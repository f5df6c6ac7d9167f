"""`AsyncLLM`: the calls of `LLM`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiverse import LLM, AsyncLLM, SamplingParams
from multiverse.engine.events import FinishEvent, TokenEvent
from multiverse.errors import RequestError

SHORT = SamplingParams(temperature=0, max_tokens=6, max_depth=0, ignore_eos=True)
CHAT = [{"role": "user", "content": "hi"}]


@pytest.fixture
def llm(model_folders: dict[str, Path]) -> Iterator[LLM]:
    with LLM(model_folders["llama"], kv_memory=2 << 20) as llm:
        yield llm


def test_messages_in_generations_out_as_of_llm(llm: LLM) -> None:
    other = [{"role": "user", "content": "and you?"}]
    pair = SamplingParams(seed=5, n=2, max_tokens=6, max_depth=0, ignore_eos=True)
    expected = [*llm.chat([CHAT, other], SHORT), *llm.chat(CHAT, SHORT, mode=None), *llm.generate(["a", "b"], [SHORT, pair])]

    async def run() -> list[tuple[int, ...]]:
        async with AsyncLLM(llm) as model:
            calls = (
                model.chat([CHAT, other], SHORT),
                model.chat(CHAT, SHORT, mode=None),
                model.generate(["a", "b"], [SHORT, pair]),
            )
            found = [generation for own in await asyncio.gather(*calls) for generation in own]
            assert await model.chat([], SHORT) == []
            streamed = [event async for event in model.stream(CHAT, SHORT)]
            *tokens, finish = streamed
            assert isinstance(finish, FinishEvent)
            assert finish.generation.token_ids == expected[0].token_ids
            assert tuple(event.token_id for event in tokens if isinstance(event, TokenEvent)) == expected[0].token_ids
        return [generation.token_ids for generation in found]

    assert len(expected) == 6
    assert asyncio.run(run()) == [generation.token_ids for generation in expected]
    assert llm.generate("a", SHORT)[0].token_ids == expected[3].token_ids  # a model that was given stays open


def test_errors_name_the_prompt_and_nothing_is_run(llm: LLM) -> None:
    async def run() -> None:
        async with AsyncLLM(llm) as model:
            with pytest.raises(RequestError, match=r"^prompt 1: the prompt has 5000 tokens"):
                await model.generate(["a", [1] * 5000], SHORT)
            with pytest.raises(RequestError, match="message 0 has the role 'banana'"):
                await model.chat([{"role": "banana", "content": "x"}])
            with pytest.raises(RequestError, match="is no SamplingParams"):
                await model.chat(CHAT, {"temperature": 0})  # type: ignore[arg-type]
            with pytest.raises(RequestError, match="chat takes messages, not a text"):
                await model.chat("hi")  # type: ignore[arg-type]
            assert not model.engine.busy

    asyncio.run(run())


def test_a_cancelled_call_aborts_its_requests_alone(llm: LLM) -> None:
    long = SamplingParams(temperature=0, max_tokens=400, max_depth=0, ignore_eos=True)

    async def run() -> None:
        async with AsyncLLM(llm) as model:
            gone = asyncio.create_task(model.generate(["a", "b"], long))
            kept = asyncio.create_task(model.generate("c", SHORT))
            await asyncio.sleep(0.05)
            gone.cancel()
            (generation,) = await kept
            assert generation.finish_reason == "length"
            with pytest.raises(asyncio.CancelledError):
                await gone
            await model.engine.drain()

    asyncio.run(run())
    assert not llm.engine.busy
    assert llm.engine.slots.owned == 0


def test_it_loads_and_closes_a_model_of_its_own(model_folders: dict[str, Path]) -> None:
    async def run() -> AsyncLLM:
        async with AsyncLLM(model_folders["qwen2"], kv_memory=1 << 20) as model:
            assert len(await model.chat(CHAT, SHORT)) == 1
        await model.close()
        return model

    model = asyncio.run(run())
    with pytest.raises(RequestError, match="is closed"):
        _ = model.llm.engine
    with pytest.raises(TypeError, match="kv_memory: arguments of a model that is loaded already"):
        AsyncLLM(model.llm, kv_memory=1)
