"""In front of replicas: one HTTP server that hands each request to one of them, whole, and passes its answer on.

Keys, limits on bodies and connections, request ids and log lines are the plain server's own middleware. A replica gets what is
left and answers as the plain server would; all branches of a request are its alone. If it dies over a request, the client is
told in OpenAI's shape, in the middle of a stream too. Knows nothing of Ray: what hands out requests is a `Pool`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from . import logs
from .errors import ApiError, body
from .metrics import CONTENT_TYPE, Metrics
from .middleware import App, Bodies, Keys, Message, Observe, Receive, Scope, Send, path_of, refuse
from .settings import Settings

ATTEMPTS = 3
"""How often a request is handed out that has come to nothing yet."""


class ReplicaLostError(Exception):
    """The replica that worked on a request is gone."""


class PoolFullError(Exception):
    """No replica has room, nor has the queue."""


class Report(NamedTuple):
    """What a replica says of itself.

    Attributes:
        stats: as `/get_server_info` tells them.
        metrics: as `/metrics` does.
        pid: its process.
    """

    stats: dict[str, Any]
    metrics: str
    pid: int


class Pool(Protocol):
    """Hands requests to replicas."""

    def answer(self, scope: dict[str, Any], content: bytes) -> AsyncIterator[list[Message]]:
        """The messages of one replica's answer as they come; closing the iterator stops the work on it.

        Raises:
            ReplicaLostError: the replica is gone; what it was doing is lost.
            PoolFullError: nobody can take the request.
        """
        ...

    async def replicas(self) -> dict[str, Report]:
        """What each replica that is alive has said of itself lately."""
        ...

    async def close(self) -> None:
        """End all replicas."""
        ...


class Gateway:
    """The application, and what the server's loop wants of a runner.

    Args:
        pool: the replicas.
        room: requests that can be under way at once; more are refused at once.

    Attributes:
        settings: the server's options.
        metrics: of what goes through here.
        model_name: by which clients ask for the model.
        draining: whether it takes no more requests.
    """

    def __init__(self, pool: Pool, settings: Settings, model_name: str, room: int) -> None:
        self.settings, self.model_name = settings, model_name
        self.metrics = Metrics(model_name)
        self.draining = False
        self._pool, self._room = pool, room
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = asyncio.Event()
        self._started_at = time.time()

    def app(self) -> App:
        """The whole application: this, inside the plain server's middleware."""
        settings = self.settings
        app: App = Observe(Keys(Bodies(self, as_runner(self)), settings), as_runner(self))
        if settings.cors_origins:
            from fastapi.middleware.cors import CORSMiddleware

            exposed = ["x-request-id", "retry-after"]
            origins = list(settings.cors_origins)
            app = CORSMiddleware(app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed)
        return app

    def stats(self) -> dict[str, Any]:
        """The server's options, without the keys, and what it is doing."""
        options = asdict(self.settings)
        return {
            "model": self.model_name,
            "settings": {**options, "api_keys": len(self.settings.api_keys)},
            "started_at": int(self._started_at),
            "draining": self.draining,
            "requests": {"running": self._running},
        }

    def check_room(self) -> None:
        """Turn a generation away before its request is read, if there is no place for it.

        Raises:
            ApiError: 429 when full; 503 while draining.
        """
        if self.draining:
            self.metrics.rejected("draining")
            raise _shutting_down()
        if self._running >= self._room:
            self.metrics.rejected("full")
            raise _full()

    async def drain(self, grace: float | None = None) -> bool:
        """Take no more requests, and wait until those that run are over; returns whether all of them are.

        Args:
            grace: seconds after which to stop waiting; `None` takes the settings'.
        """
        self.draining = True
        try:
            async with asyncio.timeout(self.settings.drain_grace if grace is None else grace):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop what still runs, and end the replicas. May be called again."""
        self.draining = True
        if not self._closed.is_set():
            self._closed.set()
            try:
                async with asyncio.timeout(2):  # in which those who are cut off are told so
                    await self._idle.wait()
            except TimeoutError:
                pass
            await self._pool.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path, method = path_of(scope), scope["method"]
        own = {"/health": self._health, "/ready": self._ready, "/metrics": self._metrics, "/get_server_info": self._info}
        try:
            if path in own and method in ("GET", "HEAD"):
                await own[path](send)
            else:
                with self._counted():
                    await self._forward(scope, receive, send)
        except ApiError as error:
            logs.note(error=error.message)
            await refuse(error, send)

    # -- what is answered here ----------------------------------------------------------------------------------------

    async def _health(self, send: Send) -> None:
        await _send_json(send, {"status": "ok"})

    async def _ready(self, send: Send) -> None:
        if self.draining:
            raise ApiError(503, "the server is shutting down: ask another one", "server_error", code="not_ready")
        if not await self._pool.replicas():
            raise ApiError(503, "no replica is ready: try again soon", "server_error", code="not_ready")
        await _send_json(send, {"status": "ok"})

    async def _info(self, send: Send) -> None:
        reports = await self._pool.replicas()
        await _send_json(
            send, {**self.stats(), "replicas": {name: {"pid": report.pid, **report.stats} for name, report in reports.items()}}
        )

    async def _metrics(self, send: Send) -> None:
        texts = {name: report.metrics for name, report in (await self._pool.replicas()).items()}
        texts["gateway"] = self.metrics.render().decode()
        await _send(send, 200, CONTENT_TYPE, merge_metrics(texts).encode())

    # -- what a replica answers ---------------------------------------------------------------------------------------

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        content = (await receive()).get("body", b"")
        asked = _plain(scope)
        for attempt in range(1, ATTEMPTS + 1):
            answer = _Passage(send)
            try:
                await self._pass(self._pool.answer(asked, content), answer)
                return
            except PoolFullError:
                self.metrics.rejected("full")
                raise _full() from None
            except ReplicaLostError:
                logs.log("replica lost", attempt=attempt, begun=answer.begun)
                if answer.begun or attempt == ATTEMPTS:
                    await answer.fail(_lost())
                    return
            except _CutOffError:
                await answer.fail(_shutting_down())
                return

    async def _pass(self, messages: AsyncIterator[list[Message]], answer: _Passage) -> None:
        """Send what a replica says, until it has said everything or the server is closed."""
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            while True:
                step = asyncio.ensure_future(anext(messages, None))
                try:
                    await asyncio.wait({step, closed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not step.done():
                        step.cancel()
                        await asyncio.gather(step, return_exceptions=True)
                if step.cancelled():
                    raise _CutOffError
                batch = step.result()
                if batch is None:
                    if not answer.complete:  # it has ended without saying so
                        raise ReplicaLostError
                    return
                for message in batch:
                    await answer.send(message)
        finally:
            closed.cancel()
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


class _CutOffError(Exception):
    """The server closes before a request is over."""


class _Passage:
    """Passes one answer on. All but streams are held until they are complete, so that there is something else to say instead.

    Attributes:
        begun: whether the client has been sent anything.
        complete: whether it has been sent everything.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self._streaming = False
        self.begun = self.complete = False

    async def send(self, message: Message) -> None:
        """Pass on one message, when its time has come."""
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            self._streaming = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._held.append(message)
        if self._streaming or last:
            held, self._held = self._held, []
            for earlier in held:
                self.begun = True
                await self._send(earlier)
        self.complete = self.complete or last

    async def fail(self, error: ApiError) -> None:
        """Say that there will be no more."""
        logs.note(error=error.message)
        if not self.begun:
            raise error
        told = f"\n\ndata: {json.dumps(body(error), ensure_ascii=False)}\n\ndata: [DONE]\n\n"
        await self._send({"type": "http.response.body", "body": told.encode(), "more_body": False})


