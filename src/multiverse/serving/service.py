"""The model being served, as HTTP handlers see it: admission, the engine on its thread, metrics, state.

events = await service.submit([prompt_ids], params, "messages")  # 429 when full, 503 while draining
async for index, event in events: ...
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.event_stream import EventStream
from ..engine.token_bytes import TokenBytes
from ..errors import RequestError
from . import logs
from .admission import Admission
from .config import ServerConfig
from .errors import ApiError, failed, server_error, timed_out
from .metrics import Measure, Metrics, Snapshot
from .requests import refused

if TYPE_CHECKING:
    from types import TracebackType

    from ..engine import Generation, SamplingParams
    from ..engine.generating import Generating
    from ..engine.response_format import ResponseFormat
    from ..llm import LLM


class Service:
    """Runs generations for the handlers of one server.

    At most `ServerConfig.max_concurrent` generations are in the engine's batch; those beyond wait in its queue, in order of
    arrival.

    Args:
        llm: the model; while the service is open, nothing else may use it.
        config: the server's options.

    Attributes:
        llm, config: as given.
        model_name: the name by which clients ask for the model.
        metrics: of this server.
        bytes_of: the bytes of a token.
        admission: counts the generations of all requests.
    """

    def __init__(self, llm: LLM, config: ServerConfig) -> None:
        self.llm, self.config = llm, config
        self.model_name = config.served_model_name if config.served_model_name is not None else model_name(llm.model_path)
        self.metrics = Metrics(self.model_name, self._snapshot)
        self.admission = Admission(config.max_concurrent + config.max_queue, config, self.metrics)
        self.admission.failed = lambda: not self.alive
        self.started_at = int(time.time())
        self.bytes_of = TokenBytes(llm.tokenizer).of
        self._engine = self._open()
        self._closed = False

    def _open(self) -> Generating:
        """What runs the generations."""
        self.llm.engine.scheduler.max_requests = self.config.max_concurrent
        return self.llm.async_engine()

    @property
    def capacity(self) -> int:
        """Most tokens of a generation with its prompt, for which there is memory."""
        return self.llm.engine.slots.size

    @property
    def deterministic(self) -> bool:
        """Whether the model computes every row in one order (see `LLM`)."""
        return self.llm.engine.backend.deterministic

    @property
    def quantized(self) -> str | None:
        """How the weights of linear layers are held (see `LLM.quantized`)."""
        return self.llm.quantized

    def compile_format(self, form: ResponseFormat) -> None:
        """Compile the form of an answer, which takes up to a second; called in a thread.

        Raises:
            RequestError: it cannot be honoured.
        """
        self.llm.engine.grammar_compiler.matcher(form)

    def check_token_ids(self, param: str | None) -> None:
        """Raise `ApiError`, 400 naming the parameter, unless clients may use token ids."""

    async def check_ready(self) -> None:
        """Raise `ApiError`, 503, unless requests are accepted."""
        if not self.admission.ready:
            doing = "shutting down" if self.admission.draining else "starting"
            raise server_error(f"the server is {doing}: use another one, or try again soon", 503, "not_ready")

    @property
    def alive(self) -> bool:
        """Whether the engine can still do anything; if not, only a new process helps."""
        return self._closed or not self._engine.closed

    async def close(self) -> None:
        """Accept no more requests, abort those that run, and stop the engine's thread. May be called again."""
        self.admission.draining = self._closed = True
        await self._engine.aclose()

    async def __aenter__(self) -> Service:
        self.admission.started = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.close()

    async def submit(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], param: str | None = None, *, priority: int = 0
    ) -> EventStream:
        """Admit a request and send it to the engine; returns once it is in the batch, or has ended.

        The generations are aborted, and their places in admission released, when the HTTP exchange ends.

        Args:
            prompts: token ids of each.
            params: how to sample, for each prompt: `n` samples of each (see `AsyncEngine.stream` for their order).
            param: field of the request that the prompts come from, for errors.
            priority: higher goes first, and preempts lower if there is no memory left.

        Raises:
            ApiError: the request was not admitted, the engine refused it, or its deadline passed while it was waiting.
        """
        count = len(prompts) * params[0].n
        exchange = logs.current()
        assert exchange is not None
        exchange.at_end(self.admission.admit(count))
        measures = [Measure(self.metrics, self.admission.finished) for _ in range(count)]
        most = self.config.request_timeout
        bounded = [replace(own, max_seconds=min(own.max_seconds, most)) for own in params]
        try:
            events = self._engine.stream(
                prompts, bounded, priority=priority, observe=lambda index, event: measures[index].feed(event)
            )
            exchange.at_end(partial(self._end, events, measures))
            admitted = await events.admitted()
        except RequestError as error:
            raise self.admission.unavailable() if self._engine.closed else refused(error, param) from None
        if not admitted:
            raise self.admission.unavailable() if self._engine.closed else timed_out()
        return events

    async def score(self, prompt: Sequence[int], param: str | None = None) -> tuple[float | None, ...]:
        """Admit a text, and return the log-probabilities of its tokens (see `AsyncEngine.score`).

        Raises:
            ApiError: it was not admitted, or the engine refused it.
        """
        exchange = logs.current()
        assert exchange is not None
        exchange.at_end(self.admission.admit(1))
        try:
            return await self._engine.score(prompt)
        except RequestError as error:
            raise self.admission.unavailable() if self._engine.closed else refused(error, param) from None

    def _end(self, events: EventStream, measures: list[Measure]) -> None:
        """The HTTP exchange is over: abort the generations that are not."""
        failure = "disconnect"
        if events.error is not None:
            failure = "refused" if isinstance(events.error, RequestError) else "error"
        for measure in measures:
            measure.close("shutdown" if self._engine.closed else failure)
        events.close()

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Special tokens of the tokenizer, and the tags of the dialect."""
        tokens = self.llm.tokens
        return frozenset([*self.llm.tokenizer.all_special_ids, *(tokens.roles if tokens is not None else ())])

    def failed(self, generation: Generation) -> ApiError | None:
        """The error for a finished generation that is no answer; `None` if it is one."""
        return self.admission.unavailable() if generation.finish_reason == "abort" else failed(generation)

    def stats(self) -> dict[str, Any]:
        """The server's options, without the keys, and what it is doing."""
        now = self._snapshot()
        return {
            "model": self.model_name,
            "settings": self.config.public(),
            "started_at": self.started_at,
            "draining": self.admission.draining,
            "requests": {
                "admitted": self.admission.held,
                "running": now.running,
                "waiting": now.waiting,
                "branches": self.metrics.branches,
            },
            **self._memory(),
        }

    def _memory(self) -> dict[str, Any]:
        slots = self.llm.engine.slots
        return {
            "kv_slots": {"size": slots.size, "free": slots.free, "cached": slots.cached, "owned": slots.owned},
            "preemptions": self.llm.engine.scheduler.preemptions,
        }

    def _snapshot(self) -> Snapshot:
        engine = self.llm.engine
        return Snapshot(
            running=self._engine.running,
            waiting=self._engine.waiting,
            kv_usage=1 - (engine.slots.free + engine.cache.evictable) / engine.slots.size,
            prefix_queries=engine.cache.queries,
            prefix_hits=engine.cache.hits,
            preemptions=engine.scheduler.preemptions,
        )


def model_name(model: str | Path | None) -> str:
    """What a model is called, if the config gives no name: its name, its folder's or GGUF file's, or its id on the hub."""
    path = Path(model).expanduser() if model is not None else None
    if path is None or path == Path(str(files("multiverse") / "models" / "mini")):
        return "multiverse-mini"
    if path.suffix == ".gguf":
        return path.stem
    return path.resolve().name if path.is_dir() else str(model)
