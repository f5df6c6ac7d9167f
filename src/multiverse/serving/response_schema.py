"""Answers of `/v1/responses` in the OpenAPI description, as `responses.py` has the others."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .responses import ChoiceExtension, CompletionDetails, ParallelUsage, ResponseModel, TokenLogprob

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(ResponseModel):
    """Text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class OutputMessage(ResponseModel):
    """The answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: ItemStatus
    content: list[OutputText]


class ReasoningPart(ResponseModel):
    """The thinking as it was generated, with the tags of its blocks."""

    type: Literal["reasoning_text"]
    text: str


class OutputReasoning(ResponseModel):
    """The thinking; sent back before its message, it is tokenised as it was generated."""

    id: str
    type: Literal["reasoning"]
    summary: list[Any] = Field(description="Empty.")
    content: list[ReasoningPart]
    encrypted_content: None
    status: ItemStatus


class InputDetails(ResponseModel):
    """Of the input's tokens."""

    cached_tokens: int = Field(description="Those found in the prefix cache.")
    cache_write_tokens: int = Field(description="0: writing to the prefix cache costs nothing.")


class ResponseUsage(ResponseModel):
    """Usage of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: CompletionDetails
    total_tokens: int
    multiverse: ParallelUsage


class ResponseFault(ResponseModel):
    """Why a response failed."""

    code: str
    message: str


class Incomplete(ResponseModel):
    """Why a response is incomplete: a limit, which `multiverse.finish_reason` names."""

    reason: Literal["max_output_tokens"]


class ResponseObject(ResponseModel):
    """Answer of `POST /v1/responses`."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    background: Literal[False]
    error: ResponseFault | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputReasoning]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, Any]
    service_tier: Literal["default"]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["auto"]
    tools: list[Any]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    user: str | None
    multiverse: ChoiceExtension | None
    warnings: list[str] = Field(description="What the chat template has left out of the input.")


class ResponseEvent(ResponseModel):
    """An event of a stream, by OpenAI's names and with OpenAI's fields; `type` is also the event's name in the stream."""

    type: str
    sequence_number: int
    response: ResponseObject | None = None
    item: OutputMessage | OutputReasoning | None = None
    part: OutputText | ReasoningPart | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: list[Any] | None = None
