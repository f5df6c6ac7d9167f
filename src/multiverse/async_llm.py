"""`AsyncLLM`: `LLM` for asyncio: the same calls, awaited, any number of them at once in one batch. No torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .engine.events import Event, FinishEvent
from .engine.params import SamplingParams
from .inputs import Messages, Prompt, each_named, priority_of
from .llm import LLM, Params
from .prompting import Instruction

if TYPE_CHECKING:
    from .engine import Generation


class AsyncLLM:
    """A model for tasks of an event loop; its engine runs on a thread of its own.

        async with AsyncLLM() as llm:
            (out,) = await llm.chat([{"role": "user", "content": "…"}])
            async for event in llm.stream([{"role": "user", "content": "…"}]): ...

    Whatever is awaited at the same time is computed in one batch. Cancelling a call aborts its requests, and no others.

    Args:
        model: as of `LLM`, whose other arguments may follow; or an `LLM`, which nothing else may use meanwhile.

    Attributes:
        llm: the model.
        engine: for what is not here: draining, several samples as events, priorities of streams.

    It raises what `LLM` does, which it loads before it returns.
    """

    def __init__(self, model: str | Path | LLM | None = None, **arguments: Any) -> None:
        if isinstance(model, LLM):
            if arguments:
                raise TypeError(f"{', '.join(arguments)}: arguments of a model that is loaded already")
            self.llm, self._own = model, False
        else:
            self.llm, self._own = LLM(model, **arguments), True
        self.engine = self.llm.async_engine()

    async def generate(
        self, prompts: Prompt | Sequence[Prompt], params: Params | None = None, *, priority: int = 0
    ) -> list[Generation]:
        """Continue raw prompts; as `LLM.generate`.

        Raises:
            RequestError: a prompt or parameter cannot be honoured, or this is closed; nothing has been run.
            EngineError: the engine failed on one of them; the others are aborted.
        """
        encoded = self.llm.encode_prompts(prompts)
        return await self._run(encoded, self.llm.params_of(params, len(encoded)), priority)

    async def chat(
        self,
        conversations: Messages | Sequence[Messages],
        params: Params | None = None,
        *,
        mode: Instruction | None = "parallel",
        priority: int = 0,
    ) -> list[Generation]:
        """Answer conversations through the model's chat template; as `LLM.chat`. It raises what `generate` does."""
        chats, asked_in = self.llm.encode_conversations(conversations, mode)
        own = self.llm.params_of(params, len(chats), asked_in, chat=True)
        found = await self._run([chat.token_ids for chat in chats], own, priority)
        left_out = [chat.left_out for chat, one in zip(chats, own, strict=True) for _ in range(one.n)]
        return [replace(generation, left_out=lost) for generation, lost in zip(found, left_out, strict=True)]

    async def stream(
        self, prompt: Prompt | Messages, params: SamplingParams | None = None, *, mode: Instruction | None = "parallel"
    ) -> AsyncIterator[Event]:
        """Run one raw prompt or conversation and yield its events; as `LLM.stream`. Closing it early aborts the request.

        It raises what `generate` does, at the first event.
        """
        token_ids, own = self.llm.encode_one(prompt, params, mode)
        async with self.engine.stream(token_ids, own) as events:
            async for _, event in events:
                yield event

    async def close(self) -> None:
        """Abort what is running, stop the engine's thread, and close the model unless it was given. May be called again."""
        await self.engine.aclose()
        if self._own:
            self.llm.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.close()

    async def _run(self, prompts: list[list[int]], params: list[SamplingParams], priority: int) -> list[Generation]:
        """The results in order, those of one prompt next to each other."""
        priority = priority_of(priority)
        numbered = list(zip(prompts, params, strict=True))
        each_named(numbered, lambda one: self.llm.check(*one))  # before any is sent
        tasks = [asyncio.ensure_future(self._samples(prompt, own, priority)) for prompt, own in numbered]
        try:
            return [generation for samples in await asyncio.gather(*tasks) for generation in samples]
        finally:
            for task in tasks:
                task.cancel()

    async def _samples(self, prompt: list[int], params: SamplingParams, priority: int) -> list[Generation]:
        if params.n == 1:
            return [await self.engine.generate(prompt, params, priority=priority)]
        found: dict[int, Generation] = {}
        async with self.engine.stream(prompt, params, priority=priority) as events:
            async for sample, event in events:
                if isinstance(event, FinishEvent):
                    found[sample] = event.generation
        return [found[sample] for sample in range(params.n)]
