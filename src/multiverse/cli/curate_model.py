"""A model in this process in the place of an endpoint, for commands of `multiverse curate` that need no server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..curation.config import IN_PROCESS, EndpointConfig
from .loading import ModelOptions

if TYPE_CHECKING:
    from ..curation.client import Generate

BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="Endpoint with OpenAI's chat completions API, up to /v1.",
        rich_help_panel="Model",
        show_default="run the model here",
    ),
]


@contextmanager
def model_here(model: ModelOptions, endpoint: EndpointConfig) -> Iterator[Generate | None]:
    """A model that runs here, or on another engine's server, as what sends requests; `None` with an endpoint."""
    if endpoint.base_url != IN_PROCESS:
        yield None
        return
    from ..curation.errors import EndpointError, RefusedError
    from ..curation.types import Completion, Request
    from ..engine import SamplingParams
    from ..errors import RequestError, UpstreamError

    llm = model.connect(concurrency=endpoint.concurrency) if model.upstream is not None else model.load()
    engine = llm.async_engine()

    async def generate(request: Request) -> Completion:
        digest = hashlib.sha256(request.key(**endpoint.sampling).encode()).digest()
        params = SamplingParams(
            temperature=endpoint.temperature or 0.0, top_p=1.0, max_tokens=request.max_tokens, seed=int.from_bytes(digest[:4])
        )
        messages = [{"role": role, "content": content} for role, content in request.messages]
        try:
            found = await engine.generate(llm.encode_chat(messages), params)
        except RequestError as error:
            raise RefusedError(str(error)) from None
        except UpstreamError as error:
            raise EndpointError(str(error)) from None
        reason = "stop" if found.finish_reason == "stop" else "length"  # closed because of any limit
        return Completion(found.text, reason, found.usage.prompt_tokens, found.usage.total_tokens)

    try:
        yield generate
    finally:
        asyncio.run(engine.aclose())
