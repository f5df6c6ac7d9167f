"""From a request's fields to `SamplingParams`, and the checks that chat and text completions share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..engine.params import SamplingParams
from ..engine.response_format import ResponseFormat
from ..errors import ExtraError, RequestError
from . import logs
from .config import ServerConfig
from .errors import ApiError, invalid
from .requests import EXTENDED, ChatRequest, CompletionRequest, Extension, Sampling, refused

if TYPE_CHECKING:
    from .service import Service

_GREEDY_BELOW = 1e-6  # the engine divides by the temperature
_SEED_MASK = (1 << 64) - 1


def check_request(request: Sampling, service: Service) -> None:
    """Check the model's name and the options of streams, and note for the log what was asked for.

    Raises:
        ApiError: 404, or 400 naming the parameter.
    """
    check_model(request.model, service.model_name)
    branches = request.multiverse is not None and request.multiverse.branches
    if not request.stream:
        if request.stream_options is not None:
            raise invalid("stream_options needs stream: true", "stream_options")
        if branches:
            raise invalid("multiverse.branches needs stream: true", "multiverse.branches")
    elif branches and (request.n or 1) > 1:
        raise invalid(f"n={request.n} cannot be combined with multiverse.branches: send a request for each", "n")
    for name in ("return_token_ids", "return_tokens_as_token_ids"):
        if getattr(request, name):
            service.check_token_ids(name)
    logs.note(stream=bool(request.stream))
    if request.user is not None:
        logs.note(user=request.user)


def check_model(name: str | None, served: str) -> None:
    """Raise 404 unless this is the model that is served."""
    if name is not None and name != served:
        raise ApiError(
            404, f"the model {name!r} does not exist here: ask for {served!r}", "not_found_error", "model", "model_not_found"
        )


def with_usage(request: Sampling) -> bool:
    """Whether a stream is to end with the usage."""
    return request.stream_options is not None and bool(request.stream_options.include_usage)


def priority_of(request: Sampling) -> int:
    """The engine's priority, of which the higher goes first; in requests, as in vLLM's, it is the lower."""
    return -(request.priority or 0)


async def read_response_format(request: ChatRequest | CompletionRequest, service: Service) -> ResponseFormat | None:
    """The form that a request's `response_format` wants its answers to have, compiled.

    That may take a second: it is done in a thread, so that the others go on.

    Raises:
        ApiError: 400, if it cannot be honoured.
    """
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    given: dict[str, Any] = {"type": wanted.type}
    if wanted.type == "json_schema":
        given["json_schema"] = {"schema": wanted.json_schema.schema_}

    def compiled() -> ResponseFormat | None:
        form = ResponseFormat.of(given)
        if form is not None:
            service.compile_format(form)
        return form

    try:
        return await asyncio.to_thread(compiled)
    except RequestError as error:
        raise refused(error, "response_format") from None
    except ExtraError as error:
        raise invalid(f"response_format cannot be honoured by this server: {error}", "response_format") from None


def sampling_params(
    request: Sampling, service: Service, prompts: Sequence[list[int]], param: str, form: ResponseFormat | None = None
) -> list[SamplingParams]:
    """A request's sampling parameters for each prompt, once it has been checked against them.

    Args:
        prompts: token ids of each.
        param: field of the request that the prompts come from, for errors.
        form: what the answers must look like (see `read_response_format`).

    Raises:
        ApiError: 400, naming the parameter.
    """
    if request.multiverse is not None and request.multiverse.branches and len(prompts) > 1:
        raise invalid(f"{len(prompts)} prompts cannot be combined with multiverse.branches: send a request for each", param)
    config = service.config
    names = [param] if len(prompts) == 1 else [f"{param}.{number}" for number in range(len(prompts))]
    each: list[SamplingParams] = []
    for prompt, name in zip(prompts, names, strict=True):
        if config.max_prompt_tokens is not None and len(prompt) > config.max_prompt_tokens:
            raise invalid(
                f"the prompt has {len(prompt)} tokens, and this server accepts at most {config.max_prompt_tokens}: shorten it",
                name,
                "context_length_exceeded",
            )
        params = _params(request, service, headroom=max(1, service.capacity - len(prompt)), form=form)
        try:
            service.llm.check(prompt, params)
        except RequestError as error:
            raise refused(error, name) from None
        each.append(params)
    return each


def _params(request: Sampling, service: Service, headroom: int, form: ResponseFormat | None = None) -> SamplingParams:
    """The parameters; `headroom` is the number of tokens that KV memory has for a generation, beside the prompt."""
    config = service.config
    given: dict[str, Any] = {
        "max_tokens": _max_tokens(request, service, headroom),
        "n": request.n or 1,
        "logit_bias": {int(token): bias for token, bias in (request.logit_bias or {}).items()},
        "stop": tuple([request.stop] if isinstance(request.stop, str) else request.stop or ()),
        "stop_token_ids": tuple(request.stop_token_ids or ()),
        "include_stop_str_in_output": bool(request.include_stop_str_in_output),
        "stop_in": "answer" if isinstance(request, ChatRequest) else "all",
        "ignore_eos": bool(request.ignore_eos),
        "max_seconds": config.request_timeout,
        "response_format": form,
    }
    for name in ("top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens"):
        if getattr(request, name) is not None:
            given[name] = getattr(request, name)
    if request.temperature is not None:
        given["temperature"] = request.temperature if request.temperature >= _GREEDY_BELOW else 0.0
    if request.top_k is not None:
        given["top_k"] = max(0, request.top_k)
    if request.seed is not None:
        given["seed"] = request.seed & _SEED_MASK
    given |= _extended(request.multiverse)
    given |= _logprobs(request, score_only=not given["max_tokens"])
    if isinstance(request, ChatRequest) and request.reasoning_effort is not None:
        given["thinking_budget"] = _effort(request, request.reasoning_effort, config)
    try:
        return service.llm.sampling(**given)
    except RequestError as error:
        raise refused(error) from None


def _max_tokens(request: Sampling, service: Service, headroom: int) -> int:
    config, given, param = service.config, request.max_tokens, "max_tokens"
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        if given is not None and given != request.max_completion_tokens:
            raise invalid(
                f"max_tokens={given} and max_completion_tokens={request.max_completion_tokens} are two names of one limit: "
                "give one of them",
                "max_tokens",
            )
        given, param = request.max_completion_tokens, "max_completion_tokens"
    if given is None:
        usual = config.default_max_tokens if config.default_max_tokens is not None else service.llm.sampling().max_tokens
        return max(1, min(usual, headroom, config.max_tokens_limit or usual))
    if config.max_tokens_limit is not None and given > config.max_tokens_limit:
        raise invalid(f"{param}={given} is more than this server allows: ask for {config.max_tokens_limit} at most", param)
    if given > headroom:
        raise invalid(
            f"{param}={given} does not fit into KV memory beside the prompt: ask for {headroom} at most",
            param,
            "context_length_exceeded",
        )
    return given


def _extended(extension: Extension | None) -> dict[str, Any]:
    if extension is None:
        return {}
    given = {name: value for name, field in EXTENDED.items() if (value := getattr(extension, field)) is not None}
    if extension.mode == "sequential":
        given.setdefault("max_depth", 0)
    return given


def _logprobs(request: Sampling, *, score_only: bool) -> dict[str, Any]:
    of_prompt = {"prompt_logprobs": request.prompt_logprobs}
    if isinstance(request, ChatRequest):
        if request.top_logprobs and not request.logprobs:
            raise invalid(f"top_logprobs={request.top_logprobs} needs logprobs: true", "top_logprobs")
        return {"logprobs": bool(request.logprobs), "top_logprobs": request.top_logprobs or 0, **of_prompt}
    assert isinstance(request, CompletionRequest)
    if score_only or (request.echo and request.logprobs is not None):
        of_prompt = {"prompt_logprobs": max(request.prompt_logprobs or 0, request.logprobs or 0)}
    return {"logprobs": request.logprobs is not None, "top_logprobs": request.logprobs or 0, **of_prompt}


def _effort(request: Sampling, effort: str, config: ServerConfig) -> int | None:
    budgets = config.reasoning_budgets
    if effort not in budgets:
        raise invalid(f"reasoning_effort={effort!r} is not known: use one of {', '.join(budgets)}", "reasoning_effort")
    if request.multiverse is not None and request.multiverse.thinking_budget is not None:
        raise invalid(
            "reasoning_effort and multiverse.thinking_budget both set the thinking budget: give one of them", "reasoning_effort"
        )
    return budgets[effort]
