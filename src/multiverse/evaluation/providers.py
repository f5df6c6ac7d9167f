"""Model providers for inspect: the engine of this process, and any server that speaks OpenAI's chat completions.

    inspect eval multiverse/countdown --model multiverse/mini
    inspect eval multiverse/aime25 --model multiverse-server/NAME --model-base-url http://127.0.0.1:8000/v1

Whatever inspect knows of sampling is handed on, or refused by name; what it does not know comes through ``extra_body``, in the
field ``multiverse``, as for the server: ``{"multiverse": {"max_critical_path_tokens": 4096}}``. The answer's structure stands
in the output's metadata, as an `Answer`.

Imported only by inspect, or by whoever has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import httpx
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from ..engine.async_engine import AsyncEngine
from ..engine.params import SamplingParams
from ..errors import EngineError, RequestError
from ..structure import DIALECTS, MULTIVERSE, Dialect
from .answer import Answer, is_malformed

if TYPE_CHECKING:
    from ..llm import LLM

MAX_TOKENS = 32_768
"""Bound on an answer unless the evaluation sets one: the paper's."""
_PATIENCE = 600.0
"""Seconds without a byte after which a server is given up."""
_DAYS = 7 * 86_400.0
"""Wall-clock bound of a request in process: how long it waits for others says nothing about the model."""
_OWNER = "multiverse"
"""By this owner of its models our own server is known."""

# inspect's names for what both sides understand. The rest of inspect's settings are about connections, or refused.
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "seed": "seed", "max_tokens": "max_tokens"}
_CONNECTION = (
    *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections"),
    *("system_message", "cache", "extra_headers", "reasoning_history", "fail_on_refusal"),
)


