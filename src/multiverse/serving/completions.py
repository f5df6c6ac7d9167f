"""`POST /v1/completions`: raw text is continued, and returned as it was generated, tags included."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .choice import Choice, Piece, text_of
from .errors import invalid
from .form import Form, Json
from .logprobs import TextLogprobs, text_offsets
from .params import check_request, priority_of, read_response_format, sampling_params
from .requests import CompletionRequest
from .sse import event_stream

if TYPE_CHECKING:
    from starlette.responses import Response

    from ..llm import LLM
    from .service import Service


class TextForm(Form):
    """The form of text completions.

    Args:
        service, request, choices, prompts: as in `Form`.
        texts: each prompt as a text, to begin the answers with; empty if that was not asked for.
    """

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def __init__(
        self,
        service: Service,
        request: CompletionRequest,
        choices: Sequence[Choice],
        prompts: Sequence[Sequence[int]],
        texts: Sequence[str],
    ) -> None:
        super().__init__(service, request, choices, prompts)
        self._logprobs = request.logprobs
        self._texts = [text for text in texts for _ in range(len(choices) // len(prompts))]
        self.scored = self.scored or (bool(texts) and request.logprobs is not None)

    def whole(self, choice: Choice) -> Json:
        """The text, behind the prompt if that is to be echoed."""
        echo = self._echo(choice)
        columns = self._echoed(choice)
        if columns is not None:
            columns.add_pieces(choice.pieces, len(echo))
        return {"text": echo + text_of(choice.pieces, "content"), "logprobs": _json(columns), **self.about_prompt(choice)}

    def opening(self, choice: Choice) -> Json | None:
        """The prompt, if it is to be echoed, and what was asked about it."""
        about = self.about_prompt(choice)
        if not self._texts and not about:
            return None
        return {"text": self._echo(choice), "logprobs": _json(self._echoed(choice)) if self._texts else None, **about}

    def delta(self, choice: Choice, pieces: Sequence[Piece]) -> Json | None:
        """More of the text."""
        text = text_of(pieces, "content")
        if not text and not (pieces and self._logprobs is not None):
            return None
        columns = self._columns()
        if columns is not None:
            columns.add_pieces(pieces, len(self._echo(choice)) + choice.length - len(text))
        return {"text": text, "logprobs": _json(columns)}

    def empty(self) -> Json:
        """A chunk without text."""
        return {"text": "", "logprobs": None}

    def _echo(self, choice: Choice) -> str:
        return self._texts[choice.index] if self._texts else ""

    def _columns(self) -> TextLogprobs | None:
        return TextLogprobs(self.names, self._logprobs) if self._logprobs is not None else None

    def _echoed(self, choice: Choice) -> TextLogprobs | None:
        """Log-probabilities of the echoed prompt."""
        columns = self._columns()
        if columns is None or not self._texts:
            return columns
        prompt = self.prompt_of(choice)
        offsets = text_offsets(prompt, self._echo(choice), self.names)
        for token_id, score, offset in zip(prompt, choice.prompt_scores, offsets, strict=True):
            if score is None:
                columns.add(token_id, None, None, offset)
            else:
                columns.add(token_id, score.logprob, score.top, offset)
        return columns


def _json(columns: TextLogprobs | None) -> Json | None:
    return columns.to_json() if columns is not None else None


async def complete(request: CompletionRequest, service: Service) -> Response:
    """Continue one prompt or several.

    Raises:
        ApiError: the request cannot be honoured, or a generation failed.
        EngineError: the engine failed.
    """
    from starlette.responses import JSONResponse

    check_request(request, service)
    if request.multiverse is not None and request.multiverse.mode is not None:
        raise invalid("multiverse.mode is for chats: write the instruction into the prompt", "multiverse.mode")
    given = _several(request.prompt)
    if any(not isinstance(own, str) for own in given):
        service.check_token_ids("prompt")
    prompts = await asyncio.to_thread(_encode, service.llm, given, special=request.add_special_tokens is not False)
    params = sampling_params(request, service, prompts, "prompt", await read_response_format(request, service))

    events = await service.submit(prompts, params, "prompt", priority=priority_of(request))
    samples = params[0].n
    skipped = service.special_ids if request.skip_special_tokens else frozenset()
    choices = [Choice(index, skipped=skipped) for index in range(len(prompts) * samples)]
    texts = [own if isinstance(own, str) else service.llm.decode(own) for own in given] if request.echo else []
    form = TextForm(service, request, choices, prompts, texts)
    if request.multiverse is not None and request.multiverse.branches:
        return event_stream(form.branch_chunks(events))
    if request.stream:
        return event_stream(form.chunks(events))
    return JSONResponse(await form.answer(events))


def _several(prompt: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    several: Any = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return list(several)


def _encode(llm: LLM, prompts: Sequence[str | list[int]], *, special: bool) -> list[list[int]]:
    encode = partial(llm.tokenizer.encode, add_special_tokens=special)
    return [list(encode(prompt)) if isinstance(prompt, str) else prompt for prompt in prompts]
