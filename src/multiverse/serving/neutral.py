"""Parameters of OpenAI's and vLLM's APIs that are accepted only with the value that changes nothing.

Clients send their defaults, so those are taken; any other value is refused by name, with the reason that `NEUTRAL` gives.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NEUTRAL: dict[str, str] = {
    "add_generation_prompt": "an answer always begins with the template's generation prompt: use /v1/completions for another",
    "allowed_token_ids": "use logit_bias",
    "audio": "this server writes text only: leave it out",
    "background": "an answer is sent when it is asked for: leave it out, and use stream",
    "bad_words": "ban single tokens with logit_bias",
    "best_of": "every sample is returned: leave it out, and use n",
    "cache_salt": "the prefix cache is one for all requests: leave it out",
    "chat_template": "the model's own template is used: for another, write the prompt for /v1/completions",
    "chat_template_kwargs": "templates get no other values: leave it out (reasoning_effort limits the thinking)",
    "context_management": "this server stores nothing: leave it out, and shorten the input",
    "continue_final_message": "a chat is answered with a new message: use /v1/completions to continue one",
    "conversation": "this server stores nothing: send the earlier items in input",
    "documents": "put the documents into the messages",
    "encrypted_content": "the reasoning comes and goes back as it is, in content",
    "function_call": "this server has no tools: leave it out",
    "functions": "this server has no tools: leave it out",
    "guided_choice": "use logit_bias with max_tokens, or compare the choices by echo and logprobs of /v1/completions",
    "guided_decoding_backend": "there is nothing to choose: leave it out",
    "guided_grammar": "use response_format, with a JSON schema: pattern, enum and const are there",
    "guided_json": "use response_format",
    "guided_regex": "use response_format, with a JSON schema: pattern, enum and const are there",
    "guided_whitespace_pattern": "there is nothing to choose: leave it out",
    "include_reasoning": "the reasoning is always sent, beside the content: leave it out, or set reasoning_effort to none",
    "kv_transfer_params": "keys and values stay in one server: leave it out",
    "length_penalty": "it is for beam search, which this server does not do: leave it out",
    "logits_processors": "this server runs no code of its clients: use logit_bias",
    "max_repetition_pattern_size": "repetition is not looked for: use a penalty",
    "max_tool_calls": "this server has no tools: leave it out",
    "media_io_kwargs": "this server reads text only: leave it out",
    "mm_processor_kwargs": "this server reads text only: leave it out",
    "min_repetition_pattern_size": "repetition is not looked for: use a penalty",
    "modalities": 'only ["text"] is possible',
    "moderation": "this server has no moderation: leave it out",
    "prediction": "predicted output is not supported: leave it out",
    "previous_response_id": "this server stores nothing: send the earlier items in input",
    "prompt_cache_options": "the prefix cache needs no options: leave it out",
    "prompt_cache_retention": 'only "in_memory" is possible',
    "prompt_embeds": "send the prompt as text or token ids",
    "repetition_detection": "repetition is not looked for: use a penalty",
    "repetition_min_count": "repetition is not looked for: use a penalty",
    "request_id": "send the header X-Request-Id: it is noted in the log and comes back",
    "service_tier": 'only "auto" and "default" are possible',
    "structural_tag": "use response_format, with a JSON schema: pattern, enum and const are there",
    "structured_outputs": "use response_format",
    "suffix": "this server only continues a prompt: leave it out",
    "thinking_token_budget": "use reasoning_effort, or multiverse.thinking_budget",
    "tool_calls": "this server has no tools: leave the message out, or put its text in content",
    "tool_choice": 'this server has no tools: leave it out ("none" and "auto" change nothing)',
    "tools": "this server has no tools: leave it out",
    "truncate_prompt_tokens": "a prompt is never cut, which may break its structure: shorten it",
    "truncation": 'only "disabled" is possible: shorten the input',
    "use_beam_search": "this server samples: leave it out, and use n",
    "verbosity": 'only "medium" is possible: ask for the length in the prompt',
    "vllm_xargs": "they are for plugins of vLLM: leave it out",
    "web_search_options": "this server does not search the web: leave it out",
}
"""Why a parameter is refused with any value that would change the result."""

Empty = Annotated[list[Any], Field(max_length=0)]
_EmptyObject = Annotated[dict[str, Any], Field(max_length=0)]


class RequestModel(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NeutralSampling(RequestModel):
    """Of chat and text completions."""

    allowed_token_ids: None = None
    bad_words: Empty | None = None
    best_of: Literal[1] | None = None
    cache_salt: None = None
    guided_choice: None = None
    guided_decoding_backend: None = None
    guided_grammar: None = None
    guided_json: None = None
    guided_regex: None = None
    guided_whitespace_pattern: None = None
    kv_transfer_params: None = None
    length_penalty: Annotated[float, Field(ge=1, le=1)] | None = None
    logits_processors: Empty | None = None
    max_repetition_pattern_size: Literal[0] | None = None
    min_repetition_pattern_size: Literal[0] | None = None
    mm_processor_kwargs: _EmptyObject | None = None
    repetition_detection: None = None
    repetition_min_count: Literal[0] | None = None
    request_id: None = None
    structural_tag: None = None
    structured_outputs: None = None
    thinking_token_budget: None = None
    truncate_prompt_tokens: None = None
    use_beam_search: Literal[False] | None = None
    vllm_xargs: _EmptyObject | None = None


class NeutralChat(RequestModel):
    """Of chat completions."""

    add_generation_prompt: Literal[True] | None = None
    audio: None = None
    chat_template: None = None
    chat_template_kwargs: _EmptyObject | None = None
    continue_final_message: Literal[False] | None = None
    documents: Empty | None = None
    function_call: Literal["none"] | None = None
    functions: Empty | None = None
    include_reasoning: Literal[True] | None = None
    media_io_kwargs: _EmptyObject | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    moderation: None = None
    parallel_tool_calls: bool | None = Field(None, description="Accepted: without tools it changes nothing.")
    prediction: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: Literal["in_memory"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: Empty | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None


class NeutralCompletion(RequestModel):
    """Of text completions."""

    prompt_embeds: None = None
    suffix: Literal[""] | None = None