def as_runner(gateway: Gateway) -> Any:
    """Of a runner, middleware and server need no more than what a gateway has."""
    return gateway


def _plain(scope: Scope) -> dict[str, Any]:
    """What a replica has to know of a request: plain data, the request's id included."""
    kept = (
        "type",
        "asgi",
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "client",
        "server",
    )
    plain = {name: scope[name] for name in kept if name in scope}
    headers = [
        (bytes(name), bytes(value)) for name, value in scope["headers"] if name not in (b"x-request-id", b"authorization")
    ]
    exchange = logs.current()
    if exchange is not None:
        headers.append((b"x-request-id", exchange.id.encode()))
    return {**plain, "headers": headers}


async def _send_json(send: Send, value: Mapping[str, Any]) -> None:
    await _send(send, 200, "application/json", json.dumps(value, ensure_ascii=False).encode())


async def _send(send: Send, status: int, content_type: str, content: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _full() -> ApiError:
    told = "all replicas are full: try again in 1 s"
    return ApiError(429, told, "rate_limit_error", code="server_full", headers={"retry-after": "1"})


def _lost() -> ApiError:
    return ApiError(
        503,
        "the replica that worked on this request has died; another one takes its place: ask again",
        "server_error",
        code="replica_lost",
        headers={"retry-after": "1"},
    )


def _shutting_down() -> ApiError:
    return ApiError(
        503,
        "the server is shutting down: it finishes what runs and takes no new requests; ask another one, or try again soon",
        "server_error",
        code="shutting_down",
        headers={"retry-after": "5"},
    )


def merge_metrics(texts: Mapping[str, str]) -> str:
    """Prometheus texts of several sources as one: each sample says in the label `replica` whose it is."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for source, text in texts.items():
        label = f'replica="{source}"'
        heads, samples = families.setdefault("", ([], []))
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                heads, samples = families.setdefault(name, ([], []))
                if line not in heads and len(heads) < 2:
                    heads.append(line)
            elif line and not line.startswith("#"):
                name, brace, rest = line.partition("{")
                if brace:
                    samples.append(f"{name}{{{label},{rest}" if not rest.startswith("}") else f"{name}{{{label}{rest}")
                else:
                    name, _, value = line.partition(" ")
                    samples.append(f"{name}{{{label}}} {value}")
    return "".join(f"{line}\n" for heads, samples in families.values() for line in (*heads, *samples))
