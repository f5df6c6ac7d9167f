"""What the server says of its model, and its tokenizer as a service."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..models.about import asked
from ..structure import DIALECTS
from .errors import ApiError, invalid
from .params import check_model
from .prompts import chat_prompt, left_out, mode_of
from .requests import DetokenizeRequest, FamiliarityRequest, TokenizeRequest

if TYPE_CHECKING:
    from .service import Service


def model(service: Service) -> dict[str, Any]:
    """The model, as in `/v1/models`."""
    tokens, family = service.llm.tokens, service.llm.family
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.started_at,
        "owned_by": "multiverse",
        "root": str(service.llm.model_path),
        "max_model_len": service.llm.max_positions,
        "dialect": tokens.dialect.name if tokens is not None else None,
        "about": asdict(service.llm.about) if service.llm.about is not None else None,
        "instructed": service.llm.instructed,
        "preset": family.name if family is not None else None,
        "instructions": dict(service.llm.prompting.instructions),
        "instruction_separator": service.llm.prompting.sep,
    }


async def familiarity(request: FamiliarityRequest, service: Service) -> dict[str, Any]:
    """How likely a question is under the model, and whether it is unlike those of its training."""
    check_model(request.model, service.model_name)
    about = service.llm.about
    if about is None or about.least_logprob is None:
        return {"logprob": None, "least_logprob": None, "unlike": False, "notice": None}
    own = await asyncio.to_thread(asked, service.llm.tokenizer, request.question)
    logprob = own.mean(await service.score(own.token_ids, "question"))
    unlike = about.is_unlike(logprob)
    return {
        "logprob": logprob,
        "least_logprob": about.least_logprob,
        "unlike": unlike,
        "notice": about.notice if unlike else None,
    }


def model_info(service: Service) -> dict[str, Any]:
    """More about the model, the tags included."""
    llm, family = service.llm, service.llm.family
    dialect = llm.tokens.dialect if llm.tokens is not None else None
    return {
        "model_path": str(llm.model_path),
        "served_model_name": service.model_name,
        "is_generation": True,
        "max_model_len": llm.max_positions,
        "vocab_size": llm.vocabulary,
        "deterministic": service.deterministic,
        "quantized": service.quantized,
        "has_chat_template": getattr(llm.tokenizer, "chat_template", None) is not None,
        "dialect": asdict(dialect) if dialect is not None else None,
        "dialects": list(DIALECTS),
        "preset": family.name if family is not None else None,
        "preset_reason": service.llm.recognised.why,
        "preset_sampling": dict(family.sampling) if family is not None else {},
    }


def tokenizer_info(service: Service) -> dict[str, Any]:
    """What clients that tokenise by `/tokenize` have to know besides, under vLLM's names."""
    tokenizer = service.llm.tokenizer
    special = {f"{name}_token": getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad", "unk")}
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "vocab_size": len(tokenizer),
        "model_max_length": service.llm.max_positions,
        "chat_template": getattr(tokenizer, "chat_template", None),
        **{name: str(token) if token is not None else None for name, token in special.items()},
    }


async def tokenize(request: TokenizeRequest, service: Service) -> dict[str, Any]:
    """A text or a chat as token ids."""
    check_model(request.model, service.model_name)
    service.check_token_ids(None)
    llm = service.llm
    warnings: list[str] = []
    if (request.prompt is None) == (request.messages is None):
        raise invalid("give either a prompt or messages", "prompt")
    if request.messages is not None:
        if request.add_special_tokens is not None:
            raise invalid("add_special_tokens is for a prompt: messages begin as the chat template says", "add_special_tokens")
        mode = mode_of(request.multiverse.mode if request.multiverse is not None else None, llm, service.config)
        chat = await asyncio.to_thread(chat_prompt, llm, request.messages, mode)
        tokens, warnings = chat.token_ids, left_out(chat)
    else:
        if request.multiverse is not None:
            raise invalid("multiverse is for messages: a prompt is tokenised as it is", "multiverse")
        special = request.add_special_tokens is not False
        tokens = await asyncio.to_thread(lambda: list(llm.tokenizer.encode(request.prompt, add_special_tokens=special)))
    answer: dict[str, Any] = {"count": len(tokens), "max_model_len": llm.max_positions, "tokens": tokens}
    if warnings:
        answer["warnings"] = warnings
    if request.return_token_strs:
        answer["token_strs"] = [llm.decode([token]) for token in tokens]
    return answer


async def detokenize(request: DetokenizeRequest, service: Service) -> dict[str, Any]:
    """Token ids as text, tags included."""
    check_model(request.model, service.model_name)
    service.check_token_ids(None)
    vocabulary = service.llm.vocabulary
    for index, token in enumerate(request.tokens):
        if token >= vocabulary:
            raise ApiError(
                400,
                f"{token} is no token id of this model: ids are whole numbers from 0 to {vocabulary - 1}",
                param=f"tokens.{index}",
            )
    return {"prompt": await asyncio.to_thread(service.llm.decode, request.tokens)}
