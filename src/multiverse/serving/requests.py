"""Bodies of requests: OpenAI's, with one field of our own.

Types are strict and unknown fields are refused, so that nothing a client asks for is silently ignored. What OpenAI has and this
server does not is accepted only with the value that changes nothing (see `neutral.py`).

Limits and descriptions of sampling parameters are those that `SamplingParams` declares; stricter ones are given here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from ..engine.params import SamplingParams
from ..errors import RequestError
from ..options import declared, types
from ..prompting import Instruction
from .errors import ApiError, invalid
from .neutral import Empty, NeutralChat, NeutralCompletion, NeutralSampling, RequestModel

MOST_STOPS = 16
MOST_STOP_TOKENS = 256
MOST_CHOICES = 128
MOST_PROMPTS = 256
_SEED = 1 << 63


def _utf8(text: str) -> str:
    """JSON can hold half characters (lone surrogates), which no tokenizer can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character (a lone surrogate) at offset {error.start}: send valid Unicode text") from None
    return text


Text = Annotated[str, AfterValidator(_utf8)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Stop = Annotated[Text, Field(min_length=1, max_length=1000)]


def _sampling(name: str, description: str = "", **limits: Any) -> Any:
    """An optional field for a sampling parameter; these limits and this description replace the declared ones."""
    own = declared(SamplingParams)[name]
    whole = float not in get_args(types(SamplingParams)[name]) and types(SamplingParams)[name] is not float
    given = {"ge": own.ge, "gt": own.gt, "le": own.le, "lt": own.lt or (1 << 31 if whole else None), **limits}
    return Field(None, description=description or own.help, **{key: value for key, value in given.items() if value is not None})


class Extension(RequestModel):
    """What no other server has. With OpenAI's clients: `extra_body={"multiverse": {...}}`."""

    branches: bool = Field(False, description="Stream every branch live: each chunk carries one event in `multiverse`.")
    mode: Instruction | None = Field(
        None,
        description="Which instruction ends the user's messages; `sequential` also forbids forking unless `max_depth` is "
        "given, `as-is` adds none. Default: the server's.",
    )
    max_critical_path_tokens: int | None = _sampling("max_critical_path_tokens")
    thinking_budget: int | None = _sampling(
        "thinking_budget", "Longest chain of tokens before the answer; instead of `reasoning_effort`."
    )
    tail_tokens: int | None = _sampling("reserved_tokens")
    max_branch_tokens: int | None = _sampling("max_branch_tokens")
    path_repetition_penalty: float | None = _sampling("path_repetition_penalty", le=1000)
    max_depth: int | None = _sampling("max_depth", le=64, lt=None)
    max_width: int | None = _sampling("max_width", le=1024, lt=None)
    max_branches: int | None = _sampling("max_branches", le=4096, lt=None)
    guard: bool | None = Field(None, description=declared(SamplingParams)["guard"].help)
    share_every: int | None = _sampling("share_every")


EXTENDED = {
    "reserved_tokens" if name == "tail_tokens" else name: name
    for name in Extension.model_fields
    if name not in ("branches", "mode")
}
"""Sampling parameters that are set in the request's field `multiverse`, and their names there."""


class StreamOptions(RequestModel):
    """How to stream."""

    include_usage: bool | None = Field(None, description="Send the usage in a last chunk without choices.")
    include_obfuscation: Literal[False] | None = Field(None, description="This server does not pad its chunks.")
    continuous_usage_stats: Literal[False] | None = Field(None, description="The usage comes at the end.")


class Sampling(NeutralSampling):
    """Fields that chat and text completions share."""

    model: Text | None = Field(None, description="The served model's name (see `/v1/models`); none takes the one there is.")
    max_tokens: int | None = _sampling("max_tokens")
    temperature: float | None = _sampling("temperature", "0 is greedy. Default: 0.6.", le=2, lt=None)
    top_p: float | None = _sampling("top_p", "Keep the likeliest tokens that together reach this. Default: 0.95.")
    top_k: int | None = _sampling("top_k", "Keep this many likeliest tokens; 0 and -1 keep all.", ge=-1)
    min_p: float | None = _sampling("min_p", "Drop tokens less likely than this share of the likeliest.")
    repetition_penalty: float | None = _sampling("repetition_penalty", le=1000)
    presence_penalty: float | None = _sampling("presence_penalty")
    frequency_penalty: float | None = _sampling("frequency_penalty")
    seed: int | None = _sampling("seed", ge=-_SEED, lt=_SEED)
    n: int | None = _sampling("n", "Number of choices.", le=MOST_CHOICES, lt=None)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = Field(
        None,
        description="End the answer before this text. In chats it counts in the content only, but for tags, which end the "
        "request where they are written; in text completions it may come in any branch.",
    )
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MOST_STOP_TOKENS)] | None = Field(
        None, description="End before one of these tokens; they count where `stop` does."
    )
    include_stop_str_in_output: bool | None = Field(None, description="End the text behind what stopped it, not before.")
    logit_bias: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description="Token id (as a text) to bias."
    )
    ignore_eos: bool | None = Field(None, description="Go on after the end-of-text token, for benchmarks.")
    min_tokens: int | None = _sampling("min_tokens")
    priority: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] | None = Field(
        None, description="Requests with a lower one go first, and preempt others if memory runs short. Default: 0."
    )
    prompt_logprobs: int | None = _sampling("prompt_logprobs", le=20)
    return_token_ids: bool | None = Field(None, description="Also return the token ids of the prompt and of the answer.")
    return_tokens_as_token_ids: bool | None = Field(None, description="Call tokens `token_id:5` in log-probabilities.")
    skip_special_tokens: bool | None = Field(
        None, description="Leave special tokens, and the tags of the structure, out of texts. Default: false."
    )
    spaces_between_special_tokens: bool | None = Field(None, description="Accepted: the tokenizer adds none.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    multiverse: Extension | None = None
    user: Text | None = Field(None, description="Noted in the server's log.")
    prompt_cache_key: Text | None = Field(None, description="Accepted: the prefix cache needs no key.")


class TextPart(RequestModel):
    """A part of a message; there are no others than text."""

    type: Literal["text"]
    text: Text


Name = Annotated[Text, Field(max_length=64)]
Content = Text | Annotated[list[TextPart], Field(min_length=1)]


class UserMessage(RequestModel):
    """A question, or instructions. ``developer`` is treated as ``system``."""

    role: Literal["user", "system", "developer"]
    content: Content
    name: Name | None = Field(None, description="Given to the chat template, which may write it or not.")


class AssistantMessage(RequestModel):
    """An earlier answer. With the reasoning that came with it, it is tokenised as it was generated, for the prefix cache.

    The content of one that forks may be the Markdown that came, or its `multiverse.answer_text`.
    """

    role: Literal["assistant"]
    content: Content | None = None
    reasoning: Text | None = Field(None, description="The answer's `reasoning`, as it came.")
    reasoning_content: Text | None = Field(None, description="The same under its other name.")
    name: Name | None = Field(None, description="Given to the chat template, which may write it or not.")
    refusal: None = None
    audio: None = None
    annotations: Empty | None = None
    function_call: None = None
    tool_calls: Empty | None = None
    parsed: Any = Field(None, description="Accepted: the `content` again, as OpenAI's package reads it.")


Message = Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]


