"""Answers in the OpenAPI description. Handlers build them as plain dictionaries; the tests check them against these models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


_STOP_REASON = "The stop string, or the id of the stop token, that ended it; null if something else did."
_REREAD = Field(0, description="Tokens of paths that their parents read again, after joins by text or message.")
WARNINGS = "What the chat template has left out of the prompt, in words; absent if it has left out nothing."


class ResponseModel(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """What is wrong, and what to do about it."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(ResponseModel):
    """Body of every error."""

    error: ErrorDetail


class PromptDetails(ResponseModel):
    """Of the prompt's tokens."""

    cached_tokens: int = Field(description="Those found in the prefix cache.")


class CompletionDetails(ResponseModel):
    """Of the generated tokens."""

    reasoning_tokens: int = Field(description="Those of the thinking.")


class ParallelUsage(ResponseModel):
    """Usage that only this server reports."""

    critical_path_tokens: int = Field(description="Longest chain of tokens; with several answers, the sum of theirs.")
    critical_path_steps: int = Field(description="Forwards on that chain: forced tokens are computed together.")
    parallelism: float = Field(description="Generated tokens over those of the critical path.")
    forks: int
    reread_tokens: int = _REREAD
    seconds: float
    left_out: list[str] | None = Field(
        None, description="Parts of the messages that the chat template has left out of the prompt; absent if there are none."
    )


class Usage(ResponseModel):
    """Usage of a request."""

    prompt_tokens: int
    completion_tokens: int = Field(description="Generated tokens of all branches.")
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    multiverse: ParallelUsage


class Closed(ResponseModel):
    """A branch that was closed for a limit."""

    branch: str
    reason: str


class ChoiceExtension(ResponseModel):
    """What only this server reports of a choice."""

    finish_reason: str = Field(description="stop, length, budget or deadline.")
    answer: str
    answer_text: str | None = Field(
        description="An answer that forks, with its tags: as content of an earlier answer it is tokenised as it was generated."
    )
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    parallelism: float
    forks: int
    reread_tokens: int = _REREAD
    seconds: float
    closed: list[Closed]
    structure_error: str | None


class NamedLogprob(ResponseModel):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int] = Field(description="Those of the token, which may be a part of a character.")


class RankedLogprob(ResponseModel):
    """A token at a place of the prompt."""

    logprob: float
    rank: int = Field(description="Its place among all tokens, the likeliest being 1.")
    decoded_token: str


PromptLogprobs = list[dict[str, RankedLogprob] | None]
_PROMPT_LOGPROBS = Field(
    None,
    description="With `prompt_logprobs`: by token id; null for the first token, and for those that the engine would write.",
)
_PROMPT_TOKEN_IDS = Field(None, description="With `return_token_ids`.")
_TOKEN_IDS = Field(None, description="With `return_token_ids`: of all branches, in document order.")


class TokenLogprob(NamedLogprob):
    """A token of the answer."""

    top_logprobs: list[NamedLogprob]
    forced: bool | None = Field(None, description="The engine wrote it; there was nothing to choose.")


class ChatLogprobs(ResponseModel):
    """Log-probabilities under the model's own distribution."""

    content: list[TokenLogprob]
    refusal: None
    reasoning: list[TokenLogprob]


class ChatMessage(ResponseModel):
    """An answer."""

    role: Literal["assistant"]
    content: str = Field(description="The answer; one that forks as Markdown: each path under its outline as a heading.")
    refusal: None
    reasoning: str | None = Field(description="The thinking as it was written, with the tags of its blocks.")
    reasoning_content: str | None = Field(description="The same under its other name.")


class ChatChoice(ResponseModel):
    """One answer of several."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None = Field(description=_STOP_REASON)
    multiverse: ChoiceExtension
    token_ids: list[int] | None = _TOKEN_IDS


class ChatCompletion(ResponseModel):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: PromptLogprobs | None = _PROMPT_LOGPROBS
    prompt_token_ids: list[int] | None = _PROMPT_TOKEN_IDS
    warnings: list[str] | None = Field(None, description=WARNINGS)


class ChatDelta(ResponseModel):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatChunkChoice(ResponseModel):
    """A choice in a chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | None = Field(None, description=_STOP_REASON)
    multiverse: ChoiceExtension | None = None
    token_ids: list[int] | None = _TOKEN_IDS


class EventCounts(ResponseModel):
    """Tokens so far."""

    total: int
    critical_path: int
    branch: int
    steps: int = Field(description="Forwards on the longest chain.")


class EventUsage(ResponseModel):
    """Usage of a generation."""

    prompt_tokens: int
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    parallelism: float
    seconds: float
    cached_tokens: int
    preemptions: int
    reread_tokens: int = _REREAD


class WireEvent(ResponseModel):
    """One thing that happened in a generation. Fields that do not apply are left out.

    A `goal` has the role `answer` if its block stands in the answer.
    """

    event: Literal["start", "goal", "token", "fork", "branch_end", "join", "finish"]
    branch: str = Field(description="Label path of the branch it happened in; empty for the trunk.")
    parent: str | None = Field(description="Label path of that branch's parent.")
    text: str | None = None
    role: Literal["text", "outline", "conclusion", "answer", "structure"] | None = None
    outline: str | None = Field(None, description="Label of the branch to come that the text describes.")
    position: int | None = None
    forced: bool | None = None
    labels: list[str] | None = Field(None, description="The children, of a fork or join.")
    reason: str | None = None
    tokens: EventCounts | None = None
    seconds: float | None = None
    id: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    finish_reason: str | None = None
    usage: EventUsage | None = None
    structure_error: str | None = None
    answer: str | None = None


class ChatChunk(ResponseModel):
    """A chunk of a streamed chat completion; with `multiverse.branches` it carries an event."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    warnings: list[str] | None = Field(None, description=WARNINGS + " On the first chunk.")
    multiverse: WireEvent | None = None
    prompt_logprobs: PromptLogprobs | None = _PROMPT_LOGPROBS
    prompt_token_ids: list[int] | None = _PROMPT_TOKEN_IDS


class TextLogprobs(ResponseModel):
    """Log-probabilities under the model's own distribution; null where the engine wrote the token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(ResponseModel):
    """One continuation of several."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None = Field(description=_STOP_REASON)
    multiverse: ChoiceExtension
    prompt_logprobs: PromptLogprobs | None = _PROMPT_LOGPROBS
    prompt_token_ids: list[int] | None = _PROMPT_TOKEN_IDS
    token_ids: list[int] | None = _TOKEN_IDS


class TextCompletion(ResponseModel):
    """Answer of `POST /v1/completions`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class TextChunkChoice(ResponseModel):
    """A choice in a chunk."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | None = Field(None, description=_STOP_REASON)
    multiverse: ChoiceExtension | None = None
    prompt_logprobs: PromptLogprobs | None = _PROMPT_LOGPROBS
    prompt_token_ids: list[int] | None = _PROMPT_TOKEN_IDS
    token_ids: list[int] | None = _TOKEN_IDS


class TextChunk(ResponseModel):
    """A chunk of a streamed text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChunkChoice]
    usage: Usage | None = None
    warnings: list[str] | None = Field(None, description=WARNINGS + " On the first chunk.")
    multiverse: WireEvent | None = None
