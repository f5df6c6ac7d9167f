"""A small server with ``/v1/completions`` on loopback, in the shapes of vLLM, SGLang, llama.cpp and plain OpenAI.

What it writes comes from a `Brain`; what goes wrong, from `Fault`s that are planted by a test. It counts what comes in, what is
in flight, and whose client has left.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Kind = Literal["vllm", "sglang", "llamacpp", "openai"]
Score = Mapping[int, float]
"""Logits of the tokens that may come next; others are impossible."""


class Brain(Protocol):
    """A model: the logits after a context."""

    def __call__(self, context: Sequence[int]) -> Score: ...


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        kind: ``status``: it is answered with `status`; ``drop``: the connection breaks after `after` tokens; ``end``: the
            answer ends there without a reason; ``stall``: nothing more comes; ``error``: an error comes as a chunk;
            ``garbage``: what is no JSON does; ``empty``: the answer has no token.
    """

    kind: Literal["status", "drop", "end", "stall", "error", "garbage", "empty"]
    after: int = 0
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()
    message: str = "planted"


Plan = Callable[[int, dict[str, Any]], Fault | None]
"""From the number of a request (from 0) and its body to what goes wrong with it."""


def nothing(number: int, body: dict[str, Any]) -> Fault | None:  # noqa: ARG001
    """Nothing goes wrong."""
    return None


