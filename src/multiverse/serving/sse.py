"""Server-sent events.

Every ``data:`` line is one chunk of OpenAI's. An error after the first byte is a line with an ``error`` in it, and then the
stream ends.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import StreamingResponse

from . import logs
from .errors import as_api_error, body

PING_SECONDS = 15.0
"""Seconds without an event after which a comment keeps the connection alive."""
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
# Some clients take these for the end of a line; JSON has another way to write them.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def event_stream(chunks: AsyncIterator[Iterable[dict[str, Any]]]) -> StreamingResponse:
    """A response that sends chunks as server-sent events, some at a time; none at all is sent as a comment."""
    return StreamingResponse(_lines(chunks), media_type="text/event-stream", headers=_HEADERS)


def named_event_stream(events: AsyncIterator[Iterable[dict[str, Any]]]) -> StreamingResponse:
    """The same for events that are named by their `type`, as those of `/v1/responses`; they say themselves where they end."""

    async def lines() -> AsyncIterator[bytes]:
        async for some in events:
            yield b"".join(b"event: " + str(event["type"]).encode() + b"\n" + data(event) for event in some) or PING

    return StreamingResponse(lines(), media_type="text/event-stream", headers=_HEADERS)


def data(value: Any) -> bytes:
    """A value as one event."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_LINE_ENDS)
    return b"data: " + text.encode() + b"\n\n"


async def _lines(chunks: AsyncIterator[Iterable[dict[str, Any]]]) -> AsyncIterator[bytes]:
    try:
        async for some in chunks:
            yield b"".join(data(chunk) for chunk in some) or PING
    except Exception as error:
        failure = as_api_error(error)
        logs.note(error=failure.message)
        yield data(body(failure))
    yield DONE
