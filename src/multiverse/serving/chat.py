"""`POST /v1/chat/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..live import Reader, opens_thinking
from . import logs
from .answer import Answer, Names, chat_logprobs
from .job import Job
from .parts import Parts, Piece, text_of
from .prepare import asks, check_stream, note
from .translate import chat_prompt, check_model, mode_of
from .wire import ChatRequest

if TYPE_CHECKING:
    from starlette.responses import Response

    from .runner import Runner


class ChatForm:
    """How chat completions are told.

    Args:
        name: text of a token, to tell log-probabilities; `None` if they were not asked for.
    """

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(self, name: Names | None = None) -> None:
        self._name = name

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The message."""
        reasoning = text_of(answer.pieces, "reasoning") if answer.parts.thought else None
        message = {
            "role": "assistant",
            "content": text_of(answer.pieces, "content"),
            "refusal": None,
            "reasoning": reasoning,
            "reasoning_content": reasoning,
        }
        return {"message": message, "logprobs": self._logprobs(answer.pieces)}

    def opening(self, answer: Answer) -> dict[str, Any] | None:  # noqa: ARG002
        """Who speaks."""
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, answer: Answer, pieces: Sequence[Piece]) -> dict[str, Any] | None:  # noqa: ARG002
        """More of the message."""
        delta: dict[str, Any] = {}
        reasoning, content = text_of(pieces, "reasoning"), text_of(pieces, "content")
        if reasoning:
            delta["reasoning"] = delta["reasoning_content"] = reasoning
        if content:
            delta["content"] = content
        if not delta and not (pieces and self._name is not None):
            return None
        return {"delta": delta, "logprobs": self._logprobs(pieces)}

    def nothing(self) -> dict[str, Any]:
        """A chunk without text."""
        return {"delta": {}, "logprobs": None}

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        return chat_logprobs(pieces, self._name) if self._name is not None else None


async def complete(request: ChatRequest, runner: Runner) -> Response:
    """Answer a chat.

    Raises:
        ApiError: the request cannot be honoured, or did not come to an answer.
    """
    check_model(request.model, runner.model_name)
    check_stream(request)
    note(request)
    if request.metadata:
        logs.note(metadata=request.metadata)
    if request.safety_identifier is not None:
        logs.note(safety_identifier=request.safety_identifier)
    mode = mode_of(request.multiverse.mode if request.multiverse is not None else None, runner.llm, runner.settings)
    prompt = await asyncio.to_thread(chat_prompt, runner.llm, request.messages, mode)
    wanted = asks(request, runner, [prompt], "messages")
    engine = runner.llm.engine
    thinking = opens_thinking(prompt, engine.tokens)
    stops = wanted[0].params.stop_strings
    job = Job(
        runner,
        wanted,
        [Answer(index, Parts(engine.tokens, stops, prompt_thinking=thinking)) for index in range(len(wanted))],
        ChatForm((lambda token: engine.decode([token])) if request.logprobs else None),
        "messages",
        include_usage=request.stream_options is not None and bool(request.stream_options.include_usage),
    )
    if request.multiverse is not None and request.multiverse.branches:
        job.reader = Reader(engine.tokens, engine.loaded.stop_ids, prompt_thinking=thinking)
    return await job.run(stream=bool(request.stream))
