"""`POST /v1/responses`: a chat's answer as OpenAI's items, whole or as named events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from ..streaming import opens_thinking
from . import logs, sse
from .choice import Choice, Piece, Section, text_of, usage_of
from .errors import ApiError, as_api_error
from .items import Chat, ResponseRequest, as_chat
from .logprobs import TokenNames, chat_logprobs
from .params import check_request, priority_of, read_response_format, sampling_params
from .prompts import chat_prompt, left_out, mode_of

if TYPE_CHECKING:
    from starlette.responses import Response

    from ..engine.event_stream import EventStream
    from ..engine.params import SamplingParams
    from .service import Service

Json = dict[str, Any]


async def respond(request: ResponseRequest, service: Service) -> Response:
    """Answer the input.

    Raises:
        ApiError: the request cannot be honoured, or its generation failed.
        EngineError: the engine failed.
    """
    from starlette.responses import JSONResponse

    chat = as_chat(request)
    try:
        answer, events = await _submit(request, chat, service)
    except ApiError as error:
        raise chat.renamed(error) from None
    if request.stream:
        return sse.named_event_stream(answer.stream(events))
    return JSONResponse(await answer.whole(events))


async def _submit(asked: ResponseRequest, chat: Chat, service: Service) -> tuple[ResponseAnswer, EventStream]:
    request, llm = chat.request, service.llm
    check_request(request, service)
    if request.metadata:
        logs.note(metadata=request.metadata)
    if request.safety_identifier is not None:
        logs.note(safety_identifier=request.safety_identifier)
    mode = mode_of(request.multiverse.mode if request.multiverse is not None else None, llm, service.config)
    written = await asyncio.to_thread(chat_prompt, llm, request.messages, mode)
    prompt = written.token_ids
    params = sampling_params(request, service, [prompt], "messages", await read_response_format(request, service))
    events = await service.submit([prompt], params, "messages", priority=priority_of(request))
    choice = Choice(0, llm.tokens, thinking=opens_thinking(prompt, llm.tokens))
    answer = ResponseAnswer(asked, service, choice, params[0])
    answer.left_out, answer.warnings = written.left_out, left_out(written)
    return answer, events


class ResponseAnswer:
    """One answer: the response object, and the items in it.

    Args:
        request: what was asked.
        service: answers it.
        choice: puts the answer together.
        params: how it is sampled.

    Attributes:
        left_out: parts of the messages that the chat template has left out.
        warnings: the same in words.
    """

    left_out: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def __init__(self, request: ResponseRequest, service: Service, choice: Choice, params: SamplingParams) -> None:
        self.request, self.service, self.choice, self.params = request, service, choice, params
        self.created = int(time.time())
        self.id = f"resp_{secrets.token_hex(16)}"
        self._names = TokenNames(service.bytes_of, as_ids=False)
        self._output: list[Json] = []

    async def whole(self, events: EventStream) -> Json:
        """The finished response.

        Raises:
            ApiError: the generation failed.
            EngineError: the engine failed.
        """
        pieces: list[Piece] = []
        async for _, event in events:
            pieces += self.choice.feed(event)
        self._check()
        ended = self._status()
        if self.choice.thought:
            self._output.append(self._item("reasoning", text_of(pieces, "reasoning"), pieces, self._thought(pieces)))
        if self._answered(pieces):
            self._output.append(self._item("content", text_of(pieces, "content"), pieces, ended))
        return self._response(ended)

    async def stream(self, events: EventStream) -> AsyncIterator[list[Json]]:
        """The same as events, some at a time; an empty list when nothing has come for a while. A failure is an event, too."""
        writer = _Writer(self)
        yield [writer.event("response.created", response=self._response("in_progress"))]
        yield [writer.event("response.in_progress", response=self._response("in_progress"))]
        try:
            async for batch in events.batches(sse.PING_SECONDS):
                out: list[Json] = []
                for _, event in batch:
                    for piece in self.choice.feed(event):
                        out += writer.write(piece)
                if out or not batch:
                    yield out
            self._check()
        except Exception as error:
            failure = as_api_error(error)
            logs.note(error=failure.message)
            code = "server_error" if failure.status >= 500 else "invalid_prompt"
            closed = writer.close("incomplete")
            failed = self._response("failed") | {"error": {"code": code, "message": failure.message}}
            yield [*closed, writer.event("response.failed", response=failed)]
            return
        ended = self._status()
        last = [] if writer.section == "content" or ended == "incomplete" else writer.open("content")
        yield [*last, *writer.close(ended), writer.event(f"response.{ended}", response=self._response(ended))]

    def _check(self) -> None:
        generation = self.choice.generation
        if generation is not None and (error := self.service.failed(generation)) is not None:
            raise error

    def _status(self) -> str:
        return "completed" if self.choice.end({})["finish_reason"] == "stop" else "incomplete"

    def _answered(self, pieces: Sequence[Piece]) -> bool:
        return self._status() == "completed" or any(piece.section == "content" for piece in pieces)

    def _thought(self, pieces: Sequence[Piece]) -> str:
        return "completed" if self._answered(pieces) else "incomplete"

    def keep(self, item: Json) -> None:
        """An item is finished."""
        self._output.append(item)

    def _item(self, section: Section, text: str, pieces: Sequence[Piece], status: str) -> Json:
        return self.item(section, self.new_id(section), [self.part(section, text, pieces)], status)

    def new_id(self, section: Section) -> str:
        """Id of a new item."""
        return f"{'rs' if section == 'reasoning' else 'msg'}_{secrets.token_hex(16)}"

    def item(self, section: Section, ident: str, content: list[Json], status: str) -> Json:
        """An output item."""
        if section == "reasoning":
            return {
                "id": ident,
                "type": "reasoning",
                "summary": [],
                "content": content,
                "encrypted_content": None,
                "status": status,
            }
        return {"id": ident, "type": "message", "role": "assistant", "status": status, "content": content}

    def part(self, section: Section, text: str, pieces: Sequence[Piece]) -> Json:
        """The one part of an item."""
        if section == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs(pieces)}

    def logprobs(self, pieces: Sequence[Piece]) -> list[Json]:
        """Log-probabilities of the answer's tokens, if they were asked for."""
        if not self.request.logprobs:
            return []
        entries: list[Json] = chat_logprobs(pieces, self._names)["content"]
        return entries

    def _response(self, status: str) -> Json:
        request, params = self.request, self.params
        over = status in ("completed", "incomplete")
        effort = request.reasoning.effort if request.reasoning is not None else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": self.service.model_name,
            "output": list(self._output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": effort, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": params.temperature,
            "text": self._text(),
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": self._usage() if over else None,
            "user": request.user,
            "multiverse": self.choice.end({})["multiverse"] if over else None,
            "warnings": list(self.warnings),
        }

    def _text(self) -> Json:
        text = self.request.text
        form = text.format.model_dump(by_alias=True) if text is not None and text.format is not None else {"type": "text"}
        return {"format": form, "verbosity": "medium"}

    def _usage(self) -> Json:
        usage = usage_of([self.choice])
        if self.left_out:
            usage["multiverse"]["left_out"] = list(self.left_out)
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {**usage["prompt_tokens_details"], "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
            "multiverse": usage["multiverse"],
        }


