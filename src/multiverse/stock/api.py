"""What servers with OpenAI's completions API understand beyond it, and how they say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine.params import SamplingParams
from ..errors import RequestError

_OPENAI = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed")
_MORE = ("top_k", "min_p", "repetition_penalty", "ignore_eos")
_NEVER = {
    "prompt_logprobs": "score prompts with a model in this process",
    "share_every": "paths are requests of their own there, which see nothing of each other",
    "response_format": "leave it out, or ask for the form in the prompt",
}


@dataclass(frozen=True)
class Api:
    """A kind of server.

    Attributes:
        name: what people call it.
        fields: the sampling parameters that it has, with their names there.
        sent: further fields of every request: token ids in the answer, tags in its text.
        logprobs: most log-probabilities of a token.
        allowed: name of the field that lists the only tokens that may come; `None` without one.
        stops: whether it has ``stop_token_ids``.
        preserved: name of the field that lists texts of tokens that are to be written out; `None` without one.
        biases_text: whether a bias may be given for the text of a token.
        all_tokens: value of ``top_k`` that keeps all tokens.
    """

    name: str
    fields: Mapping[str, str]
    sent: Mapping[str, Any] = field(default_factory=dict)
    logprobs: int = 5
    allowed: str | None = None
    stops: bool = False
    preserved: str | None = None
    biases_text: bool = False
    all_tokens: int = 0

    def sampling(self, params: SamplingParams, *, path: bool) -> dict[str, Any]:
        """The fields of a request for these parameters, in paths or in the trunk; seed and biases are those of one request."""
        sent = {there: getattr(params, name) for name, there in self.fields.items() if name not in ("seed", "logit_bias")}
        if "repetition_penalty" in self.fields:
            sent[self.fields["repetition_penalty"]] = params.repetition_in(path=path)
        if "top_k" in self.fields and params.top_k == 0:
            sent[self.fields["top_k"]] = self.all_tokens
        if params.logprobs or params.top_logprobs:
            sent["logprobs"] = max(1, params.top_logprobs)
        return sent

    def check(self, params: SamplingParams) -> None:
        """Raise `RequestError` for a parameter that this kind of server cannot honour."""
        neutral = SamplingParams(top_p=1.0)
        for name, hint in _NEVER.items():
            if getattr(params, name) is not None:
                raise RequestError(f"{name} cannot be honoured by a server of another engine ({self.name}): {hint}")
        if params.supports or params.logprobs_mode != "raw_logprobs":
            name = "supports" if params.supports else "logprobs_mode"
            raise RequestError(
                f"{name}={getattr(params, name)!r} cannot be honoured by a server of another engine ({self.name}): "
                f"leave it out, or generate with a model in this process"
            )
        for name in (*_OPENAI, *_MORE):
            value = getattr(params, name)
            if name != "temperature" and name not in self.fields and value != getattr(neutral, name):
                raise RequestError(f"{name}={value!r} cannot be honoured by {self.name}: leave it out, or ask another server")
        if params.path_repetition_penalty not in (None, 1.0) and "repetition_penalty" not in self.fields:
            value = params.path_repetition_penalty
            raise RequestError(f"path_repetition_penalty={value!r} cannot be honoured by {self.name}: leave it out")
        if params.top_logprobs > self.logprobs:
            raise RequestError(
                f"top_logprobs={params.top_logprobs} cannot be honoured by {self.name}, which gives at most {self.logprobs}"
            )


def _fields(*names: str, **other: str) -> dict[str, str]:
    return {**{name: name for name in names}, **other}


_IDS = {"return_token_ids": True, "return_tokens_as_token_ids": True}
_SHOWN = {"skip_special_tokens": False, "spaces_between_special_tokens": False}

OPENAI = Api("a server of OpenAI's completions API", _fields(*_OPENAI))
"""A server that says nothing of itself: it gets what OpenAI's API has, and nothing else."""

APIS: dict[str, Api] = {
    "vllm": Api(
        "vLLM",
        _fields(*_OPENAI, *_MORE),
        {**_IDS, **_SHOWN, "include_stop_str_in_output": True},
        logprobs=20,
        allowed="allowed_token_ids",
        stops=True,
    ),
    "sglang": Api(
        "SGLang",
        _fields(*_OPENAI, *_MORE),
        {**_IDS, **_SHOWN, "no_stop_trim": True},
        logprobs=20,
        stops=True,
        all_tokens=-1,
    ),
    "llamacpp": Api(
        "llama.cpp's server",
        _fields(*_OPENAI, "top_k", "min_p", "ignore_eos", repetition_penalty="repeat_penalty"),
        {"verbose": True, "return_tokens": True, "cache_prompt": True, "repeat_last_n": 1 << 16},
        logprobs=100,
        preserved="preserved_tokens",
        biases_text=True,
    ),
}
"""Kinds of servers by what they call themselves (``owned_by`` in ``/v1/models``)."""
