"""A server of nobody's: OpenAI's chat completions, streamed, with answers on command and a note of every question."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Endpoint:
    """What it answers, and what it was asked.

    Attributes:
        answer: what is written to a question.
        delay: seconds that each answer takes.
        refuse: statuses with which the first requests are refused.
        bodies: the requests, in the order in which they came; `keys`: what each came with.
        most: how many were under way at once, at most.
    """

    answer: Callable[[str], str] = lambda _: "\\boxed{42}"
    delay: float = 0.0
    refuse: tuple[int, ...] = ()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    most: int = 0
    url: str = ""

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


class _Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "their-model", "owned_by": "nobody"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        number = len(self.endpoint.bodies)
        self.endpoint.bodies.append(body)
        self.endpoint.keys.append(self.headers["authorization"])
        if number < len(self.endpoint.refuse):
            self._send(self.endpoint.refuse[number], {"error": {"message": "not now"}})
            return
        with self.endpoint.lock:
            self.endpoint.running += 1
            self.endpoint.most = max(self.endpoint.most, self.endpoint.running)
        time.sleep(self.endpoint.delay)
        with self.endpoint.lock:
            self.endpoint.running -= 1
        text = self.endpoint.answer(body["messages"][-1]["content"])
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in (text[:3], text[3:]):
            self._event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(text)}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no fault of ours."""


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Run it, on a free port of the loopback."""
    handler = type("Handler", (_Handler,), {"endpoint": endpoint})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
