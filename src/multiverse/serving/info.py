"""What the server tells of its model, and its tokenizer for others to use."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..structure import DIALECTS
from .errors import ApiError, invalid
from .translate import chat_prompt, check_model, mode_of
from .wire import DetokenizeRequest, TokenizeRequest

if TYPE_CHECKING:
    from .runner import Runner


def model(runner: Runner) -> dict[str, Any]:
    """The one model, as `/v1/models` tells it."""
    tokens = runner.llm.engine.tokens
    return {
        "id": runner.model_name,
        "object": "model",
        "created": runner.stats()["started_at"],
        "owned_by": "multiverse",
        "root": str(runner.llm.model_path),
        "max_model_len": runner.llm.engine.loaded.max_positions,
        "dialect": tokens.dialect.name if tokens is not None else None,
    }


def model_info(runner: Runner) -> dict[str, Any]:
    """More of it, the tags included."""
    engine = runner.llm.engine
    dialect = engine.tokens.dialect if engine.tokens is not None else None
    return {
        "model_path": str(runner.llm.model_path),
        "served_model_name": runner.model_name,
        "is_generation": True,
        "max_model_len": engine.loaded.max_positions,
        "vocab_size": engine.loaded.vocabulary,
        "has_chat_template": getattr(runner.llm.tokenizer, "chat_template", None) is not None,
        "dialect": asdict(dialect) if dialect is not None else None,
        "dialects": list(DIALECTS),
    }


async def tokenize(request: TokenizeRequest, runner: Runner) -> dict[str, Any]:
    """A text or a chat as token ids."""
    check_model(request.model, runner.model_name)
    llm = runner.llm
    if (request.prompt is None) == (request.messages is None):
        raise invalid("give either a prompt or messages", "prompt")
    if request.messages is not None:
        if request.add_special_tokens is not None:
            raise invalid("add_special_tokens is for a prompt: the chat template says how messages begin", "add_special_tokens")
        mode = mode_of(request.multiverse.mode if request.multiverse is not None else None, llm, runner.settings)
        tokens = await asyncio.to_thread(chat_prompt, llm, request.messages, mode)
    else:
        if request.multiverse is not None:
            raise invalid("multiverse is for messages: a prompt is tokenised as it is", "multiverse")
        special = request.add_special_tokens is not False
        tokens = await asyncio.to_thread(lambda: list(llm.tokenizer.encode(request.prompt, add_special_tokens=special)))
    told: dict[str, Any] = {"count": len(tokens), "max_model_len": llm.engine.loaded.max_positions, "tokens": tokens}
    if request.return_token_strs:
        told["token_strs"] = [llm.engine.decode([token]) for token in tokens]
    return told


async def detokenize(request: DetokenizeRequest, runner: Runner) -> dict[str, Any]:
    """Token ids as text, tags included."""
    check_model(request.model, runner.model_name)
    vocabulary = runner.llm.engine.loaded.vocabulary
    for index, token in enumerate(request.tokens):
        if token >= vocabulary:
            raise ApiError(
                400,
                f"{token} is no token id of this model: ids are whole numbers from 0 to {vocabulary - 1}",
                param=f"tokens.{index}",
            )
    return {"prompt": await asyncio.to_thread(runner.llm.engine.decode, request.tokens)}
