"""A server with OpenAI's completions API, timed over HTTP: vLLM's, llama.cpp's, SGLang's, ours."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple

from ..errors import MultiverseError, UpstreamError, require
from ..stock.api import OPENAI
from ..stock.server import ServerOptions, failure, look_up


class Answer(NamedTuple):
    """The stream of one request.

    Attributes:
        times: when each chunk with text came.
        tokens: of the answer; the number of chunks if the server does not say.
    """

    times: list[float]
    tokens: int


class Endpoint:
    """A server, and the seconds that it takes.

    Args:
        options: where it is, and its model's name there; `None` takes the first.

    Raises:
        UpstreamError: it cannot be reached, or has no such model.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.about = look_up(options)

    def first_token(self, prompt: list[int]) -> float:
        """Seconds from a prompt to the first token."""
        began = time.perf_counter()
        (answer,) = asyncio.run(self._ask([prompt], 1))
        return answer.times[0] - began

    def decode(self, prompts: list[list[int]], steps: int) -> float:
        """Tokens per second over all requests at once, from the moment at which each has its first token."""
        answers = asyncio.run(self._ask(prompts, steps + 1))
        began, ended = max(answer.times[0] for answer in answers), max(answer.times[-1] for answer in answers)
        # A chunk may hold several tokens.
        tokens = sum(answer.tokens * sum(at > began for at in answer.times) / len(answer.times) for answer in answers)
        if ended <= began:
            raise UpstreamError(f"{self.options.address} sent its answers in one piece: they cannot be timed")
        return tokens / (ended - began)

    async def _ask(self, prompts: list[list[int]], tokens: int) -> list[Answer]:
        httpx: Any = require("httpx", "chat")
        timeout = httpx.Timeout(self.options.stall_timeout, connect=10.0)
        async with httpx.AsyncClient(headers=self.options.headers, timeout=timeout) as client:
            try:
                return list(await asyncio.gather(*(self._stream(client, prompt, tokens) for prompt in prompts)))
            except httpx.HTTPError as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise UpstreamError(f"{self.options.address} broke off ({reason}): see its log") from None

    async def _stream(self, client: Any, prompt: list[int], tokens: int) -> Answer:
        body = {
            "model": self.about.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self.about.api is not OPENAI else {}),
        }
        times: list[float] = []
        counted = 0
        async with client.stream("POST", f"{self.options.url}/completions", json=body) as response:
            if not response.is_success:
                raise failure(self.options, response.status_code, (await response.aread()).decode(errors="replace"))
            async for line in response.aiter_lines():
                if not line.startswith("data:") or line[5:].strip() == "[DONE]":
                    continue
                value = _object(line[5:])
                if value.get("error"):
                    raise UpstreamError(f"{self.options.address} failed: {str(value['error'])[:200]}")
                choices = value.get("choices") or []
                if choices and (
                    choices[0].get("text") or choices[0].get("token_ids") or choices[0].get("finish_reason") is None
                ):
                    times.append(time.perf_counter())
                counted = int((value.get("usage") or {}).get("completion_tokens") or counted)
        if not times:
            raise UpstreamError(f"{self.options.address} sent no token: is its model one that generates?")
        return Answer(times, counted or len(times))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UpstreamError(f"what came is no completion: {text[:80]}")
    return value


def why(error: Exception) -> str:
    """An error on one line, for a note."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, MultiverseError) else f"{type(error).__name__}: {text}"[:300]
