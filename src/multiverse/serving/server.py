"""uvicorn, with timeouts for slow connections and a graceful shutdown.

On SIGTERM (or Ctrl-C) the server goes on listening: admitted requests are finished within the grace period, and others refused
with 503. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import ExtraError, RequestError
from . import logs
from .errors import ApiError, body

try:
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as missing:
    raise ExtraError("uvicorn", "serve") from missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .admission import Admission
    from .config import ServerConfig
    from .middleware import App
    from .service import Service

_KEEP_ALIVE = 30  # seconds for which a connection may be idle between two requests
_FLUSH = 5  # seconds to send answers out, once all are complete


class _Timer:
    """Calls a function after some seconds, unless it is stopped before; starting it while it runs changes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]) -> None:
        self._loop, self._seconds, self._act = loop, seconds, act
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._fire)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._act()


class Connection(H11Protocol):
    """One connection, with the timeouts that `connection_class` sets.

    uvicorn itself waits without limit for the head of a request, and for a client that does not read its answer.
    """

    header_timeout: float
    write_timeout: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first request's head."""
        super().connection_made(transport)
        self._head = _Timer(self.loop, self.header_timeout, self._no_head)
        self._unread = _Timer(self.loop, self.write_timeout, transport.abort)
        self._head.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timeouts."""
        self._head.stop()
        self._unread.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the timeout runs from the first ones of a request to the end of its head."""
        if not self._busy:
            self._head.start()
        super().data_received(data)
        if self._busy:
            self._head.stop()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._unread.start()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._unread.stop()

    def on_response_complete(self) -> None:
        """An answer has been written; if the connection ends with it, the client must read the rest in time."""
        super().on_response_complete()
        if self._busy:  # a pipelined request follows
            self._head.stop()
        if self.transport.is_closing():
            self._unread.start()

    def send_400_response(self, msg: str) -> None:
        """The client sent no valid HTTP."""
        self._end(ApiError(400, msg, "invalid_request_error", code="bad_http"))

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _no_head(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            message = f"the head of the request did not arrive within {self.header_timeout:g} s"
            self._end(ApiError(408, message, "invalid_request_error", code="request_timeout"))
        else:  # no request, no answer
            self.transport.close()

    def _end(self, error: ApiError) -> None:
        """Send an error, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps(body(error)).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(content))),
                ("connection", "close"),
            ]
            response = h11.Response(status_code=error.status, headers=headers, reason=b"")
            for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._unread.start()


def connection_class(config: ServerConfig) -> type[Connection]:
    """`Connection` with these timeouts."""
    timeouts = {"header_timeout": config.header_timeout, "write_timeout": config.write_timeout}
    return type("TimedConnection", (Connection,), timeouts)


class Served(Protocol):
    """What a server needs of what it serves: a `Service` or a `Gateway`."""

    config: ServerConfig
    model_name: str
    admission: Admission

    def stats(self) -> dict[str, Any]:
        """The load, as ``requests``."""
        ...

    async def close(self) -> None:
        """Stop what still runs."""
        ...


class Server(uvicorn.Server):
    """Serves one application until a signal comes.

    Args:
        config: uvicorn's.
        served: is drained and closed when a signal comes.
        on_ready: called with the server's address once it listens.
    """

    def __init__(self, config: uvicorn.Config, served: Served, on_ready: Callable[[str], None] | None = None) -> None:
        super().__init__(config)
        self._served = served
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and log the address."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        if self.started:
            url = _url(self.servers[0].sockets[0].getsockname(), self.config.is_ssl)
            logs.log("ready", url=url, model=self._served.model_name)
            if self._on_ready is not None:
                self._on_ready(url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (uvicorn's signature)
        """The first signal drains, the second one ends at once."""
        if self._loop is None:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self.leave, signal.Signals(sig).name)

    def leave(self, reason: str) -> None:
        """Finish running requests, then stop; called a second time, stop at once."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(reason))
        else:
            logs.log("stopping at once", reason=reason)
            self.should_exit = self.force_exit = True

    async def _leave(self, reason: str) -> None:
        grace = self._served.config.drain_grace
        logs.log("draining", reason=reason, grace=grace, **self._served.stats()["requests"])
        done = await self._served.admission.drain(grace)
        logs.log("drained" if done else "grace is over", **self._served.stats()["requests"])
        await self._served.close()  # sends an error to those that are left
        self.should_exit = True


def listen(config: ServerConfig) -> socket.socket:
    """Bind the address, before a model is loaded.

    Raises:
        RequestError: it cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        own = socket.socket(family, kind, protocol)
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(address)
        except BaseException:
            own.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RequestError(
            f"the server cannot listen at {config.host} port {config.port} ({reason}): choose another host or port"
        ) from None
    own.setblocking(False)
    return own


def make_server(
    served: Served, app: App, on_ready: Callable[[str], None] | None = None, *, lifespan: Literal["on", "off"] = "on"
) -> Server:
    """A server for this application."""
    config = served.config
    settings = uvicorn.Config(
        app,
        http=connection_class(config),
        ws="none",
        lifespan=lifespan,
        root_path=config.root_path,
        log_config=None,
        access_log=False,  # the middleware writes one
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_FLUSH,
    )
    return Server(settings, served, on_ready)


def serve(service: Service, own: socket.socket, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve at an address that `listen` has bound, until a signal comes and running requests are finished."""
    from .app import create_app

    make_server(service, create_app(service), on_ready).run(sockets=[own])


def _url(address: Any, secure: bool) -> str:
    host, port = address[:2]
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