@dataclass
class Loopback:
    """The server, once it is up.

    Attributes:
        brain: what it writes.
        tokenizer: of the brain's tokens.
        kind: whose shapes it has.
        ids: whether it gives token ids (of those kinds that can).
        chunk: tokens of one chunk.
        pause: seconds before each chunk.
        plan: what goes wrong.
        max_len: longest context.
        trims: whether it leaves out the stop token.
        key: API key that it wants.
        bodies: of all requests for completions, but for the probe.
        open, most_open: requests being answered, now and at most.
        ended: how requests ended: ``done``, ``left`` (the client closed the connection) or the kind of a fault.
    """

    brain: Brain
    tokenizer: Any
    kind: Kind = "vllm"
    ids: bool = True
    chunk: int = 1
    pause: float = 0.0
    plan: Plan = nothing
    max_len: int = 4096
    trims: bool = False
    key: str | None = None
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    contexts: list[list[int]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def settled(self) -> None:
        """Wait until nothing is being answered any more."""
        for _ in range(400):
            if not self.open:
                return
            threading.Event().wait(0.005)
        raise AssertionError(f"{self.open} requests are still open upstream")

    def break_off(self) -> None:
        """Break all connections, as a server that dies."""
        self.loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in self._writers])

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        self._writers.discard(writer)
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b""
        if self.key is not None and f"authorization: bearer {self.key}".encode() not in head.lower():
            return await self._answer(writer, 401, {"error": {"message": "no key", "type": "auth", "code": 401}})
        if head.startswith(b"GET /v1/models "):
            return await self._answer(writer, 200, {"object": "list", "data": [self._model()]})
        if head.startswith(b"GET /props ") and self.kind == "llamacpp":
            return await self._answer(writer, 200, {"default_generation_settings": {"n_ctx": self.max_len}})
        if head.startswith(b"POST /v1/completions "):
            return await self._complete(reader, writer, json.loads(body))
        return await self._answer(writer, 404, {"error": {"message": "no such path", "code": 404}})

    def _model(self) -> dict[str, Any]:
        own: dict[str, dict[str, Any]] = {
            "vllm": {"owned_by": "vllm", "max_model_len": self.max_len},
            "sglang": {"owned_by": "sglang", "max_model_len": self.max_len},
            "llamacpp": {"owned_by": "llamacpp", "meta": {"n_ctx_train": self.max_len}},
            "openai": {"owned_by": "someone"},
        }
        return {"id": "stock", "object": "model", **own[self.kind]}

    async def _answer(
        self, writer: asyncio.StreamWriter, status: int, value: Any, headers: Sequence[tuple[str, str]] = ()
    ) -> bool:
        data = json.dumps(value).encode()
        lines = [f"HTTP/1.1 {status} Reason", "content-type: application/json", f"content-length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        await writer.drain()
        return True

    async def _complete(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        if self.kind == "llamacpp" and body.get("repeat_last_n", 0) < 0:  # as that server says it
            return await self._answer(writer, 400, {"error": {"message": "Value must be between 0 and 2147483647"}})
        if not body.get("stream"):
            return await self._answer(writer, 200, self._whole(body))
        number = len(self.bodies)
        self.bodies.append(body)
        context = self._context(body["prompt"])
        self.contexts.append(context)
        if len(context) + body["max_tokens"] > self.max_len:
            return await self._answer(writer, 400, {"error": {"message": "maximum context length exceeded", "code": 400}})
        fault = self.plan(number, body)
        if fault is not None and fault.kind == "status":
            self.ended["status"] += 1
            return await self._answer(writer, fault.status, {"error": {"message": fault.message}}, fault.headers)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        how = "left"
        writing = asyncio.create_task(self._stream(writer, body, context, fault))
        gone = asyncio.create_task(_left(reader))
        try:
            await asyncio.wait([writing, gone], return_when=asyncio.FIRST_COMPLETED)
            if writing.done() and not writing.cancelled() and writing.exception() is None:
                how = writing.result()  # even if the client has left as soon as it had everything
        finally:
            for task in (writing, gone):
                task.cancel()
            await asyncio.gather(writing, gone, return_exceptions=True)
            self.open -= 1
            self.ended[how] += 1
        return how == "done"

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, Any], context: list[int], fault: Fault | None) -> str:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        for value in self._chunks(body, context):
            if fault is not None and sent >= fault.after and value.get("choices"):
                return await self._go_wrong(writer, fault)
            if self.pause:
                await asyncio.sleep(self.pause)
            await _put(writer, f"data: {json.dumps(value)}\n\n")
            sent += self.chunk
            await asyncio.sleep(0)
        await _put(writer, "data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return "done"

    async def _go_wrong(self, writer: asyncio.StreamWriter, fault: Fault) -> str:
        match fault.kind:
            case "stall":
                await asyncio.sleep(3600)
            case "end":
                writer.write(b"0\r\n\r\n")
            case "empty":
                await _put(
                    writer, 'data: {"choices": [{"text": "", "index": 0, "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'
                )
                writer.write(b"0\r\n\r\n")
            case "error":
                value = {"error": {"message": fault.message, "code": fault.status}}
                await _put(writer, f"data: {json.dumps(value)}\n\ndata: [DONE]\n\n")
                writer.write(b"0\r\n\r\n")
            case "garbage":
                await _put(writer, "data: {not json\n\n")
                writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.transport.close() if fault.kind != "drop" else writer.transport.abort()
        return fault.kind

    # -- answers -------------------------------------------------------------------------------------------------------

    def _context(self, prompt: str | list[int]) -> list[int]:
        return list(self.tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of a request without a stream: of the probe."""
        context = self._context(body["prompt"])
        choice: dict[str, Any] = {"text": "x", "index": 0, "finish_reason": "length"}
        value: dict[str, Any] = {"object": "text_completion", "choices": [choice], "usage": {"prompt_tokens": len(context)}}
        if self._gives_ids(body):
            self._add_ids(value, choice, [self.tokenizer.encode("x")[0]])
            if self.kind != "llamacpp":
                choice["prompt_token_ids"] = context
        return value

    def _gives_ids(self, body: Mapping[str, Any]) -> bool:
        asked = body.get("verbose") and body.get("return_tokens") if self.kind == "llamacpp" else body.get("return_token_ids")
        return bool(self.ids and asked and self.kind != "openai")

    def _add_ids(self, value: dict[str, Any], choice: dict[str, Any], ids: list[int]) -> None:
        if self.kind == "llamacpp":
            value["__verbose"] = {"tokens": ids}
        else:
            choice["token_ids"] = ids

    def _generate(
        self, body: dict[str, Any], context: list[int]
    ) -> Iterator[tuple[int, float, list[tuple[int, float]], str | None]]:
        """Tokens with log-probability, likeliest tokens and how the answer ends with it."""
        context = list(context)
        ends = self._ends(body)
        bias = (
            {int(token): value for token, value in dict(body.get("logit_bias") or {}).items()}
            if isinstance(body.get("logit_bias"), dict)
            else {self.tokenizer.encode(text)[0]: value for text, value in body.get("logit_bias") or []}
        )
        for number in range(body["max_tokens"]):
            scores = self.brain(context)
            edited = {token: score + bias.get(token, 0.0) for token, score in scores.items()}
            edited |= {token: value - 50.0 for token, value in bias.items() if value > 0 and token not in scores}
            if (allowed := body.get("allowed_token_ids")) is not None:
                edited = {token: edited.get(token, -1e3 - token) for token in allowed}
            if body.get("ignore_eos"):
                edited = {token: score for token, score in edited.items() if token != self.tokenizer.eos_token_id} or edited
            token = max(edited, key=lambda one: (edited[one], -one))
            ranked = sorted(scores.items(), key=lambda pair: -pair[1])
            finish = "stop" if token in ends else "length" if number == body["max_tokens"] - 1 else None
            yield token, scores.get(token, -99.0), ranked, finish
            if finish is not None:
                return
            context.append(token)

    def _ends(self, body: Mapping[str, Any]) -> set[int]:
        stops = set(body.get("stop_token_ids") or ()) if self.kind in ("vllm", "sglang") else set()
        return stops | (set() if body.get("ignore_eos") else {self.tokenizer.eos_token_id})

    def _chunks(self, body: dict[str, Any], context: list[int]) -> Iterator[dict[str, Any]]:
        base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "stock"}
        count, group, first, written = 0, [], True, ""
        generated: list[int] = []
        for item in self._generate(body, context):
            count += 1
            group.append(item)
            generated += [item[0]] if item[0] != self.tokenizer.eos_token_id else []
            if len(group) == self.chunk or item[3] is not None:
                text = self.tokenizer.decode(generated)
                if text.endswith("\ufffd") and item[3] is None:
                    text = text.rstrip("\ufffd")  # a part of a character is held back
                yield {**base, **self._chunk(body, group, text[len(written) :], context if first else None)}
                group, first, written = [], False, text
        if self.kind == "llamacpp":
            yield {**base, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": item[3]}]}
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": len(context), "completion_tokens": count, "total_tokens": len(context) + count}
            yield {**base, "choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 3}}}

    def _chunk(self, body: dict[str, Any], group: list[Any], text: str, prompt: list[int] | None) -> dict[str, Any]:
        ids = [token for token, *_ in group]
        finish = group[-1][3]
        choice: dict[str, Any] = {
            "text": text,
            "index": 0,
            "finish_reason": None if self.kind == "llamacpp" else finish,
            "logprobs": self._logprobs(body, group),
        }
        value: dict[str, Any] = {"choices": [choice]}
        if finish == "stop" and self.kind in ("vllm", "sglang"):
            stop = ids[-1] if ids[-1] != self.tokenizer.eos_token_id else None
            choice["stop_reason" if self.kind == "vllm" else "matched_stop"] = stop
        if self._gives_ids(body):
            trimmed = self.trims and finish == "stop"
            self._add_ids(value, choice, ids[:-1] if trimmed else ids)
            if prompt is not None and self.kind != "llamacpp":
                choice["prompt_token_ids"] = prompt
        return value

    def _logprobs(self, body: Mapping[str, Any], group: list[Any]) -> dict[str, Any] | None:
        count = body.get("logprobs")
        if count is None:
            return None
        if self.kind == "llamacpp":
            return {
                "content": [
                    {
                        "id": token,
                        "token": self.tokenizer.decode([token]),
                        "logprob": value,
                        "top_logprobs": [
                            {"id": one, "token": self.tokenizer.decode([one]), "logprob": v} for one, v in top[:count]
                        ],
                    }
                    for token, value, top, _ in group
                ]
            }
        name = (
            (lambda one: f"token_id:{one}")
            if body.get("return_tokens_as_token_ids")
            else (lambda one: self.tokenizer.decode([one]))
        )
        return {
            "tokens": [name(token) for token, *_ in group],
            "token_logprobs": [value for _, value, *_ in group],
            "top_logprobs": [{name(one): v for one, v in top[:count]} for _, _, top, _ in group],
        }


async def _left(reader: asyncio.StreamReader) -> None:
    """Wait until the client has closed the connection; nothing that it sends is read."""
    while not (reader.at_eof() or reader.exception()):
        await asyncio.sleep(0.002)


async def _put(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


@contextmanager
def running(loopback: Loopback) -> Iterator[Loopback]:
    """The server, on a thread of its own; nothing may be open at the end."""
    loop = loopback.loop
    ready = threading.Event()
    tasks: list[asyncio.Server] = []

    async def begin() -> None:
        server = await asyncio.start_server(loopback.serve, "127.0.0.1", 0)
        loopback.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        tasks.append(server)
        ready.set()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.create_task(begin())
        loop.run_forever()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=work, name="loopback", daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield loopback
    finally:
        loop.call_soon_threadsafe(tasks[0].close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
