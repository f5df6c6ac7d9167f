"""A server that speaks OpenAI's chat completions as a model provider for inspect.

inspect eval multiverse/aime25 --model multiverse-server/NAME --model-base-url http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import openai
from inspect_ai.model import GenerateConfig, ModelAPI, modelapi
from tenacity import RetryCallState, wait_exponential_jitter
from tenacity.wait import wait_base

from ..errors import RequestError
from ..prompting import DEFAULT, Prompting, read_prompting
from ..structure import DIALECTS, MULTIVERSE, Dialect, plain_answer
from ..transport.retry import LONGEST_WAIT, is_transient, seconds_after
from .config import MAX_TOKENS
from .providers import ChatAPI, as_asked, has_images
from .response import Response, is_malformed

_TIMEOUT = openai.Timeout(600.0, connect=30.0, pool=None)
"""Seconds without a byte, and to connect."""
FIRST_WAIT = 3.0
"""Seconds before a request is repeated for the first time, if the server does not say; then twice as many each time."""
_OWNER = "multiverse"
"""Owner of the models of a server of this project, in its list of models."""


class ServerError(RequestError):
    """A server refuses a request.

    Attributes:
        status: the HTTP status; `None` if the error came within a stream.
        retry_after: seconds that the server asks to wait; 0 if it does not say.
    """

    def __init__(self, message: str, status: int | None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class ServerAPI(ChatAPI):
    """A server that speaks OpenAI's chat completions. Servers of this project report the critical path; for others, all tokens
    count as one chain.

    Args:
        model_name: one of the server's models.
        base_url: its address, up to ``/v1``.
        api_key: its key; default: the environment's ``OPENAI_API_KEY``.
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
        self._dialect: Dialect | None = None
        self._ours: bool | None = None
        self._prompting: Prompting | None = DEFAULT
        self._limit_name = "max_tokens"

    async def respond(
        self, chat: list[dict[str, Any]], given: dict[str, Any], extension: dict[str, Any], config: GenerateConfig
    ) -> tuple[Response, int]:
        """As `ChatAPI.respond`; raises `ServerError` if the server refuses."""
        body: dict[str, Any] = {**given, "messages": chat}
        streamed, began = _StreamedResponse(), time.monotonic()
        try:
            async with self._connect() as client:
                if await self._is_ours(client):
                    if has_images(chat):
                        raise RequestError(f"{self._url} is a multiverse server, which reads no images: ask one that does")
                    body["messages"], extension = as_asked(chat, extension, self._prompting)
                    # The instruction of the mode is part of the question already.
                    limits = {"max_branch_tokens": body.get("max_tokens", MAX_TOKENS), **extension}
                    body["multiverse"] = {"mode": "as-is", **limits}
                elif extension:
                    names = ", ".join(extension)
                    raise RequestError(f"{self._url} is not a multiverse server and does not know {names}: leave it out")
                await self._stream(client, body, config, streamed)
        except openai.APIStatusError as error:
            hint = ": set OPENAI_API_KEY, or give --api-key" if error.status_code in (401, 403) else ""
            wait = seconds_after(error.response.headers.get("retry-after"), datetime.now(UTC))
            raise ServerError(
                f"{self._url} refused ({error.status_code}): {_message(error)}{hint}", error.status_code, wait
            ) from None
        except openai.APIConnectionError:
            raise
        except openai.APIError as error:
            if error.code != "malformed_generation":  # which is a response, though a malformed one
                raise ServerError(f"{self._url} stopped: {_message(error)}", None) from None
            streamed.malformed = True
        response = streamed.response(self._dialect, time.monotonic() - began)
        return response, int(streamed.usage.get("prompt_tokens") or 0)

    async def _stream(
        self, client: openai.AsyncOpenAI, body: dict[str, Any], config: GenerateConfig, streamed: _StreamedResponse
    ) -> None:
        stream = await self._create(client, body, config)
        try:
            if "json" in stream.response.headers.get("content-type", ""):  # it knows no streams
                streamed.add_whole(json.loads(await stream.response.aread()))
            async for chunk in stream:
                streamed.add(chunk.to_dict())
        except json.JSONDecodeError as error:
            message = f"{self._url} broke off within the answer ({error})"
            raise openai.APIConnectionError(message=message, request=stream.response.request) from None
        if streamed.finish_reason is None:
            message = f"{self._url} ended the stream before the end of the answer"
            raise openai.APIConnectionError(message=message, request=stream.response.request)

    async def _create(self, client: openai.AsyncOpenAI, body: dict[str, Any], config: GenerateConfig) -> Any:
        """Begin the answer; newer models of OpenAI take another name of `max_tokens` only."""
        limit_name = self._limit_name
        named = {limit_name if name == "max_tokens" else name: value for name, value in body.items()}
        try:
            return await client.chat.completions.create(
                model=self.model_name,
                messages=named.pop("messages"),
                stream=True,
                stream_options={"include_usage": True},
                extra_headers=config.extra_headers,
                extra_body=named,
            )
        except openai.BadRequestError as error:
            if "max_completion_tokens" not in _message(error) or limit_name != "max_tokens":
                raise
            self._limit_name = "max_completion_tokens"
            return await self._create(client, body, config)

    def should_retry(self, ex: Exception) -> bool:
        """Whether the server is busy, restarting, or out of reach for a while."""
        if isinstance(ex, ServerError):
            return ex.status is not None and is_transient(ex.status) and ex.retry_after <= LONGEST_WAIT
        return isinstance(ex, openai.APIConnectionError)

    def retry_wait(self) -> wait_base:
        """As long as the server asks for, or else inspect's backoff."""
        return _Wait()

    def said(self, response: Response) -> str:
        """Servers of this project read structure in earlier answers; others get the answer without its thinking."""
        return response.text if self._ours else response.whole

    def connection_key(self) -> str:
        """Connections are limited by server."""
        return self._url

    def _connect(self) -> openai.AsyncOpenAI:
        """A client of its own for each response: connections belong to an event loop, and inspect runs one per evaluation."""
        key = self.api_key or "EMPTY"  # the client requires one
        return openai.AsyncOpenAI(base_url=self._url, api_key=key, timeout=_TIMEOUT, max_retries=0)

    async def _is_ours(self, client: openai.AsyncOpenAI) -> bool:
        if self._ours is None:
            try:
                page = await client.models.list()
            except openai.APIStatusError as error:
                if error.status_code not in (404, 405):
                    raise
                self._ours = False  # it has no list of models
                return False
            try:
                entries = {str(entry.id): entry.to_dict() for entry in page.data}
            except (AttributeError, TypeError):
                raise ServerError(f"{self._url}/models is not a list of models: is this the address up to /v1?", 404) from None
            if self.model_name not in entries:
                raise ServerError(
                    f"{self._url} has no model {self.model_name!r}: it offers {', '.join(entries) or 'none'}", 404
                )
            entry = entries[self.model_name]
            self._dialect = DIALECTS.get(str(entry.get("dialect")))
            self._ours = entry.get("owned_by") == _OWNER
            instructed = entry.get("dialect") is None or bool(entry.get("instructed", True))
            self._prompting = read_prompting(entry) if instructed else None
        return self._ours