class EngineAPI(ModelAPI):
    """The engine of this process; concurrent questions are rows of one batch.

    Args:
        model_name: a folder or hub id; ``mini`` is multiverse-mini.
        llm: a model that is loaded already.
        model_args: else, options of `LLM`, such as ``device`` or ``kv_memory``.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect's signature)
        *,
        llm: LLM | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if base_url is not None:
            raise RequestError(f"base_url={base_url!r} is for a server: use the provider multiverse-server")
        if llm is None:
            from ..llm import LLM

            llm = LLM(None if model_name == "mini" else model_name, **model_args)
        self.llm = llm
        self._lock = threading.Lock()
        self._engine: AsyncEngine | None = None

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 (inspect's signature)
        tools: list[ToolInfo],
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a chat.

        Raises:
            RequestError: a setting cannot be honoured, or the question does not fit.
            EngineError: the generation failed.
        """
        given, extension = _settings(tools, config)
        if "max_tokens" not in given:
            given["max_tokens"] = MAX_TOKENS
        # A path may be as long as the answer: nothing but the bounds that were asked for should end one.
        extension = {"max_branch_tokens": given["max_tokens"], "max_seconds": _DAYS, **extension}
        if "tail_tokens" in extension:  # the server's name of it
            extension["reserved_tokens"] = extension.pop("tail_tokens")
        try:
            params = SamplingParams(**given, **extension)
        except TypeError as error:
            raise RequestError(f"the field multiverse of extra_body cannot be honoured: {error}") from None
        prompt = await asyncio.to_thread(self._encode, _messages(input))
        generation = await self._running().generate(prompt, params)
        if generation.finish_reason in ("abort", "error"):
            raise EngineError(f"the generation came to no end ({generation.structure_error or generation.finish_reason})")
        return _output(self.model_name, Answer.of(generation), prompt_tokens=generation.usage.prompt_tokens)

    def max_connections(self) -> int:
        """As many as the engine takes into one batch; it queues the rest by itself."""
        return 64

    async def aclose(self) -> None:
        """Stop the engine's thread; what is running is aborted."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            await engine.aclose()

    def _running(self) -> AsyncEngine:
        with self._lock:
            if self._engine is None:
                self._engine = AsyncEngine(self.llm.engine)
            return self._engine

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        tokenizer = self.llm.tokenizer
        if getattr(tokenizer, "chat_template", None) is None:
            raise RequestError(f"{self.llm.model_path!r} has no chat template, and questions are put as chats")
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer.encode(text, add_special_tokens=False))


class ServerError(RequestError):
    """A server refuses a request.

    Attributes:
        status: the HTTP status; `None` if it was told in the middle of an answer.
        code: the server's word for it, if it has one.
    """

    def __init__(self, message: str, status: int | None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class ServerAPI(ModelAPI):
    """A server that speaks OpenAI's chat completions. One of ours tells what its answers took; of another's, all tokens count
    as one chain.

    Args:
        model_name: one of the server's models.
        base_url: its address, up to ``/v1``.
        api_key: if it wants one; else the environment's ``OPENAI_API_KEY``.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect's signature)
    ) -> None:
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
        super().__init__(model_name, base_url, key, ["OPENAI_API_KEY"], config)
        if base_url is None:
            raise RequestError("a server needs its address: give --model-base-url http://127.0.0.1:8000/v1")
        self._url = base_url.rstrip("/")
        self._client: httpx.AsyncClient | None = None
        self._dialect: Dialect | None = None
        self._ours: bool | None = None

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 (inspect's signature)
        tools: list[ToolInfo],
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a chat.

        Raises:
            ServerError: the server refuses.
            RequestError: a setting cannot be honoured.
        """
        given, extension = _settings(tools, config)
        body: dict[str, Any] = {"model": self.model_name, "messages": _messages(input), "stream": True, **given}
        body["stream_options"] = {"include_usage": True}
        if "logit_bias" in body:
            body["logit_bias"] = {str(token): bias for token, bias in body["logit_bias"].items()}
        if await self._is_ours():
            # The question ends with its instruction already.
            body["multiverse"] = {"mode": "as-is", "max_branch_tokens": given.get("max_tokens", MAX_TOKENS), **extension}
        elif extension:
            raise RequestError(f"{self._url} is no multiverse server and does not know {', '.join(extension)}: leave it out")
        heard = _Heard()
        began = time.monotonic()
        try:
            async for chunk in self._chunks(body, config.extra_headers):
                heard.feed(chunk)
        except ServerError as error:
            if error.code != "malformed_generation":  # which is an answer, though a bad one
                raise
            heard.malformed = True
        answer = heard.answer(self._dialect, time.monotonic() - began)
        return _output(self.model_name, answer, prompt_tokens=int(heard.usage.get("prompt_tokens") or 0))

    def should_retry(self, ex: Exception) -> bool:
        """When the server is busy, restarting, or out of reach for a while."""
        if isinstance(ex, ServerError):
            return ex.status in (408, 425, 429, 500, 502, 503, 504)
        return isinstance(ex, httpx.TransportError)

    def connection_key(self) -> str:
        """One pool of connections for a server."""
        return self._url

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            timeout = httpx.Timeout(_PATIENCE, connect=30.0, pool=None)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            self._client = httpx.AsyncClient(base_url=self._url, headers=headers, timeout=timeout, limits=limits)
        return self._client

    async def _is_ours(self) -> bool:
        if self._ours is None:
            response = await self._open().get("/models")
            _check(response.status_code, response.content, self._url)
            try:
                entries = {str(entry["id"]): entry for entry in response.json()["data"]}
            except (ValueError, KeyError, TypeError):
                raise ServerError(f"{self._url}/models is no list of models: is this the address up to /v1?", 404) from None
            if self.model_name not in entries:
                raise ServerError(
                    f"{self._url} has no model {self.model_name!r}: it offers {', '.join(entries) or 'none'}", 404
                )
            entry = entries[self.model_name]
            self._dialect = DIALECTS.get(str(entry.get("dialect")))
            self._ours = entry.get("owned_by") == _OWNER
        return self._ours

    async def _chunks(self, body: Mapping[str, Any], headers: Mapping[str, str] | None) -> AsyncIterator[dict[str, Any]]:
        """The JSON objects of a stream, up to its end."""
        stream = self._open().stream("POST", "/chat/completions", json=body, headers=dict(headers or {}))
        async with stream as response:
            if response.status_code != 200:
                _check(response.status_code, await response.aread(), self._url)
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    return
                chunk = json.loads(data)
                if chunk.get("error"):
                    raise ServerError(f"{self._url} stopped: {_message(chunk)}", None, _code(chunk))
                yield chunk
        raise httpx.RemoteProtocolError(f"{self._url} ended the stream before the answer's end")


class _Heard:
    """One streamed answer, put together from its chunks."""

    def __init__(self) -> None:
        self.reasoning = self.content = ""
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.extension: Mapping[str, Any] = {}
        self.malformed = False

    def feed(self, chunk: Mapping[str, Any]) -> None:
        """Take in a chunk."""
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            self.content += delta.get("content") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.extension = choice.get("multiverse") or self.extension

    def answer(self, dialect: Dialect | None, seconds: float) -> Answer:
        """What it comes to.

        Args:
            dialect: the tag set of a server of ours, to write the thinking as the model did.
            seconds: as the client measured them, for a server that does not tell.
        """
        told, usage = self.extension, self.usage
        reason = "malformed" if self.malformed else str(told.get("finish_reason") or self.finish_reason or "stop")
        total = int(told.get("total_tokens") or usage.get("completion_tokens") or 0)
        critical = told.get("critical_path_tokens")
        answer = told.get("answer")
        return Answer(
            text=self._text(dialect),
            answer=str(answer) if answer is not None else _after_thinking(self.content),
            finish_reason=reason,
            malformed=is_malformed(reason, whole=told.get("structure_error") is None),
            forks=int(told.get("forks") or 0),
            total_tokens=total,
            critical_path_tokens=int(critical) if critical is not None else total,
            seconds=float(told["seconds"]) if told.get("seconds") is not None else seconds,
        )

    def _text(self, dialect: Dialect | None) -> str:
        """The whole generation; servers hand out thinking and answer apart."""
        if not self.reasoning:
            return self.content
        think = dialect.think if dialect is not None else None
        if dialect is None or think is None:
            return f"{self.reasoning}\n\n{self.content}" if self.content else self.reasoning
        text = f"{think.open}{dialect.sep}{self.reasoning}"
        cut = self.finish_reason != "stop" and not self.content
        return text if cut else f"{text}{think.close}{dialect.answer_sep}{self.content}"


def _after_thinking(content: str) -> str:
    """What follows the thinking, where a server leaves it in the content; the tag is the one that most models use."""
    close = MULTIVERSE.think.close if MULTIVERSE.think is not None else ""
    for tag in (close, close.lower()):
        if tag and tag in content:
            content = content.rpartition(tag)[2]
    return content.strip().removeprefix("Answer:").strip()


def _settings(tools: list[ToolInfo], config: GenerateConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sampling by the names that the engine and OpenAI share, and the fields that only we know.

    Raises:
        RequestError: something is asked for that nothing here can do.
    """
    if tools:
        raise RequestError("these models use no tools: leave them out")
    asked = config.model_dump(exclude_none=True)
    given = {ours: asked.pop(name) for name, ours in _SAMPLING.items() if name in asked}
    if asked.get("stop_seqs"):
        given["stop"] = list(asked["stop_seqs"])
    asked.pop("stop_seqs", None)
    if asked.get("logit_bias"):
        given["logit_bias"] = dict(asked["logit_bias"])
    asked.pop("logit_bias", None)
    body = asked.pop("extra_body", {})
    extension = dict(body.get("multiverse", {}))
    if "reasoning_tokens" in asked:
        extension["thinking_budget"] = asked.pop("reasoning_tokens")
    unknown = [
        *(name for name in asked if name not in _CONNECTION),
        *(f"extra_body.{name}" for name in body if name != "multiverse"),
    ]
    if unknown:
        raise RequestError(f"{unknown[0]} cannot be honoured here: leave it out")
    return given, extension


def _messages(chat: list[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in chat]


def _output(model: str, answer: Answer, *, prompt_tokens: int) -> ModelOutput:
    message = ChatMessageAssistant(content=answer.text, model=model, source="generate")
    stop = {"stop": "stop", "length": "max_tokens", "budget": "max_tokens", "deadline": "max_tokens"}
    return ModelOutput(
        model=model,
        choices=[ChatCompletionChoice(message=message, stop_reason=stop.get(answer.finish_reason, "unknown"))],  # type: ignore[arg-type]
        usage=ModelUsage(
            input_tokens=prompt_tokens,
            output_tokens=answer.total_tokens,
            total_tokens=prompt_tokens + answer.total_tokens,
        ),
        time=answer.seconds,
        metadata={"answer": answer.to_json()},
    )


def _check(status: int, content: bytes, url: str) -> None:
    if status == 200:
        return
    try:
        told = _message(json.loads(content))
    except ValueError:
        told = content[:300].decode(errors="replace")
    remedy = ": set OPENAI_API_KEY, or give --api-key" if status in (401, 403) else ""
    raise ServerError(f"{url} refused ({status}): {told}{remedy}", status)


def _message(body: Any) -> str:
    """What an error in OpenAI's shape says."""
    error = body.get("error") if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else error
    return str(told or body)[:500]


def _code(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("code") if isinstance(error, dict) else None


@modelapi(name="multiverse")
def multiverse() -> type[ModelAPI]:
    """The provider ``multiverse/FOLDER``."""
    return EngineAPI


def in_process(name: str, llm: LLM) -> ModelAPI:
    """The provider of a model that is loaded already.

    Args:
        name: what inspect's logs call it.
    """
    make: Any = multiverse  # by the decorated name: inspect asks what it makes for its registration
    api: ModelAPI = make(name, llm=llm)
    return api


@modelapi(name="multiverse-server")
def multiverse_server() -> type[ModelAPI]:
    """The provider ``multiverse-server/MODEL``."""
    return ServerAPI


def at_server(name: str, base_url: str, api_key: str | None = None) -> ModelAPI:
    """The provider of a server's model; the arguments are `ServerAPI`'s."""
    make: Any = multiverse_server
    api: ModelAPI = make(name, base_url=base_url, api_key=api_key)
    return api
