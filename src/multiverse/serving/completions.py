"""`POST /v1/completions`: raw text is continued, and returned as it was generated, tags included."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .choice import Choice, Piece, text_logprobs, text_of
from .errors import invalid
from .form import Form, Json
from .params import check_request, priority_of, sampling_params, with_usage
from .requests import CompletionRequest
from .sse import event_stream

if TYPE_CHECKING:
    from starlette.responses import Response

    from ..llm import LLM
    from .service import Service


class TextForm(Form):
    """The form of text completions.

    Attributes:
        logprobs: whether they were asked for.
        echo: the prompt of each choice, to begin its text with; empty if not asked for.
    """

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"
    logprobs = False
    echo: Sequence[str] = ()

    def whole(self, choice: Choice) -> Json:
        """The text."""
        text = text_of(choice.pieces, "content")
        return {"text": self._prompt(choice) + text, "logprobs": self._logprobs(choice.pieces, 0)}

    def opening(self, choice: Choice) -> Json | None:
        """The prompt, if it is to be echoed."""
        return {"text": self._prompt(choice), "logprobs": None} if self.echo else None

    def delta(self, choice: Choice, pieces: Sequence[Piece]) -> Json | None:
        """More of the text."""
        text = text_of(pieces, "content")
        if not text and not (pieces and self.logprobs):
            return None
        return {"text": text, "logprobs": self._logprobs(pieces, choice.length - len(text))}

    def empty(self) -> Json:
        """A chunk without text."""
        return {"text": "", "logprobs": None}

    def _prompt(self, choice: Choice) -> str:
        return self.echo[choice.index] if self.echo else ""

    def _logprobs(self, pieces: Sequence[Piece], offset: int) -> dict[str, Any] | None:
        return text_logprobs(pieces, offset, self.service.decode) if self.logprobs else None


async def complete(request: CompletionRequest, service: Service) -> Response:
    """Continue one prompt or several.

    Raises:
        ApiError: the request cannot be honoured, or a generation failed.
        EngineError: the engine failed.
    """
    from starlette.responses import JSONResponse

    check_request(request, service)
    if request.echo and request.logprobs is not None:
        raise invalid("logprobs cannot be given for an echoed prompt: leave one of the two out", "logprobs")
    if request.multiverse is not None and request.multiverse.mode is not None:
        raise invalid("multiverse.mode is for chats: write the instruction into the prompt", "multiverse.mode")
    given = _several(request.prompt)
    prompts = await asyncio.to_thread(_encode, service.llm, given, special=request.add_special_tokens is not False)
    params = sampling_params(request, service, prompts, "prompt")

    events = await service.submit(prompts, params, "prompt", priority=priority_of(request))
    samples = params[0].n
    choices = [Choice(index) for index in range(len(prompts) * samples)]
    form = TextForm(service, choices, len(prompts), include_usage=with_usage(request))
    form.logprobs = request.logprobs is not None
    if request.echo:
        texts = [prompt if isinstance(prompt, str) else service.llm.engine.decode(prompt) for prompt in given]
        form.echo = [text for text in texts for _ in range(samples)]
    if request.multiverse is not None and request.multiverse.branches:
        return event_stream(form.branch_chunks(events, len(prompts[0])))
    if request.stream:
        return event_stream(form.chunks(events))
    return JSONResponse(await form.answer(events))


def _several(prompt: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    several: Any = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return list(several)


def _encode(llm: LLM, prompts: Sequence[str | list[int]], *, special: bool) -> list[list[int]]:
    encode = partial(llm.tokenizer.encode, add_special_tokens=special)
    return [list(encode(prompt)) if isinstance(prompt, str) else prompt for prompt in prompts]