class _Wait(wait_base):
    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.retry_after if isinstance(error, ServerError) else 0.0
        return asked or wait_exponential_jitter(initial=FIRST_WAIT, max=1800, jitter=min(3.0, FIRST_WAIT))(retry_state)


class _StreamedResponse:
    """A streamed chat completion, put together from its chunks."""

    def __init__(self) -> None:
        self.reasoning = self.content = ""
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.extension: Mapping[str, Any] = {}
        self.malformed = False

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Add a chunk."""
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            self.content += delta.get("content") or delta.get("refusal") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.extension = choice.get("multiverse") or self.extension

    def add_whole(self, completion: Mapping[str, Any]) -> None:
        """Add a completion that was not streamed."""
        choices = completion.get("choices") or ()
        self.add({**completion, "choices": [{**choice, "delta": choice.get("message")} for choice in choices]})

    def response(self, dialect: Dialect | None, seconds: float) -> Response:
        """The whole response; halves of a character that were sent apart are joined.

        Args:
            dialect: tag set of a server of this project, to restore the text as the model wrote it.
            seconds: as the client measured them, for servers that do not report them.
        """
        self.reasoning, self.content = (
            text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in (self.reasoning, self.content)
        )
        extension, usage = self.extension, self.usage
        reason = "malformed" if self.malformed else str(extension.get("finish_reason") or self.finish_reason or "stop")
        total = int(extension.get("total_tokens") or usage.get("completion_tokens") or 0)
        critical = int(extension.get("critical_path_tokens", total))
        answer = extension.get("answer")
        return Response(
            text=self._text(dialect),
            answer=str(answer) if answer is not None else _after_thinking(self.content),
            content=plain_answer(self.content, "text") if answer is not None else _after_thinking(self.content),
            finish_reason=reason,
            malformed=is_malformed(reason, parses=extension.get("structure_error") is None),
            forks=int(extension.get("forks") or 0),
            total_tokens=total,
            critical_path_tokens=critical,
            critical_path_steps=int(extension.get("critical_path_steps", critical)),
            seconds=float(extension["seconds"]) if extension.get("seconds") is not None else seconds,
            cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        )

    def _text(self, dialect: Dialect | None) -> str:
        """The whole generation; servers send thinking and answer apart."""
        content = str(self.extension.get("answer_text") or self.content)
        if not self.reasoning:
            return content
        think = dialect.think if dialect is not None else None
        if dialect is None or think is None:
            return f"{self.reasoning}\n\n{content}" if content else self.reasoning
        text = f"{think.open}{dialect.sep}{self.reasoning}"
        cut = self.finish_reason != "stop" and not content
        return text if cut else f"{text}{think.close}{dialect.answer_sep}{content}"


def _after_thinking(content: str) -> str:
    """The text after the thinking, for servers that leave the thinking in the content, within the tags that most models use."""
    close = MULTIVERSE.think.close if MULTIVERSE.think is not None else ""
    for tag in (close, close.lower()):
        if tag and tag in content:
            content = content.rpartition(tag)[2]
    return plain_answer(content, "text")


def _message(error: openai.APIError) -> str:
    """The server's message."""
    body = error.body
    return str(body.get("message") or body if isinstance(body, dict) else body or error.message)[:500]


@modelapi(name="multiverse-server")
def multiverse_server() -> type[ModelAPI]:
    """The provider ``multiverse-server/MODEL``."""
    return ServerAPI


def at_server(name: str, base_url: str, api_key: str | None = None) -> ModelAPI:
    """The provider of a server's model; the arguments are `ServerAPI`'s."""
    make: Any = multiverse_server
    api: ModelAPI = make(name, base_url=base_url, api_key=api_key)
    return api
