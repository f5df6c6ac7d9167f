"""`POST /v1/chat/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..streaming import opens_thinking
from . import logs
from .choice import Choice, Piece, text_of
from .form import Form, Json
from .logprobs import chat_logprobs
from .params import check_request, priority_of, read_response_format, sampling_params
from .prompts import chat_prompt, left_out, mode_of
from .requests import ChatRequest
from .sse import event_stream

if TYPE_CHECKING:
    from starlette.responses import Response

    from .service import Service


class ChatForm(Form):
    """The form of chat completions."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(
        self, service: Service, request: ChatRequest, choices: Sequence[Choice], prompts: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(service, request, choices, prompts)
        self.logprobs = bool(request.logprobs)

    def preface(self) -> Json:
        """What was asked about the prompt."""
        return self.about_prompt(self.choices[0])

    def whole(self, choice: Choice) -> Json:
        """The message."""
        reasoning = text_of(choice.pieces, "reasoning") if choice.thought else None
        message = {
            "role": "assistant",
            "content": text_of(choice.pieces, "content"),
            "refusal": None,
            "reasoning": reasoning,
            "reasoning_content": reasoning,
        }
        return {"message": message, "logprobs": self._logprobs(choice.pieces)}

    def opening(self, choice: Choice) -> Json | None:  # noqa: ARG002
        """The role."""
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def delta(self, choice: Choice, pieces: Sequence[Piece]) -> Json | None:  # noqa: ARG002
        """More of the message."""
        delta: Json = {}
        reasoning, content = text_of(pieces, "reasoning"), text_of(pieces, "content")
        if reasoning:
            delta["reasoning"] = delta["reasoning_content"] = reasoning
        if content:
            delta["content"] = content
        if not delta and not (pieces and self.logprobs):
            return None
        return {"delta": delta, "logprobs": self._logprobs(pieces)}

    def empty(self) -> Json:
        """A chunk without text."""
        return {"delta": {}, "logprobs": None}

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        return chat_logprobs(pieces, self.names) if self.logprobs else None


async def complete(request: ChatRequest, service: Service) -> Response:
    """Answer a chat.

    Raises:
        ApiError: the request cannot be honoured, or its generation failed.
        EngineError: the engine failed.
    """
    from starlette.responses import JSONResponse

    check_request(request, service)
    if request.metadata:
        logs.note(metadata=request.metadata)
    if request.safety_identifier is not None:
        logs.note(safety_identifier=request.safety_identifier)
    llm = service.llm
    mode = mode_of(request.multiverse.mode if request.multiverse is not None else None, llm, service.config)
    chat = await asyncio.to_thread(chat_prompt, llm, request.messages, mode)
    prompt = chat.token_ids
    params = sampling_params(request, service, [prompt], "messages", await read_response_format(request, service))

    events = await service.submit([prompt], params, "messages", priority=priority_of(request))
    tokens, thinking = llm.tokens, opens_thinking(prompt, llm.tokens)
    skipped = service.special_ids if request.skip_special_tokens else frozenset()
    choices = [Choice(index, tokens, thinking=thinking, skipped=skipped) for index in range(params[0].n)]
    form = ChatForm(service, request, choices, [prompt])
    form.left_out, form.warnings = chat.left_out, left_out(chat)
    if request.multiverse is not None and request.multiverse.branches:
        return event_stream(form.branch_chunks(events))
    if request.stream:
        return event_stream(form.chunks(events))
    return JSONResponse(await form.answer(events))