class _Writer:
    """Numbers the events of a stream, and opens and closes its items.

    Attributes:
        section: what the open item holds; `None` before the first.
    """

    def __init__(self, answer: ResponseAnswer) -> None:
        self._answer = answer
        self._number = 0
        self._index = -1
        self._id = ""
        self._pieces: list[Piece] = []
        self.section: Section | None = None

    def event(self, name: str, **fields: Any) -> Json:
        """The next event."""
        event = {"type": name, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def write(self, piece: Piece) -> list[Json]:
        """More text; white space that only closes what came before opens nothing."""
        opened = [] if piece.section == self.section else [*self.close("completed"), *self.open(piece.section)]
        self._pieces.append(piece)
        if piece.section == "reasoning":
            delta = [self._place("response.reasoning_text.delta", delta=piece.text)] if piece.text else []
        else:
            logprobs = self._answer.logprobs([piece])
            wanted = piece.text or logprobs
            delta = [self._place("response.output_text.delta", delta=piece.text, logprobs=logprobs)] if wanted else []
        return opened + delta

    def open(self, section: Section) -> list[Json]:
        """The events that begin an item, after those that end the one before."""
        before = self.close("completed")
        self.section, self._id, self._pieces = section, self._answer.new_id(section), []
        self._index += 1
        item, part = self._answer.item(section, self._id, [], "in_progress"), self._answer.part(section, "", [])
        added = self.event("response.output_item.added", output_index=self._index, item=item)
        return [*before, added, self._place("response.content_part.added", part=part)]

    def close(self, status: str) -> list[Json]:
        """The events that end the open item, if there is one."""
        if self.section is None:
            return []
        section, self.section = self.section, None
        text = text_of(self._pieces, section)
        part = self._answer.part(section, text, self._pieces)
        item = self._answer.item(section, self._id, [part], status)
        self._answer.keep(item)
        if section == "reasoning":
            done = self._place("response.reasoning_text.done", text=text)
        else:
            done = self._place("response.output_text.done", text=text, logprobs=self._answer.logprobs(self._pieces))
        return [
            done,
            self._place("response.content_part.done", part=part),
            self.event("response.output_item.done", output_index=self._index, item=item),
        ]

    def _place(self, name: str, **fields: Any) -> Json:
        return self.event(name, item_id=self._id, output_index=self._index, content_index=0, **fields)
