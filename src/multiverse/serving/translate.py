"""From what a client sends to what the engine takes: prompts as token ids, sampling parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.params import SamplingParams
from ..errors import RequestError, StructureError
from ..prompting import INSTRUCTIONS, instruct
from ..structure import encode, parse
from .errors import ApiError, invalid
from .settings import Instruction, Settings
from .wire import AssistantMessage, ChatRequest, CompletionRequest, Content, Extension, Message, Sampling

if TYPE_CHECKING:
    from ..llm import LLM

_GREEDY_BELOW = 1e-6  # the engine divides by the temperature
_SEED_MASK = (1 << 64) - 1
_EXTENDED = {
    name: "reserved_tokens" if name == "tail_tokens" else name
    for name in Extension.model_fields
    if name not in ("branches", "mode")
}
"""Fields of the request's `multiverse` object, and the names of the sampling parameters that they set."""


def refuse(error: RequestError, param: str | None = None) -> ApiError:
    """What the engine refuses, as a 400; its message begins with the parameter's name where there is one."""
    text = str(error)
    named = re.match(r"(\w+)(?:=| names )", text)
    if named and named[1] in _EXTENDED:
        param = f"multiverse.{named[1]}"
    elif named and named[1] != "max_seconds":  # which is the server's
        param = named[1]
    code = "context_length_exceeded" if "shorten the prompt" in text or "KV memory" in text else None
    return invalid(text, param, code)


def sampling(request: Sampling, settings: Settings, *, most_room: int) -> SamplingParams:
    """A request's sampling parameters, for one sample.

    Args:
        most_room: tokens that the memory has for a generation, beside the prompt.

    Raises:
        ApiError: 400, naming the parameter.
    """
    given: dict[str, Any] = {
        "max_tokens": _max_tokens(request, settings, most_room),
        "logit_bias": {int(token): bias for token, bias in (request.logit_bias or {}).items()},
        "stop": tuple([request.stop] if isinstance(request.stop, str) else request.stop or ()),
        "ignore_eos": bool(request.ignore_eos),
        "max_seconds": settings.request_timeout,
    }
    for name in ("top_p", "min_p", "repetition_penalty"):
        if getattr(request, name) is not None:
            given[name] = getattr(request, name)
    if request.temperature is not None:
        given["temperature"] = request.temperature if request.temperature >= _GREEDY_BELOW else 0.0
    if request.top_k is not None:
        given["top_k"] = max(0, request.top_k)
    if request.seed is not None:
        given["seed"] = request.seed & _SEED_MASK
    given |= _extended(request.multiverse)
    given |= _logprobs(request)
    if isinstance(request, ChatRequest) and request.reasoning_effort is not None:
        given["thinking_budget"] = _effort(request, request.reasoning_effort, settings)
    try:
        return SamplingParams(**given)
    except RequestError as error:
        raise refuse(error) from None


def _max_tokens(request: Sampling, settings: Settings, most_room: int) -> int:
    asked, param = request.max_tokens, "max_tokens"
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        if asked is not None and asked != request.max_completion_tokens:
            raise invalid(
                f"max_tokens={asked} and max_completion_tokens={request.max_completion_tokens} are two names of one thing: "
                "give one of them",
                "max_tokens",
            )
        asked, param = request.max_completion_tokens, "max_completion_tokens"
    if asked is None:
        return max(1, min(settings.default_max_tokens, most_room))
    if settings.max_tokens_limit is not None and asked > settings.max_tokens_limit:
        raise invalid(f"{param}={asked} is more than this server gives: ask for {settings.max_tokens_limit} at most", param)
    if asked > most_room:
        raise invalid(
            f"{param}={asked} does not fit into the memory for keys and values beside the prompt: ask for {most_room} at most",
            param,
            "context_length_exceeded",
        )
    return asked


def _extended(extension: Extension | None) -> dict[str, Any]:
    if extension is None:
        return {}
    given = {ours: value for name, ours in _EXTENDED.items() if (value := getattr(extension, name)) is not None}
    if extension.mode == "sequential":
        given.setdefault("max_depth", 0)
    return given


def _logprobs(request: Sampling) -> dict[str, Any]:
    if isinstance(request, ChatRequest):
        if request.top_logprobs and not request.logprobs:
            raise invalid(f"top_logprobs={request.top_logprobs} needs logprobs: true", "top_logprobs")
        return {"logprobs": bool(request.logprobs), "top_logprobs": request.top_logprobs or 0}
    assert isinstance(request, CompletionRequest)
    return {"logprobs": request.logprobs is not None, "top_logprobs": request.logprobs or 0}


