"""HTTP clients for a load test: polite ones, slow ones, some that leave in the middle, and some that send nonsense.

Plain asyncio streams: light enough that one process keeps hundreds of them busy, and free to be rude.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from multiverse.tasks import FAMILIES, generate

KINDS = {"reader": 45, "slow": 15, "leaver": 20, "malformed": 12, "whole": 8}
"""Kinds of clients, and of a hundred how many are of each."""
MOST_SECONDS = 300.0
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
"""What malformed clients send, and the answer that each should get."""


class HttpError(Exception):
    """An answer that makes no sense."""


@dataclass
class Tally:
    """What happened to all clients.

    Attributes:
        counts: how many of each kind came to the end that they should come to.
        errors: what went wrong that the client did not cause, and how often.
        first_token, between_tokens, whole: seconds; between two tokens of one branch.
        tokens: generated for clients that stayed.
    """

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    first_token: list[float] = field(default_factory=list)
    between_tokens: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0


class Answer(NamedTuple):
    """The head of an answer, and its body to be read."""

    status: int
    headers: dict[str, str]
    parts: AsyncIterator[bytes]

    async def json(self) -> Any:
        """The whole body."""
        return json.loads(b"".join([part async for part in self.parts]))


class Connection:
    """One connection, for one request.

    Args:
        buffer: bytes that the system may keep unread; `None` leaves it to the system.
    """

    def __init__(self, address: tuple[str, int], buffer: int | None = None) -> None:
        self._address, self._buffer = address, buffer

    async def __aenter__(self) -> Connection:
        own = socket.socket()
        own.setblocking(False)
        if self._buffer is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        await asyncio.get_running_loop().sock_connect(own, self._address)
        limit = self._buffer if self._buffer is not None else 1 << 16
        self._reader, self._writer = await asyncio.open_connection(sock=own, limit=max(limit, 4096))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()  # there may be more to read, which nobody wants

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request and read the head of its answer."""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        _, _, rest = (await self._reader.readline()).partition(b" ")
        if not rest[:3].isdigit():
            raise HttpError("the connection was closed before an answer came")
        headers: dict[str, str] = {}
        while line := (await self._reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(rest[:3]), headers, self._parts(headers))

    async def _parts(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding") != "chunked":
            yield await self._reader.readexactly(int(headers.get("content-length", "0")))
            return
        while size := int((await self._reader.readline()).strip() or b"-1", 16):
            if size < 0:
                raise HttpError("the answer broke off")
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)


async def events(answer: Answer) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed answer; it must end as it should."""
    rest = b""
    async for part in answer.parts:
        *lines, rest = (rest + part).split(b"\n\n")
        for line in lines:
            if line == b"data: [DONE]":
                return
            if line.startswith(b"data: "):
                chunk: dict[str, Any] = json.loads(line[6:])
                if "error" in chunk:
                    raise HttpError(f"an error in the stream: {chunk['error'].get('message')}")
                yield chunk
    raise HttpError("the stream ended without [DONE]")


class Crowd:
    """Clients that ask one server, each one question after the other.

    Attributes:
        tally: what has happened to them; may be replaced by an empty one at any time.
        open: how many are at work.
    """

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self.address = address
        self.rng = random.Random(seed)
        self.questions = [problem.question for family in FAMILIES for problem in generate(family, 60, seed=seed)]
        self.tally = Tally()
        self.open = 0
        self._stopped = False

    async def run(self, clients: int) -> None:
        """Keep so many clients busy until `stop` is called; each finishes what it has begun."""

        async def client() -> None:
            await asyncio.sleep(self.rng.random())  # not all at the very same moment
            self.open += 1
            while not self._stopped:
                await self.one(self.rng.choices(list(KINDS), list(KINDS.values()))[0])
            self.open -= 1

        await asyncio.gather(*(client() for _ in range(clients)))

    def stop(self) -> None:
        """Nobody begins anything new."""
        self._stopped = True

    async def one(self, kind: str) -> None:
        """One client of this kind, and what became of it."""
        try:
            async with asyncio.timeout(MOST_SECONDS):
                await getattr(self, f"_{kind}")()
            self.tally.counts[kind] += 1
        except (HttpError, OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            self.tally.errors[f"{kind}: {type(error).__name__}: {error}"[:200]] += 1

    def body(self, *, stream: bool = True, branches: bool = False, max_tokens: int = 600) -> bytes:
        """A question as a request."""
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

    async def _reader(self) -> None:
        began = time.monotonic()
        last: dict[str, float] = {}
        async with Connection(self.address) as connection:
            answer = await self._good(connection, self.body(branches=True))
            text, usage, first = "", None, None
            async for chunk in events(answer):
                now = time.monotonic()
                moment = chunk.get("multiverse", {})
                if moment.get("event") == "token" and not moment.get("forced"):
                    if first is None:
                        first = now - began
                        self.tally.first_token.append(first)
                    branch = moment.get("branch", "")
                    if branch in last:
                        self.tally.between_tokens.append(now - last[branch])
                    last[branch] = now
                elif moment.get("event") == "join":
                    last[moment.get("branch", "")] = now
                text += _text(chunk)
                usage = chunk.get("usage") or usage
            if not text or usage is None:
                raise HttpError("the answer has no text or no usage")
            self.tally.whole.append(time.monotonic() - began)
            self.tally.tokens += usage["completion_tokens"]

    async def _slow(self) -> None:
        pause = self.rng.choice([0.01, 0.05])
        async with Connection(self.address, buffer=2048) as connection:
            text = ""
            async for chunk in events(await self._good(connection, self.body())):
                text += _text(chunk)
                await asyncio.sleep(pause)
            if not text:
                raise HttpError("the answer has no text")

    async def _leaver(self) -> None:
        wanted = self.rng.randrange(40)
        async with Connection(self.address) as connection:
            answer = await self._good(connection, self.body(branches=self.rng.random() < 0.5))
            async for _ in events(answer):
                wanted -= 1
                if wanted < 0:
                    return

    async def _whole(self) -> None:
        async with Connection(self.address) as connection:
            body = self.body(stream=False)
            if self.rng.random() < 0.3:  # leaves before the answer is there
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.rng.random() / 2):
                        await self._good(connection, body)
                return
            answer = await (await self._good(connection, body)).json()
            if not answer["choices"][0]["finish_reason"]:
                raise HttpError("the answer has no finish reason")

    async def _malformed(self) -> None:
        path, body, expected = self.rng.choice(MALFORMED)
        async with Connection(self.address) as connection:
            answer = await connection.ask("POST", path, body)
            if answer.status != expected or "error" not in await answer.json():
                raise HttpError(f"{path} {body[:60]!r} was answered with {answer.status} instead of {expected}")

    async def _good(self, connection: Connection, body: bytes) -> Answer:
        answer = await connection.ask("POST", CHAT, body)
        if answer.status != 200:
            raise HttpError(f"status {answer.status}: {(await answer.json()).get('error', {}).get('message')}")
        return answer


def _text(chunk: dict[str, Any]) -> str:
    deltas = [choice.get("delta", {}) for choice in chunk.get("choices", ())]
    return "".join((delta.get("reasoning") or "") + (delta.get("content") or "") for delta in deltas)