class TextFormat(RequestModel):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(RequestModel):
    """A JSON schema, by OpenAI's names."""

    name: Annotated[Text, Field(min_length=1, max_length=64)]
    schema_: dict[str, Any] = Field(alias="schema", description="The answer is JSON of this schema, or the request is refused.")
    description: Text | None = None
    strict: bool | None = Field(None, description="Accepted: a schema is always kept to in full.")


class JsonSchemaFormat(RequestModel):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


Metadata = Annotated[dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=512)]], Field(max_length=16)]


class ChatRequest(Sampling, NeutralChat):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = Field(None, description="The newer name of `max_tokens`.")
    reasoning_effort: Text | None = Field(
        None, description="none, minimal, low, medium or high: a thinking budget, see `/get_server_info`."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = Field(None, description="Form of the answer; the reasoning stays free.")
    metadata: Metadata | None = Field(None, description="Noted in the server's log.")
    safety_identifier: Text | None = Field(None, description="Noted in the server's log.")
    store: bool | None = Field(None, description="Accepted: this server stores nothing.")
    add_special_tokens: Literal[False] | None = Field(None, description="Only false: the chat template writes them.")
    echo: Literal[False] | None = Field(None, description="Only false.")


Tokens = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(Sampling, NeutralCompletion):
    """`POST /v1/completions`: raw text is continued, tags included."""

    prompt: (
        Annotated[Text, Field(min_length=1)]
        | Tokens
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="Number of likeliest tokens to report.")
    echo: bool | None = Field(None, description="Begin the text, and the log-probabilities, with the prompt.")
    add_special_tokens: bool | None = Field(None, description="Begin texts as the model wants it. Default: true.")
    response_format: ResponseFormat | None = Field(None, description="Form of what follows the thinking, if there is one.")


class Instructed(RequestModel):
    """The part of the extension that changes a prompt."""

    mode: Instruction | None = None


class TokenizeRequest(RequestModel):
    """`POST /tokenize`: a text or messages to token ids."""

    model: Text | None = None
    prompt: Text | None = Field(None, description="A text; or `messages`.")
    messages: Annotated[list[Message], Field(min_length=1)] | None = Field(
        None, description="A chat, which goes through the chat template as it would for an answer."
    )
    multiverse: Instructed | None = Field(None, description="For messages: which instruction is added.")
    add_special_tokens: bool | None = Field(None, description="For a prompt: begin it as the model wants it. Default: true.")
    return_token_strs: bool | None = Field(None, description="Also return each token's text.")


class DetokenizeRequest(RequestModel):
    """`POST /detokenize`: token ids to text."""

    model: Text | None = None
    tokens: list[TokenId]


class FamiliarityRequest(RequestModel):
    """`POST /familiarity`: is a question unlike those that the model was trained on?"""

    model: Text | None = None
    question: Annotated[Text, Field(min_length=1)]


class ParseRequest(RequestModel):
    """`POST /parse`: a structured document to the events in which it would have been generated."""

    text: Text
    dialect: Text | None = Field(None, description="The tag set's name; none takes the model's, or the default.")


def refused(error: RequestError, param: str | None = None) -> ApiError:
    """400 for what the engine refuses. Its message begins with the parameter's name where there is one.

    Args:
        param: what is at fault if the message names no parameter.
    """
    text = str(error)
    named = re.match(r"(\w+)(?:=| names | cannot be (?:combined|honoured) )", text)
    if named and named[1] in EXTENDED:
        param = f"multiverse.{EXTENDED[named[1]]}"
    elif named and named[1] != "max_seconds":  # which is the server's
        param = named[1]
    code = "context_length_exceeded" if "shorten the prompt" in text or "KV memory" in text else None
    return invalid(text, param, code)
