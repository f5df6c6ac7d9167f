"""A local endpoint with the chat completions API that misbehaves on purpose.

It answers from what was planted: every user message says ``stage:`` and ``row:``. Misbehaviour is drawn from a seed and the
request alone, whatever the order in which requests arrive: what is wrong with an answer is always wrong with it (a model at
temperature 0), what is wrong with the way to it is drawn anew for each try.

    python -m tests.curation.endpoint --port 8000 --rate 0.3    # the fake task of `tests/curation/fake.py`
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from hashlib import sha256
from typing import Any, NamedTuple

from multiverse.structure import MULTIVERSE

ON_THE_WAY = (
    "429",
    "429 with a date",
    "500",
    "503",
    "hang",
    "dribble",
    "drop",
    "drop within",
    "no JSON",
    "half a character on the wire",
)
IN_THE_ANSWER = (
    "cut short",
    "malformed",
    "wrong numbering",
    "lost sentences",
    "invented sentences",
    "tag",
    "half a character",
    "a million characters",
)
KINDS = ON_THE_WAY + IN_THE_ANSWER

Messages = list[dict[str, str]]
AnswerOf = Callable[[str, Messages, Any], str]
"""From stage, messages and what was planted in the row to the text of an answer."""


class Reply(NamedTuple):
    """What goes back over the wire; `cut` bytes of it, if not all."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    cut: int | None = None


class Endpoint:
    """The endpoint, once it is up.

    Attributes:
        url: what to give as base URL.
        calls: how often each request came, by the hash of its body.
        answered: how often each was answered well, to the last byte.
        kinds: what went wrong, how often.
        models: what was asked for.
    """

    def __init__(
        self,
        answer: AnswerOf,
        planted: Mapping[str, Any],
        *,
        rate: float = 0.0,
        seed: int = 0,
        kinds: tuple[str, ...] = KINDS,
        override: Callable[[dict[str, Any], int], Reply | None] | None = None,
    ) -> None:
        self.answer, self.planted = answer, planted
        self.rate, self.seed, self.wrong, self.override = rate, seed, kinds, override
        self.url = ""
        self.calls: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keep_bodies = False
        self.flying = self.most_flying = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it is kept."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        data = await reader.readexactly(int(length[1])) if length else b""
        if not head.startswith(b"POST /v1/chat/completions "):
            await _send(writer, _error(404, "no such path"))
            return True
        body = json.loads(data)
        name = sha256(data).hexdigest()
        self.calls[name] += 1
        if self.keep_bodies:
            self.bodies.append(body)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            reply = self.override(body, sum(self.calls.values())) if self.override is not None else None
            kind = None if reply is not None else self._drawn(name)
            if kind == "hang":
                self.kinds[kind] += 1
                await reader.read(1)  # until the other side gives up
                return False
            if kind == "dribble":  # each piece comes in time, but the whole does not
                self.kinds[kind] += 1
                writer.write(b"HTTP/1.1 200 x\r\nContent-Length: 1000000\r\n\r\n")
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            if kind == "drop":
                self.kinds[kind] += 1
                return False
            if reply is None:
                reply = self._reply(body, name, kind)
        finally:
            self.flying -= 1
        await _send(writer, reply)
        if reply.status == 200 and reply.cut is None and kind not in ON_THE_WAY:
            self.answered[name] += 1
        return reply.cut is None

    def _drawn(self, name: str) -> str | None:
        """What goes wrong with this try at this request."""
        groups = [
            (ON_THE_WAY, random.Random(f"{self.seed}/{name}/{self.calls[name]}")),
            (IN_THE_ANSWER, random.Random(f"{self.seed}/{name}")),
        ]
        for group, draw in groups:
            chosen = [kind for kind in group if kind in self.wrong]
            if chosen and draw.random() < self.rate * len(chosen) / len(self.wrong):
                return draw.choice(chosen)
        return None

    def _reply(self, body: dict[str, Any], name: str, kind: str | None) -> Reply:
        if kind is not None:
            self.kinds[kind] += 1
        if kind == "429":
            return _error(429, "slow down", ("Retry-After", "0.02"))
        if kind == "429 with a date":
            return _error(429, "slow down", ("Retry-After", formatdate(usegmt=True)))
        if kind in ("500", "503"):
            return _error(int(kind), "out of order")
        if kind == "no JSON":
            return Reply(200, b"<html>a proxy has lost its way</html>")
        text, reason = self._answer(body), "stop"
        if kind in IN_THE_ANSWER:
            text, reason = spoil(kind, text, random.Random(f"{self.seed}/{name}/spoil"))
        whole = completion(body, text, reason)
        if kind == "half a character on the wire":
            return Reply(200, whole.replace(b'"content": "', b'"content": "\xf0\x9f', 1))
        return Reply(200, whole, cut=len(whole) // 2 if kind == "drop within" else None)

    def _answer(self, body: dict[str, Any]) -> str:
        asked = "\n".join(message["content"] for message in body["messages"] if message["role"] == "user")
        stage, row = (re.search(rf"^{field}: *(.+)$", asked, re.MULTILINE) for field in ("stage", "row"))
        assert stage is not None, asked
        assert row is not None, asked
        return self.answer(stage[1].strip(), body["messages"], self.planted[row[1].strip()])


def completion(body: dict[str, Any], text: str, reason: str = "stop") -> bytes:
    """A chat completion, as endpoints send it."""
    prompt = sum(len(message["content"]) for message in body["messages"]) // 4
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": len(text) // 4, "total_tokens": prompt + len(text) // 4},
        }
    ).encode()


