"""A scripted server for tests of the page: the page's files, and recorded events as a stream."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Any

STATIC = files("multiverse.serving") / "static"

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "woff2": "font/woff2"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'"
)
"""Stricter than what the server sends along: the page must live with it."""

Answer = Callable[[dict[str, Any]], Sequence[dict[str, Any]]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A browser that leaves in the middle of something is nothing to tell of."""


class Playback:
    """The server.

    Attributes:
        answer: gives the events for a request's body; the test sets it.
        refusal: status, headers and message with which requests are refused; `None` to answer them.
        key: what has to come as a bearer token; `None` asks for nothing.
        held: how many moments of each stream are sent before it waits for `go`; `None` sends all.
        requests: path and body of what was asked for.
        hung_up: set when a client has left in the middle of a stream.
    """

    def __init__(self) -> None:
        self.answer: Answer = lambda _: []
        self.refusal: tuple[int, dict[str, str], str] | None = None
        self.key: str | None = None
        # What the model says of itself, and of the questions that are asked.
        self.about: dict[str, Any] | None = None
        self.notice: str | None = None
        self.held: int | None = None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.hung_up = threading.Event()
        self._go = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def hold(self, count: int | None) -> None:
        """Send so many events of each stream, then wait."""
        self.held = count
        self._go.clear()

    def go(self) -> None:
        """Send the rest."""
        self._go.set()

    def wait(self, connection: socket.socket) -> bool:
        """Called by a stream that has to wait; returns whether the client is still connected."""
        end = time.monotonic() + 60
        while time.monotonic() < end and not self._go.wait(0.05):
            # A disconnect is detected by the end of the client's data; writing may succeed for a while.
            if select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK):
                self.hung_up.set()
                return False
        return self._go.is_set()

    def __enter__(self) -> Playback:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.go()
        self._server.shutdown()
        self._server.server_close()


def _choice(moment: dict[str, Any]) -> dict[str, Any]:
    """The ordinary part of a chunk: the answer as content, all else that is written as reasoning."""
    text = moment.get("text") if moment["event"] == "token" else None
    delta = {"content" if moment.get("role") == "answer" else "reasoning": text} if text else {}
    return {"index": 0, "delta": delta}


def _handler(playback: Playback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/v1/models":
                if self.allowed():
                    model = {"id": "multiverse-mini", "object": "model", "about": playback.about}
                    self.reply({"object": "list", "data": [model]})
                return
            name = "index.html" if path == "/" else path.removeprefix("/static/")
            file = STATIC.joinpath(*name.split("/"))
            if ".." in name or not file.is_file():
                self.error(404, f"there is no {path}")
                return
            self.send(200, TYPES[name.rpartition(".")[2]], file.read_bytes())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            playback.requests.append((self.path, body))
            if not self.allowed():
                return
            if playback.refusal is not None:
                status, headers, message = playback.refusal
                self.error(status, message, headers)
            elif self.path == "/familiarity":
                self.reply({"unlike": playback.notice is not None, "notice": playback.notice})
            elif self.path == "/parse":
                self.reply({"events": list(playback.answer(body)), "tree": {}})
            else:
                self.stream(playback.answer(body))

        def allowed(self) -> bool:
            if playback.key is None or self.headers["authorization"] == f"Bearer {playback.key}":
                return True
            self.error(401, "this server needs a key")
            return False

        def stream(self, moments: Sequence[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            try:
                for number, moment in enumerate(moments):
                    if number == playback.held and not playback.wait(self.connection):
                        return
                    chunk = moment if "error" in moment else {"choices": [_choice(moment)], "multiverse": moment}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                    self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")
            except (BrokenPipeError, ConnectionResetError):
                playback.hung_up.set()

        def reply(self, value: Any) -> None:
            self.send(200, "application/json", json.dumps(value).encode())

        def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
            body = {"error": {"message": message, "type": "error", "param": None, "code": None}}
            self.send(status, "application/json", json.dumps(body).encode(), headers)

        def send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            given = {
                "content-type": kind,
                "content-length": str(len(body)),
                "content-security-policy": POLICY,
                **(headers or {}),
            }
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler
