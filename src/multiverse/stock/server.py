"""One server with OpenAI's completions API, over HTTP: what it is, and streams of answers. No torch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ..common import CommonOptions
from ..errors import RequestError, UpstreamError, require
from ..options import Options, like, option
from ..transport.limiter import ConcurrencyLimiter
from ..transport.retry import LONGEST_WAIT, OVERLOADED, is_transient, seconds_after
from .api import APIS, OPENAI, Api
from .wire import Chunk, read_chunk

if TYPE_CHECKING:
    import httpx

_GROUP = "Server"
_CONNECT = 10.0  # seconds to connect in
_TAIL = 1.0  # seconds for what follows the last token: usage, and the end


@dataclass(frozen=True)
class ServerOptions(Options):
    """A server that generates, and how it is asked.

    Attributes:
        base_url: its address, with or without ``/v1``.
    """

    error = RequestError

    base_url: str = option(
        help="Server with OpenAI's completions API, up to /v1.", metavar="URL", group=_GROUP, env="OPENAI_BASE_URL"
    )
    model: str | None = like(CommonOptions, "model")
    api_key: str | None = like(CommonOptions, "api_key")
    concurrency: int = like(CommonOptions, "concurrency", 64)
    stall_timeout: float = option(
        300.0, "Seconds without a byte after which a request to the server has failed.", gt=0, metavar="S", group="Limits"
    )
    tries: int = option(5, "How often to send a request that fails with a transient error.", ge=1, metavar="N", group="Limits")
    backoff: float = option(0.5, "Seconds before the second try; doubled after each further one.", ge=0)

    @property
    def url(self) -> str:
        """The address up to ``/v1``."""
        base = self.base_url.rstrip("/")
        return base if base.endswith("/v1") else f"{base}/v1"

    @property
    def address(self) -> str:
        """The same without credentials and query, for messages."""
        url = urlsplit(self.url)
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class TransientError(Exception):
    """A request failed, and may succeed when it is repeated.

    Attributes:
        status: of the answer; `None` without one.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class About:
    """What a server says of itself and of its model.

    Attributes:
        model: the model's name there.
        api: the kind of server.
        max_positions: longest context; `None` if it does not say.
    """

    model: str
    api: Api
    max_positions: int | None = None


def look_up(options: ServerOptions) -> About:
    """Ask a server for its models.

    Raises:
        UpstreamError: it cannot be reached, refuses, or has no such model.
        ExtraError: httpx is not installed.
    """
    httpx = require("httpx", "chat")
    with httpx.Client(headers=options.headers, timeout=httpx.Timeout(options.stall_timeout, connect=_CONNECT)) as client:
        answer = _get(httpx, client, options, f"{options.url}/models")
        if answer.status_code == 404 and options.model is not None:  # the list is optional in practice
            return About(options.model, OPENAI)
        if not answer.is_success:
            raise failure(options, answer.status_code, answer.text)
        try:
            entries = {str(entry["id"]): dict(entry) for entry in answer.json()["data"]}
        except (ValueError, KeyError, TypeError):
            raise UpstreamError(
                f"{options.address}/models is no list of models: is this the address of an OpenAI API?"
            ) from None
        name = options.model if options.model is not None else next(iter(entries), None)
        if name not in entries:
            offered = ", ".join(entries) or "none"
            raise UpstreamError(f"{options.address} has no model {name!r}: it offers {offered}", 404)
        entry = entries[name]
        api = APIS.get(str(entry.get("owned_by")), OPENAI)
        longest = entry.get("max_model_len")
        if longest is None and api is APIS["llamacpp"]:
            longest = _context(_get(httpx, client, options, f"{options.url.removesuffix('/v1')}/props"))
        return About(name, api, longest if isinstance(longest, int) and longest > 0 else None)


def _get(httpx: Any, client: httpx.Client, options: ServerOptions, url: str) -> httpx.Response:
    try:
        return client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UpstreamError(
            f"{options.address} cannot be reached ({reason}): check the address, and that the server is up"
        ) from None


def _context(answer: httpx.Response) -> int | None:
    """The context of one slot of llama.cpp's server."""
    try:
        return int(answer.json()["default_generation_settings"]["n_ctx"])
    except (ValueError, KeyError, TypeError):
        return None