def spoil(kind: str, text: str, draw: random.Random) -> tuple[str, str]:
    """An answer with this wrong about it, and how it is said to have ended."""
    if kind == "cut short":
        return text[: len(text) // 2], "length"
    if kind == "a million characters":
        return text + "x" * 1_000_000, "stop"
    if kind == "malformed":
        return text[: draw.randrange(len(text))] + "}{", "stop"
    try:
        value = json.loads(text)
    except ValueError:
        return text + " " + MULTIVERSE.path.open, "stop"
    if kind == "wrong numbering":
        value = _mapped(value, lambda item: item + draw.choice([-1, 1, 7]) if type(item) is int else item)
    elif kind in ("lost sentences", "invented sentences"):
        lists = [item for item in _inside(value) if isinstance(item, list) and item]
        if lists:
            chosen = draw.choice(lists)
            at = draw.randrange(len(chosen))
            if kind == "lost sentences":
                del chosen[at]
            else:
                chosen.insert(at, 999 if type(chosen[at]) is int else chosen[at])
        else:
            value = _mapped(value, lambda item: item + 1000 if type(item) is int else item)
    else:
        harm = MULTIVERSE.conclusion.open if kind == "tag" else "\ud83d"  # type: ignore[union-attr]
        value = _mapped(value, lambda item: f"{item[:3]}{harm}{item[3:]}" if isinstance(item, str) else item)
        if value == json.loads(text):
            return text + harm, "stop"
    return json.dumps(value), "stop"


def _inside(value: Any) -> Iterator[Any]:
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _inside(item)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(item, change) for name, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else change(value)


def _error(status: int, message: str, *headers: tuple[str, str], code: str | None = None) -> Reply:
    return Reply(status, json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode(), headers)


error = _error


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    lines = [f"HTTP/1.1 {reply.status} x", "Content-Type: application/json", f"Content-Length: {len(reply.body)}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body[: reply.cut])
    await writer.drain()


@contextmanager
def serving(endpoint: Endpoint, port: int = 0) -> Iterator[Endpoint]:
    """The endpoint in a thread of its own, so that it can serve this process and others."""
    ready, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        server = await asyncio.start_server(endpoint.serve, "127.0.0.1", port)
        endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await end.wait()
        server.close()
        tasks = list(endpoint._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports take their leave

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(live())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


@contextmanager
def many() -> Iterator[Callable[[Endpoint], Endpoint]]:
    """Bring up endpoints, and take all of them down at the end."""
    with ExitStack() as stack:
        yield lambda endpoint: stack.enter_context(serving(endpoint))
