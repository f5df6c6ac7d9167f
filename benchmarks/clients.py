"""HTTP clients for a load test: some read everything, some read slowly, disconnect early or send malformed requests."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from multiverse.tasks import CALCULATIONS, generate

KINDS = {"reader": 45, "slow": 15, "leaver": 20, "malformed": 12, "whole": 8}
"""Kinds of clients, and how many of a hundred are of each."""
MAX_SECONDS = 300.0
CHAT = "/v1/chat/completions"

MALFORMED: tuple[tuple[str, bytes, int], ...] = (
    (CHAT, b"{", 400),
    (CHAT, b"\xff\xfe", 400),
    (CHAT, b"[]", 400),
    (CHAT, b'{"messages": "hello"}', 400),
    (CHAT, b'{"messages": []}', 400),
    (CHAT, b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": -1}', 400),
    (CHAT, b'{"messages": [{"role": "user", "content": "hi"}], "temperature": "hot"}', 400),
    (CHAT, b'{"messages": [{"role": "user", "content": "hi"}], "surprise": 1}', 400),
    (CHAT, b'{"model": "another", "messages": [{"role": "user", "content": "hi"}]}', 404),
    (CHAT, b"[" * 20000, 400),
    ("/v1/nothing", b"{}", 404),
    ("/v1/models", b"{}", 405),
)
"""Path and body of malformed requests, and the status that each must get."""


class ResponseError(Exception):
    """A response is not as it must be."""


FAILURES = (ResponseError, SSEError, httpx.HTTPError)


@dataclass
class Tally:
    """Outcomes of all clients.

    Attributes:
        counts: clients of each kind that ended as expected.
        errors: errors that the client did not cause, and how often each occurred.
        first_token, between_tokens, whole: seconds; between two tokens of one branch.
        tokens: generated for clients that read everything.
    """

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    first_token: list[float] = field(default_factory=list)
    between_tokens: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0


def open_client(address: tuple[str, int], buffer: int | None = None) -> httpx.AsyncClient:
    """A client that opens a connection per request, without a limit on connections or time.

    Args:
        address: host and port of the server.
        buffer: bytes of a connection's receive buffer; `None` for the system's default.
    """
    options = [] if buffer is None else [(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(verify=False, limits=limits, socket_options=options)  # no TLS, so no certificates
    headers = {"content-type": "application/json"}
    return httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", transport=transport, timeout=None, headers=headers)


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed response.

    Raises:
        ResponseError: the status is not 200, a chunk holds an error, or the stream ends without ``[DONE]``.
    """
    if response.status_code != 200:
        raise ResponseError(f"status {response.status_code}: {(await response.aread())[:200]!r}")
    async for event in EventSource(response).aiter_sse():
        if event.data == "[DONE]":
            return
        chunk: dict[str, Any] = json.loads(event.data)
        if "error" in chunk:
            raise ResponseError(f"an error in the stream: {chunk['error'].get('message')}")
        yield chunk
    raise ResponseError("the stream ended without [DONE]")


class Clients:
    """Clients of one server, each of which sends one request after the other.

    Attributes:
        tally: their outcomes; may be replaced by an empty one at any time.
        open: number of clients that run.
    """

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self.http, self._slow_http = open_client(address), open_client(address, buffer=2048)
        self.rng = random.Random(seed)
        self.questions = [problem.question for family in CALCULATIONS for problem in generate(family, 60, seed=seed)]
        self.tally = Tally()
        self.open = 0
        self._stopped = False

    async def run(self, clients: int) -> None:
        """Keep this number of clients busy until `stop` is called; each finishes its last request."""

        async def client() -> None:
            await asyncio.sleep(self.rng.random())  # spreads the starts
            self.open += 1
            while not self._stopped:
                await self.one(self.rng.choices(list(KINDS), list(KINDS.values()))[0])
            self.open -= 1

        await asyncio.gather(*(client() for _ in range(clients)))

    def stop(self) -> None:
        """Start no more requests."""
        self._stopped = True

    async def one(self, kind: str) -> None:
        """Run one client of this kind, and record its outcome."""
        try:
            async with asyncio.timeout(MAX_SECONDS):
                await getattr(self, f"_{kind}")()
            self.tally.counts[kind] += 1
        except (*FAILURES, TimeoutError, ValueError) as error:
            self.tally.errors[f"{kind}: {type(error).__name__}: {error}"[:200]] += 1

    def body(self, *, stream: bool = True, branches: bool = False, max_tokens: int = 600) -> bytes:
        """A random question as the body of a request."""
        request: dict[str, Any] = {
            "messages": [{"role": "user", "content": self.rng.choice(self.questions)}],
            "temperature": self.rng.choice([0, 0.6]),
            "max_tokens": max_tokens,
            "stream": stream,
        }
        if stream:
            request["stream_options"] = {"include_usage": True}
        if branches:
            request["multiverse"] = {"branches": True}
        return json.dumps(request).encode()

    def chat(self, body: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a chat completion; the response is read as it arrives."""
        return self.http.stream("POST", CHAT, content=body)

    async def _reader(self) -> None:
        began = time.monotonic()
        last: dict[str, float] = {}
        text, usage, first = "", None, None
        async with self.chat(self.body(branches=True)) as response:
            async for chunk in events(response):
                now = time.monotonic()
                event = chunk.get("multiverse", {})
                branch = event.get("branch", "")
                if event.get("event") == "token" and not event.get("forced"):
                    if first is None:
                        first = now - began
                        self.tally.first_token.append(first)
                    if branch in last:
                        self.tally.between_tokens.append(now - last[branch])
                    last[branch] = now
                elif event.get("event") == "join":
                    last[branch] = now
                text += _text(chunk)
                usage = chunk.get("usage") or usage
        if not text or usage is None:
            raise ResponseError("the response has no text or no usage")
        self.tally.whole.append(time.monotonic() - began)
        self.tally.tokens += usage["completion_tokens"]

    async def _slow(self) -> None:
        pause = self.rng.choice([0.01, 0.05])
        text = ""
        async with self._slow_http.stream("POST", CHAT, content=self.body()) as response:
            async for chunk in events(response):
                text += _text(chunk)
                await asyncio.sleep(pause)
        if not text:
            raise ResponseError("the response has no text")

    async def _leaver(self) -> None:
        wanted = self.rng.randrange(40)
        async with self.chat(self.body(branches=self.rng.random() < 0.5)) as response:
            async for _ in events(response):
                wanted -= 1
                if wanted < 0:
                    return

    async def _whole(self) -> None:
        body = self.body(stream=False)
        if self.rng.random() < 0.3:  # disconnects before the response
            with suppress(TimeoutError):
                async with asyncio.timeout(self.rng.random() / 2):
                    await self.http.post(CHAT, content=body)
            return
        response = await self.http.post(CHAT, content=body)
        if response.status_code != 200 or not response.json()["choices"][0]["finish_reason"]:
            raise ResponseError(f"status {response.status_code}: {response.text[:200]}")

    async def _malformed(self) -> None:
        path, body, expected = self.rng.choice(MALFORMED)
        response = await self.http.post(path, content=body)
        if response.status_code != expected or "error" not in response.json():
            raise ResponseError(f"{path} {body[:60]!r} got status {response.status_code} instead of {expected}")


def _text(chunk: dict[str, Any]) -> str:
    deltas = [choice.get("delta", {}) for choice in chunk.get("choices", ())]
    return "".join((delta.get("reasoning") or "") + (delta.get("content") or "") for delta in deltas)