class Server:
    """Sends requests to one server, on one event loop; used inside ``async with``.

    Args:
        options: where and how.
        about: what it said of itself.
        by_ids: take the ids of its tokens, not their text.

    Attributes:
        limiter: limits the requests in flight.
    """

    def __init__(self, options: ServerOptions, about: About, *, by_ids: bool) -> None:
        self.options, self.about, self._by_ids = options, about, by_ids
        self._httpx: Any = require("httpx", "chat")
        self.limiter: ConcurrencyLimiter[UpstreamError] = ConcurrencyLimiter(options.concurrency)
        self._closing: set[asyncio.Future[None]] = set()
        timeout = self._httpx.Timeout(options.stall_timeout, connect=_CONNECT, pool=None)
        limits = self._httpx.Limits(max_connections=None, max_keepalive_connections=options.concurrency)
        self._client: httpx.AsyncClient = self._httpx.AsyncClient(headers=options.headers, timeout=timeout, limits=limits)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._client.aclose()

    async def stream(
        self, body: Mapping[str, Any], priority: int = 0, admitted: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of one request's answer, when its turn comes; closing this early ends the request on the server, too.

        Args:
            body: of the request, but for model and streaming.
            priority: higher goes first where requests wait for others.
            admitted: called when it is sent.

        Raises:
            TransientError: the request failed or its answer broke off; it may be repeated from where it has come.
            UpstreamError: it is refused for good.
        """
        permit = await self.limiter.acquire(priority)
        admitted()
        overloaded = success = False
        response: httpx.Response | None = None
        try:
            with self._failing():
                response = await self._send(body)
                async for chunk in self._chunks(response):
                    yield chunk
            success = True
        except GeneratorExit:
            success = True
            raise
        except TransientError as error:
            overloaded = error.status in OVERLOADED
            if error.retry_after > 0:
                self.limiter.pause(error.retry_after)
            raise
        finally:
            self.limiter.release(permit, overloaded=overloaded, success=success)
            if response is not None:
                await self._closed(response)

    async def _closed(self, response: httpx.Response) -> None:
        """Close a response, whoever is cancelled meanwhile: a connection that is left half closed keeps the server at work."""
        closing = asyncio.ensure_future(response.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What goes wrong with a connection is a `TransientError`."""
        httpx = self._httpx
        try:
            yield
        except httpx.ReadTimeout:
            raise TransientError(f"nothing came for {self.options.stall_timeout:g} s") from None
        except httpx.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TransientError(f"the connection broke: {reason}") from None

    async def _send(self, body: Mapping[str, Any]) -> httpx.Response:
        """Send a request; returns when the answer begins.

        Raises:
            TransientError, UpstreamError: it is refused.
        """
        whole = {"model": self.about.model, "stream": True, "stream_options": {"include_usage": True}, **body}
        request = self._client.build_request("POST", f"{self.options.url}/completions", json=whole)
        response = await self._client.send(request, stream=True)
        if not response.is_success:
            try:
                await self._refuse(response)
            finally:
                await self._closed(response)
        return response

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise what an HTTP error means."""
        status, reason = response.status_code, _message((await response.aread()).decode(errors="replace"))
        if not is_transient(status):
            raise _refusal(self.options, status, reason)
        wait = seconds_after(response.headers.get("retry-after"), datetime.now(UTC))
        if wait > LONGEST_WAIT:
            raise UpstreamError(f"{self.options.address} asks to wait {wait:,.0f} s ({status}): ask again after that", status)
        raise TransientError(f"{status}: {reason}", status, wait)

    async def _chunks(self, response: httpx.Response) -> AsyncGenerator[Chunk, None]:
        """The chunks of an answer; the usage that follows the last one is made part of it."""
        kind = response.headers.get("content-type", "")
        if "text/event-stream" not in kind:
            raise UpstreamError(f"{self.options.address} sent {kind or 'nothing known'} where a stream was asked for")
        last: Chunk | None = None
        lines = response.aiter_lines()
        while (line := await self._line(lines, finished=last is not None)) is not None:
            if not line.startswith("data:") or line[5:].strip() == "[DONE]":
                continue  # a comment that keeps the connection alive, an empty line, or the end
            chunk = self._read(line[5:])
            if last is not None:
                last = last._replace(prompt_tokens=chunk.prompt_tokens, cached_tokens=chunk.cached_tokens)
            elif chunk.finish is not None:
                last = chunk
            else:
                yield chunk
        if last is None:
            raise TransientError("the answer broke off")
        yield last

    async def _line(self, lines: AsyncIterator[str], *, finished: bool) -> str | None:
        """The next line; `None` at the end, and for whatever goes wrong behind the last token."""
        if not finished:
            return await anext(lines, None)
        try:
            async with asyncio.timeout(_TAIL):
                return await anext(lines, None)
        except (TimeoutError, self._httpx.HTTPError):
            return None

    def _read(self, data: str) -> Chunk:
        try:
            value = json.loads(data)
            if not isinstance(value, Mapping):
                raise ValueError(f"no completion: {data[:80]}")
            if value.get("error"):
                self._failed(value["error"])
            return read_chunk(value, by_ids=self._by_ids)
        except ValueError as error:
            raise TransientError(f"what came is {error}") from None

    def _failed(self, error: Any) -> None:
        """Raise what an error in the middle of a stream means."""
        code = error.get("code") if isinstance(error, Mapping) else None
        reason = str(error.get("message") if isinstance(error, Mapping) else error)[:300]
        status = code if isinstance(code, int) else None
        if status is not None and 400 <= status < 500 and not is_transient(status):
            raise _refusal(self.options, status, reason)
        raise TransientError(f"the server failed: {reason}", status)


def _message(body: str) -> str:
    """The message of an error's body, on one line."""
    try:
        value = json.loads(body)
        error = value.get("error", value)
        text = str(error.get("message") or error.get("detail") or body) if isinstance(error, Mapping) else str(error)
    except (ValueError, AttributeError):
        text = body
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def failure(options: ServerOptions, status: int, body: str) -> UpstreamError:
    """The error for an answer with an HTTP status that is none of success."""
    return _refusal(options, status, _message(body))


def _refusal(options: ServerOptions, status: int, reason: str) -> UpstreamError:
    hint = {401: "set the right API key", 403: "check the account", 404: "check the model's name and the address"}
    return UpstreamError(
        f"{options.address} refuses the request ({status}: {reason}): {hint.get(status, 'see its log')}", status
    )
