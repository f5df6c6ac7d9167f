"""One short request that shows what a server sends back: token ids, or text alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import ModelError, UpstreamError, require
from .api import APIS, OPENAI, Api
from .server import About, ServerOptions, failure
from .wire import read_chunk


class Seen(NamedTuple):
    """What a server answered.

    Attributes:
        api: the kind of server, with what it has shown to have.
        ids: whether it gives the ids of the tokens that it generates.
    """

    api: Api
    ids: bool


def probe(options: ServerOptions, about: About, tokenizer: Any) -> Seen:
    """Ask for one token.

    Args:
        tokenizer: of the model, if there is one: its ids are held against those that the server makes of a text.

    Raises:
        UpstreamError: the server refuses even that.
        ModelError: the server makes other ids of a text than the tokenizer.
    """
    httpx = require("httpx", "chat")
    known = about.api is not OPENAI
    # A server that says nothing of itself may still be one of them behind a proxy: most ignore what they do not know.
    tried = [about.api] if known else [APIS["vllm"], OPENAI]
    with httpx.Client(headers=options.headers, timeout=httpx.Timeout(options.stall_timeout, connect=10.0)) as client:
        for number, api in enumerate(tried):
            body = {"model": about.model, "prompt": _TEXT, "max_tokens": 1, "temperature": 0, "stream": False, **api.sent}
            try:
                answer = client.post(f"{options.url}/completions", json=body)
            except httpx.HTTPError as error:
                raise UpstreamError(f"{options.address} cannot be reached ({error or type(error).__name__})") from None
            if answer.is_success:
                return _seen(options, answer, api, tokenizer, known=known)
            if number == len(tried) - 1 or answer.status_code not in (400, 422):
                raise failure(options, answer.status_code, answer.text)
    raise AssertionError("no kind of server was tried")


_TEXT = "Count to 12, then stop."


def _seen(options: ServerOptions, answer: Any, api: Api, tokenizer: Any, *, known: bool) -> Seen:
    try:
        chunk = read_chunk(answer.json())
    except ValueError as error:
        raise UpstreamError(f"{options.address} answers with {error}: is this the address of an OpenAI API?") from None
    ids = bool(chunk.pieces) and all(piece.token_id is not None for piece in chunk.pieces)
    if tokenizer is not None and chunk.prompt_ids is not None:
        own = tokenizer.encode(_TEXT)
        if list(chunk.prompt_ids) != list(own):
            raise ModelError(
                f"the tokenizer given is not that of the model at {options.address}: it makes {len(own)} ids of {_TEXT!r}, "
                f"{str(own)[:60]}, and the server {str(list(chunk.prompt_ids))[:60]}"
            )
    return Seen(api if known or ids else OPENAI, ids)
