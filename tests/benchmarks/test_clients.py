"""The load test's client: chunks of a streamed response, and responses that are not as they must be."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from benchmarks.clients import ResponseError, events


def chunks(text: str, status: int = 200) -> list[dict[str, Any]]:
    """Read a response with this body."""

    def respond(request: httpx.Request) -> httpx.Response:  # noqa: ARG001
        return httpx.Response(status, headers={"content-type": "text/event-stream"}, content=text.encode())

    async def read() -> list[dict[str, Any]]:
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client,
            client.stream("GET", "http://server/") as response,
        ):
            return [chunk async for chunk in events(response)]

    return asyncio.run(read())


def test_chunks_of_a_stream_up_to_done() -> None:
    line_separator = "\N{LINE SEPARATOR}"  # not a line end in server-sent events
    text = f'data: {{"a": "{line_separator}"}}\n\ndata: {{"b": 2}}\n\ndata: [DONE]\n\ndata: {{"c": 3}}\n\n'
    assert chunks(text) == [{"a": line_separator}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ('data: {"a": 1}\n\n', 200, "ended without"),
        ('data: {"error": {"message": "no memory"}}\n\n', 200, "an error in the stream: no memory"),
        ('{"error": {"message": "too many requests"}}', 429, "status 429: .*too many requests"),
    ],
)
def test_an_error_or_a_stream_without_done_raises(text: str, status: int, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        chunks(text, status)
