"""In front of replicas: one HTTP server that hands each request to one of them, whole, and passes its answer on.

API keys, limits on bodies and connections, request ids and log lines are the plain server's middleware. A replica answers as
the plain server would; all branches of a request are its alone. What Ray Serve's own ingress cannot do, and this does: try a
request again whose replica died before its answer began, end a stream whose replica died with an error in OpenAI's shape,
refuse with 429 and 503 in that shape, cut off clients that do not send or read, and drain. Knows nothing of Ray: requests are
handed out by a `Pool`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

from . import logs
from .admission import Admission
from .config import ServerConfig
from .errors import ApiError, body, server_error
from .metrics import CONTENT_TYPE, Metrics
from .middleware import App, Message, Receive, Scope, Send, middleware, path_of, refuse
from .sse import DONE, data

ATTEMPTS = 3
"""How often a request is handed out whose answer has not begun."""


class ReplicaLostError(Exception):
    """The replica that worked on a request has died."""


class PoolFullError(Exception):
    """Neither a replica nor the queue can take a request."""


class Report(NamedTuple):
    """State of a replica.

    Attributes:
        stats: as in `/get_server_info`.
        metrics: as in `/metrics`.
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
            ReplicaLostError: the replica has died.
            PoolFullError: neither a replica nor the queue has room.
        """
        ...

    async def replicas(self) -> dict[str, Report]:
        """The latest report of each replica that is alive."""
        ...

    async def close(self) -> None:
        """End all replicas."""
        ...


class Gateway:
    """The application in front of the replicas.

    Args:
        pool: the replicas.
        config: the server's options.
        model_name: by which clients ask for the model.
        limit: requests at once; more are refused at once.

    Attributes:
        config, model_name: as given.
        metrics: of what goes through here.
        admission: counts requests.
    """

    def __init__(self, pool: Pool, config: ServerConfig, model_name: str, limit: int) -> None:
        self.config, self.model_name = config, model_name
        self.metrics = Metrics(model_name)
        self.admission = Admission(limit, config, self.metrics)
        self.admission.started = True
        self._pool = pool
        self._closed = asyncio.Event()
        self._started_at = int(time.time())

    def app(self) -> App:
        """This, inside the plain server's middleware."""
        app: App = self
        for layer in reversed(middleware(self.admission)):
            app = layer.cls(app, *layer.args, **layer.kwargs)
        return app

    def stats(self) -> dict[str, Any]:
        """The server's options, without the keys, and what it is doing."""
        return {
            "model": self.model_name,
            "settings": self.config.public(),
            "started_at": self._started_at,
            "draining": self.admission.draining,
            "requests": {"running": self.admission.held},
        }

    async def close(self) -> None:
        """Stop what still runs, and end the replicas. May be called again."""
        if not self._closed.is_set():
            self._closed.set()
            await self.admission.drain(2)  # time to send an error to those that are cut off
            await self._pool.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path, method = path_of(scope), scope["method"]
        own = {"/health": self._health, "/ready": self._ready, "/metrics": self._metrics, "/get_server_info": self._info}
        try:
            if path in own and method in ("GET", "HEAD"):
                await own[path](send)
            else:
                release = self.admission.hold()
                try:
                    await self._forward(scope, receive, send)
                finally:
                    release()
        except ApiError as error:
            logs.note(error=error.message)
            await refuse(error, send)

    async def _health(self, send: Send) -> None:
        await _send_json(send, {"status": "ok"})

    async def _ready(self, send: Send) -> None:
        if self.admission.draining:
            raise server_error("the server is shutting down: use another one", 503, "not_ready")
        if not await self._pool.replicas():
            raise server_error("no replica is ready: try again soon", 503, "not_ready")
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

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        content = (await receive()).get("body", b"")
        plain = _plain(scope)
        for attempt in range(1, ATTEMPTS + 1):
            answer = _Passage(send)
            try:
                await self._pass(self._pool.answer(plain, content), answer)
                return
            except PoolFullError:
                raise self.admission.full() from None
            except ReplicaLostError:
                logs.log("replica lost", attempt=attempt, begun=answer.begun)
                if answer.begun or attempt == ATTEMPTS:
                    await answer.fail(_lost())
                    return
            except _CutOffError:
                await answer.fail(self.admission.unavailable())
                return

    async def _pass(self, messages: AsyncIterator[list[Message]], answer: _Passage) -> None:
        """Pass on the messages of an answer, until it is complete or the server is closed."""
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
                    if not answer.complete:
                        raise ReplicaLostError
                    return
                for message in batch:
                    await answer.send(message)
        finally:
            closed.cancel()
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()


class _CutOffError(Exception):
    """The server closes before a request is over."""


class _Passage:
    """Passes one answer on. All but streams are held back until complete, so that they can be replaced by an error.

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
        """Pass on one message, or hold it back."""
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
        """End the answer with an error."""
        logs.note(error=error.message)
        if not self.begun:
            raise error
        await self._send({"type": "http.response.body", "body": b"\n\n" + data(body(error)) + DONE, "more_body": False})


def _plain(scope: Scope) -> dict[str, Any]:
    """A request as plain data for a replica, with its id, without its key."""
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


def _lost() -> ApiError:
    message = "the replica that worked on this request has died; another one takes its place: ask again"
    return server_error(message, 503, "replica_lost", retry_after=1)


def merge_metrics(texts: Mapping[str, str]) -> str:
    """Prometheus texts of several sources as one: each sample gets a label `replica` with its source."""
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
