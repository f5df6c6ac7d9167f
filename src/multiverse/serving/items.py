"""Bodies of `POST /v1/responses`: OpenAI's items for text in and out, and the chat that they stand for.

Nothing is stored: a conversation is sent whole, earlier answers with their reasoning items, and what would need a store is
refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag

from .errors import ApiError, invalid
from .neutral import Empty, RequestModel
from .requests import (
    AssistantMessage,
    ChatRequest,
    Count,
    Extension,
    JsonObjectFormat,
    JsonSchemaFormat,
    Metadata,
    Stop,
    Text,
    TextFormat,
    UserMessage,
    _sampling,
)

# Fields that a chat has by the same name.
_SHARED = (
    "model",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "stream",
    "multiverse",
    "metadata",
    "safety_identifier",
    "store",
    "user",
    "prompt_cache_key",
)
# What a chat calls a field, and what it is called here.
_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "messages": "input",
}


class InputText(RequestModel):
    """A text of a message; there are no other parts."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: Empty | None = None
    logprobs: list[Any] | None = Field(None, description="As they came: not read.")


class InputMessage(RequestModel):
    """A message; of the assistant, an earlier answer."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: Text | Annotated[list[InputText], Field(min_length=1)]
    id: Text | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: None = None


class ReasoningText(RequestModel):
    """Reasoning as it was generated."""

    type: Literal["reasoning_text"]
    text: Text


class ReasoningItem(RequestModel):
    """The reasoning of the message that follows it, as it came."""

    type: Literal["reasoning"]
    id: Text | None = None
    summary: Empty | None = Field(None, description="This server makes no summaries.")
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


def _type(item: Any) -> str:
    return str(item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "message"))


Item = Annotated[
    Annotated[InputMessage, Tag("message")] | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_type),
]


class SchemaFormat(RequestModel):
    """JSON of a schema, as this API writes it."""

    type: Literal["json_schema"]
    name: Annotated[Text, Field(min_length=1, max_length=64)]
    schema_: dict[str, Any] = Field(alias="schema")
    description: Text | None = None
    strict: bool | None = None


class TextConfig(RequestModel):
    """Form of the answer."""

    format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(RequestModel):
    """How much to think."""

    effort: Text | None = Field(None, description="none, minimal, low, medium or high: see `reasoning_effort` of a chat.")
    summary: Literal["auto"] | None = Field(None, description="Accepted: the reasoning itself is sent, and no summary.")
    generate_summary: None = None


class ResponseStreamOptions(RequestModel):
    """How to stream."""

    include_obfuscation: Literal[False] | None = Field(None, description="This server does not pad its events.")


class NeutralResponse(RequestModel):
    """Parameters that are accepted only with the value that changes nothing."""

    background: Literal[False] | None = None
    context_management: Empty | None = None
    conversation: None = None
    max_tool_calls: None = None
    moderation: None = None
    parallel_tool_calls: bool | None = Field(None, description="Accepted: without tools it changes nothing.")
    previous_response_id: None = None
    prompt: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: Empty | None = None
    truncation: Literal["disabled"] | None = None


class ResponseRequest(NeutralResponse):
    """`POST /v1/responses`."""

    input: Annotated[Text, Field(min_length=1)] | Annotated[list[Item], Field(min_length=1)]
    model: Text | None = Field(None, description="The served model's name (see `/v1/models`); none takes the one there is.")
    instructions: Text | None = Field(None, description="A system message before the input.")
    max_output_tokens: Count | None = Field(None, description="Limit on all generated tokens, reasoning included.")
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = Field(
        None, description="Log-probabilities; encrypted reasoning is accepted, since the reasoning itself is always sent."
    )
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    temperature: float | None = _sampling("temperature", "0 is greedy. Default: 0.6.", le=2, lt=None)
    top_p: float | None = _sampling("top_p")
    top_k: int | None = _sampling("top_k", ge=-1)
    min_p: float | None = _sampling("min_p")
    repetition_penalty: float | None = _sampling("repetition_penalty", le=1000)
    presence_penalty: float | None = _sampling("presence_penalty")
    frequency_penalty: float | None = _sampling("frequency_penalty")
    seed: int | None = _sampling("seed", ge=-(1 << 63), lt=1 << 63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: Metadata | None = Field(None, description="Noted in the server's log, and sent back.")
    safety_identifier: Text | None = Field(None, description="Noted in the server's log.")
    store: bool | None = Field(None, description="Accepted: this server stores nothing.")
    user: Text | None = Field(None, description="Noted in the server's log.")
    prompt_cache_key: Text | None = Field(None, description="Accepted: the prefix cache needs no key.")
    multiverse: Extension | None = Field(None, description="As in a chat, but for `branches`.")

    @property
    def logprobs(self) -> bool:
        """Whether log-probabilities are to be sent."""
        return "message.output_text.logprobs" in (self.include or ())


class Chat(NamedTuple):
    """The chat that a request stands for.

    Attributes:
        request: it.
        places: for each of its messages, where it stands in the request.
    """

    request: ChatRequest
    places: Sequence[str]

    def renamed(self, error: ApiError) -> ApiError:
        """An error about the chat as one about the request."""
        param, message = error.param or "", error.message
        if (parts := param.split("."))[0] == "messages" and len(parts) > 1:
            error.param = ".".join([self.places[int(parts[1])], *parts[2:]])
        for old, new in _NAMES.items():
            message = message.replace(f"{old}=", f"{new}=").replace(f"{old} names", f"{new} names")
            if param == old:
                error.param = new
        error.message = message
        return error


def as_chat(request: ResponseRequest) -> Chat:
    """The chat that a request stands for.

    Raises:
        ApiError: 400, where the items do not make one.
    """
    if request.multiverse is not None and request.multiverse.branches:
        raise invalid("multiverse.branches is for /v1/chat/completions: leave it out here", "multiverse.branches")
    if request.top_logprobs and not request.logprobs:
        raise invalid(f'top_logprobs={request.top_logprobs} needs include: ["message.output_text.logprobs"]', "top_logprobs")
    messages, places = _messages(request)
    fields = {name: value for name in _SHARED if (value := getattr(request, name)) is not None}
    chat = ChatRequest(
        messages=messages,
        max_completion_tokens=request.max_output_tokens,
        reasoning_effort=request.reasoning.effort if request.reasoning is not None else None,
        response_format=_response_format(request.text),
        logprobs=request.logprobs or None,
        top_logprobs=request.top_logprobs,
        **fields,
    )
    return Chat(chat, places)


def _messages(request: ResponseRequest) -> tuple[list[UserMessage | AssistantMessage], list[str]]:
    messages: list[UserMessage | AssistantMessage] = []
    places: list[str] = []
    if request.instructions:
        messages.append(UserMessage(role="system", content=request.instructions, name=None))
        places.append("instructions")
    if isinstance(request.input, str):
        return [*messages, UserMessage(role="user", content=request.input, name=None)], [*places, "input"]
    reasoning: str | None = None
    for number, item in enumerate(request.input):
        place = f"input.{number}"
        if isinstance(item, ReasoningItem):
            if reasoning is not None or _after(request.input, number) != "assistant":
                raise invalid("a reasoning item stands before the assistant's message that it led to: leave it out here", place)
            reasoning = "".join(part.text for part in item.content) if item.content else None
            continue
        content = item.content if isinstance(item.content, str) else "\n".join(part.text for part in item.content)
        if item.role == "assistant":
            messages.append(AssistantMessage.model_validate({"role": "assistant", "content": content, "reasoning": reasoning}))
            reasoning = None
        else:
            messages.append(UserMessage(role=item.role, content=content, name=None))
        places.append(place)
    return messages, places


def _after(items: Sequence[InputMessage | ReasoningItem], number: int) -> str | None:
    following = items[number + 1] if number + 1 < len(items) else None
    return following.role if isinstance(following, InputMessage) else None


def _response_format(text: TextConfig | None) -> Any:
    form = text.format if text is not None else None
    if isinstance(form, SchemaFormat):
        schema = {"name": form.name, "schema": form.schema_, "description": form.description, "strict": form.strict}
        return JsonSchemaFormat.model_validate({"type": "json_schema", "json_schema": schema})
    return form