def _effort(request: Sampling, effort: str, settings: Settings) -> int | None:
    budgets = settings.reasoning_budgets
    if effort not in budgets:
        raise invalid(f"reasoning_effort={effort!r} is not known: use one of {', '.join(budgets)}", "reasoning_effort")
    if request.multiverse is not None and request.multiverse.thinking_budget is not None:
        raise invalid(
            "reasoning_effort and multiverse.thinking_budget both set the thinking budget: give one of them", "reasoning_effort"
        )
    return budgets[effort]


def check_model(name: str | None, served: str) -> None:
    """Raise 404 unless this is the model that is served."""
    if name is not None and name != served:
        raise ApiError(
            404,
            f"the model {name!r} does not exist here: ask for {served!r}",
            "not_found_error",
            "model",
            "model_not_found",
        )


def check_length(prompt: Sequence[int], settings: Settings, param: str) -> None:
    """Raise 400 if the prompt is longer than the server reads."""
    limit = settings.max_prompt_tokens
    if limit is not None and len(prompt) > limit:
        raise invalid(
            f"the prompt has {len(prompt)} tokens, and this server reads at most {limit}: shorten it",
            param,
            "context_length_exceeded",
        )


def mode_of(asked: Instruction | None, llm: LLM, settings: Settings) -> Instruction:
    """Which instruction ends the user's messages; a model that cannot fork gets none unless it is asked for."""
    if asked is not None:
        return asked
    return settings.mode if llm.engine.tokens is not None else "as-is"


def chat_prompt(llm: LLM, messages: Sequence[Message], mode: Instruction) -> list[int]:
    """A chat as token ids, through the model's template.

    The reasoning of earlier answers is put back in front of them, and tokenised as it was written: what the engine wrote
    (labels, separators) apart from what the model wrote. So it is the same chain of tokens as then, and the prefix cache
    knows it.

    Raises:
        ApiError: 400, naming the message that is at fault.
    """
    if getattr(llm.tokenizer, "chat_template", None) is None:
        raise invalid(f"the model {llm.model_path!r} has no chat template: use /v1/completions", "messages")
    thoughts: list[tuple[str, list[int]]] = []
    plain = [_plain(llm, message, number, mode, thoughts) for number, message in enumerate(messages)]
    try:
        text = llm.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template says no by raising whatever it likes
        raise invalid(f"the model's chat template refuses these messages: {error}", "messages") from None
    ids: list[int] = []
    for thought, thought_ids in thoughts:
        before, found, after = text.partition(thought)
        if not found:  # some templates leave out the thinking of earlier turns
            continue
        ids += [*_encode(llm, before), *thought_ids]
        text = after
    return ids + _encode(llm, text)


def _encode(llm: LLM, text: str) -> list[int]:
    return list(llm.tokenizer.encode(text, add_special_tokens=False)) if text else []


def _plain(
    llm: LLM, message: Message, number: int, mode: Instruction, thoughts: list[tuple[str, list[int]]]
) -> Mapping[str, str]:
    content = _text(message.content)
    if isinstance(message, AssistantMessage):
        return {"role": "assistant", "content": _answer(llm, message, content, number, thoughts)}
    if not content.strip():
        raise invalid(f"the {message.role} message is empty: write something", f"messages.{number}.content")
    role = "system" if message.role == "developer" else message.role
    plain = {"role": role, "content": content}
    # Earlier questions had it too when they were answered. Whoever writes an instruction is not given a second.
    if role == "user" and mode != "as-is" and not content.rstrip().endswith(tuple(INSTRUCTIONS.values())):
        (plain,) = instruct([plain], mode)
    return plain


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _answer(llm: LLM, message: AssistantMessage, content: str, number: int, thoughts: list[tuple[str, list[int]]]) -> str:
    """An earlier answer as it was written."""
    reasoning, param = message.reasoning, f"messages.{number}.reasoning"
    if reasoning is None:
        reasoning, param = message.reasoning_content, f"messages.{number}.reasoning_content"
    elif message.reasoning_content not in (None, reasoning):
        raise invalid("reasoning and reasoning_content differ: give one of them", param)
    if reasoning is None:
        if not content.strip():
            raise invalid("the assistant message is empty: leave it out", f"messages.{number}.content")
        return content
    tokens = llm.engine.tokens
    think = tokens.dialect.think if tokens is not None else None
    if tokens is None or think is None:
        raise invalid("this model has no tags for its thinking: leave the reasoning out", param)
    sep = tokens.dialect.sep
    closing = think.close if not reasoning or reasoning.endswith(sep) else sep + think.close
    thought = f"{think.open}{sep}{reasoning}{closing}"
    try:
        document = parse(thought, tokens.dialect)
    except StructureError as error:
        raise invalid(
            f"the reasoning is not as this model writes it ({error.problem}, expected {error.expected}): "
            "send it as it came, or leave it out",
            param,
        ) from None
    thoughts.append((thought, list(encode(document, tokens).token_ids)))
    return f"{thought}{tokens.dialect.answer_sep}{content}" if content else thought
