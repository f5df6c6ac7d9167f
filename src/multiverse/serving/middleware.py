"""Around every HTTP request: request ids, log lines, API keys, limits on bodies, disconnects. Plain ASGI.

From the outside in: CORS, `Observe`, `Keys`, `Bodies`, the application.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from . import logs
from .errors import ApiError, body

if TYPE_CHECKING:
    from starlette.middleware import Middleware

    from .admission import Admission
    from .config import ServerConfig

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/health", "/ready", "/favicon.ico", "/docs", "/redoc", "/version"})
"""Paths that need no key; nor does anything below `STATIC`."""
STATIC = "/static/"
GENERATING = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})
"""Paths that need admission: when the server is full, the body need not be read."""
QUIET = frozenset({"/health", "/ready", "/metrics"})
"""Paths that are polled every few seconds, and logged only at level debug."""
CLIENT_LEFT = 499

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LINGER = 2.0  # seconds for which the rest of a refused body is read and discarded, so that the client gets to its answer
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    # The page is served whole from here: nothing is loaded from, or sent to, anywhere else.
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        b"font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class ClientLeftError(Exception):
    """The client disconnected before the end of its answer."""


def middleware(admission: Admission) -> list[Middleware]:
    """Everything here, outermost first."""
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware

    layers = [
        Middleware(Observe, admission=admission),
        Middleware(Keys, config=admission.config),
        Middleware(Bodies, admission=admission),
    ]
    if origins := list(admission.config.cors_origins):
        exposed = ["x-request-id", "retry-after"]
        layers.insert(
            0,
            Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed),
        )
    return layers


class Observe:
    """Gives each request its id, its log line and its headers; turns uncaught exceptions into a plain 500."""

    def __init__(self, app: App, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = logs.Exchange(_request_id(scope))
        logs.enter(exchange)
        answer = _Answer(send, exchange.id, self._admission)
        began = time.monotonic()
        left = False
        try:
            await self._app(scope, receive, answer.send)
        except ClientLeftError:
            left = True
        except asyncio.CancelledError:
            left = answer.status is None
            raise
        except Exception:
            logs.LOGGER.exception("unexpected error")
            if answer.status is None:
                await refuse(ApiError(500, "the server failed on this request; its log says why", "server_error"), answer.send)
        finally:
            exchange.end()
            status = CLIENT_LEFT if left else answer.status
            self._admission.metrics.answered(scope["method"], CLIENT_LEFT if status is None else status)
            self._log(scope, status, time.monotonic() - began, answer.size, exchange)

    def _log(self, scope: Scope, status: int | None, seconds: float, size: int, exchange: logs.Exchange) -> None:
        path = path_of(scope)
        level = logging.DEBUG if path in QUIET and status is not None and status < 500 else logging.INFO
        client = scope.get("client")
        logs.log(
            "request",
            level=level,
            method=scope["method"],
            path=path,
            status=status,
            seconds=round(seconds, 4),
            bytes=size,
            client=client[0] if client else None,
            **exchange.fields,
        )


class _Answer:
    """Notes status and size of an answer, and adds the headers that every answer has."""

    def __init__(self, send: Send, request_id: str, admission: Admission) -> None:
        self._send = send
        self._request_id = request_id
        self._admission = admission
        self.status: int | None = None
        self.size = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = dict(_HEADERS) | {b"x-request-id": self._request_id.encode()}
            if self._admission.draining:  # the client's next request should go elsewhere
                own[b"connection"] = b"close"
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": [*given, *(pair for pair in own.items() if pair[0] not in names)]}
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)


class Keys:
    """Requires an API key, except for what is open to everybody."""

    def __init__(self, app: App, config: ServerConfig) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in config.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope) if scope["type"] == "http" and self._digests else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refuse(error, send, receive)

    def _error(self, scope: Scope) -> ApiError | None:
        path = path_of(scope)
        if scope["method"] in ("GET", "HEAD") and (path in OPEN or path.startswith(STATIC)):
            return None
        scheme, _, key = _header(scope, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            return _unauthorized("no API key was sent: add the header  Authorization: Bearer KEY", "missing_api_key")
        digest = _digest(key.strip())
        # All are compared, in constant time: the duration gives nothing away.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            return _unauthorized("the API key is not valid here", "invalid_api_key")
        logs.note(key=digest.hex()[:8])
        return None


class Bodies:
    """Reads a request's body within limits of size and time, and cancels the work on a request whose client has left."""

    def __init__(self, app: App, admission: Admission) -> None:
        self._app = app
        self._admission = admission
        self._limit = admission.config.max_body_bytes
        self._timeout = admission.config.body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] == "POST" and path_of(scope) in GENERATING:
                self._admission.check()
            content = await self._read(scope, receive)
        except ApiError as error:
            await refuse(error, send, receive)
            return
        await self._answer(scope, receive, send, content)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length) > self._limit:
            raise self._too_large()
        content = bytearray()
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeftError
                    content += message.get("body", b"")
                    if len(content) > self._limit:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(content)
        except TimeoutError:
            raise ApiError(
                408,
                f"the body of the request did not arrive within {self._timeout:g} s: send it again",
                "invalid_request_error",
                code="request_timeout",
            ) from None

    async def _answer(self, scope: Scope, receive: Receive, send: Send, content: bytes) -> None:
        """Run the application; if the client leaves before its answer is complete, cancel it."""
        gone = asyncio.Event()
        read = complete = False

        async def replay() -> Message:
            nonlocal read
            if not read:
                read = True
                return {"type": "http.request", "body": content, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def forward(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
            await send(message)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        work = asyncio.ensure_future(self._app(scope, replay, forward))
        watcher = asyncio.create_task(watch())
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not complete:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                raise ClientLeftError
            await work
        finally:
            watcher.cancel()
            work.cancel()

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the body of the request is larger than the {self._limit} bytes that the server takes: send less",
            "invalid_request_error",
            code="request_too_large",
        )


async def refuse(error: ApiError, send: Send, receive: Receive | None = None) -> None:
    """Answer with an error.

    Args:
        error: the answer.
        send: of the ASGI connection.
        receive: given when the request's body has not been read. The connection is closed then; before that, what still comes
            is discarded for a short time, since a client that is cut off while it sends does not read the answer.
    """
    content = json.dumps(body(error), ensure_ascii=False).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), **error.headers}
    if receive is not None:
        headers["connection"] = "close"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content, "more_body": receive is not None})
    if receive is not None:
        await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def path_of(scope: Scope) -> str:
    """The requested path, without the prefix of a reverse proxy."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    inside = root and (path == root or path.startswith(root + "/"))
    return path.removeprefix(root) if inside else path


def _request_id(scope: Scope) -> str:
    """The one that the client sent, if it is fit for a header and a log, else a new one."""
    given = _header(scope, b"x-request-id").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _unauthorized(message: str, code: str) -> ApiError:
    return ApiError(401, message, "authentication_error", code=code, headers={"www-authenticate": "Bearer"})
