"""One answer as it comes, and what is told of it in OpenAI's terms: text, log-probabilities, finish reason, usage."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..engine.events import Event, FinishEvent, TokenEvent
from ..engine.generation import Generation
from .errors import ApiError, server_error
from .parts import Parts, Piece

LOWEST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON cannot hold; the same as OpenAI's."""

_FINISH = {"stop": "stop", "length": "length", "budget": "length", "deadline": "length"}

Names = Callable[[int], str]
"""Text of a token by itself."""


class Answer:
    """One choice of a request.

    Attributes:
        index: number of the choice.
        pieces: what has been given out; kept by whoever sends the answer whole.
        length: characters that have been given out.
        generation: the result, once it is there.
    """

    def __init__(self, index: int, parts: Parts) -> None:
        self.index = index
        self.parts = parts
        self.pieces: list[Piece] = []
        self.length = 0
        self.generation: Generation | None = None

    def feed(self, event: Event) -> list[Piece]:
        """Take in what has happened; returns what can now be given out."""
        pieces = self.parts.feed(event)
        self.length += sum(len(piece.text) for piece in pieces)
        if isinstance(event, FinishEvent):
            self.generation = event.generation
        return pieces

    def check(self) -> None:
        """Raise `ApiError` if the generation is over, and not in a way that makes an answer."""
        if self.generation is not None and (error := failure(self.generation)) is not None:
            raise error

    @property
    def finish_reason(self) -> str:
        """Why it ended, as OpenAI calls it."""
        assert self.generation is not None
        return _FINISH[self.generation.finish_reason]

    def extension(self) -> dict[str, Any]:
        """What only this server tells of a choice."""
        generation = self.generation
        assert generation is not None
        usage = generation.usage
        return {
            "finish_reason": generation.finish_reason,
            "answer": generation.answer,
            "total_tokens": usage.total_tokens,
            "critical_path_tokens": usage.critical_path_tokens,
            "parallelism": usage.parallelism,
            "forks": self.parts.forks,
            "seconds": usage.seconds,
            "closed": [{"branch": label, "reason": reason} for label, reason in generation.closed],
            "structure_error": generation.structure_error,
        }


def failure(generation: Generation) -> ApiError | None:
    """The error to be told for a generation that is no answer; `None` if it is one."""
    match generation.finish_reason:
        case "malformed":
            # Only with guard=false, which was the client's wish.
            return ApiError(
                422,
                f"the model broke the grammar of its tags ({generation.structure_error}): leave multiverse.guard on",
                "invalid_request_error",
                "multiverse.guard",
                "malformed_generation",
            )
        case "abort":
            return server_error("the server is shutting down: ask again", 503, "shutting_down")
        case "error":
            return server_error(f"the generation failed: {generation.structure_error}", code="generation_failed")
        case _:
            return None


def usage(answers: Sequence[Answer], prompts: int = 1) -> dict[str, Any]:
    """What a request took.

    Several answers to one prompt read it once. They are not the branches of one thought, so what they share in time does not
    count as parallelism: it is all tokens over all critical paths.

    Args:
        answers: finished ones, in order; as many for each prompt.
        prompts: how many prompts there were.
    """
    done = [answer.generation.usage for answer in answers if answer.generation is not None]
    firsts = done[:: len(done) // prompts]
    prompt, total = sum(own.prompt_tokens for own in firsts), sum(own.total_tokens for own in done)
    critical = sum(own.critical_path_tokens for own in done)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": total,
        "total_tokens": prompt + total,
        "prompt_tokens_details": {"cached_tokens": sum(own.cached_tokens for own in firsts)},
        "completion_tokens_details": {"reasoning_tokens": sum(answer.parts.reasoning_tokens for answer in answers)},
        "multiverse": {
            "critical_path_tokens": critical,
            "parallelism": total / critical if critical else 1.0,
            "forks": sum(answer.parts.forks for answer in answers),
            "seconds": max(own.seconds for own in done),
        },
    }


def chat_logprobs(pieces: Sequence[Piece], name: Names) -> dict[str, Any]:
    """Log-probabilities of these pieces' tokens: those of the content, and, as no other server has them, of the reasoning."""
    sections: dict[str, list[dict[str, Any]]] = {"content": [], "reasoning": []}
    for piece in pieces:
        if piece.token is not None:
            sections[piece.section].append(_logprob(piece.token, name))
    return {"content": sections["content"], "refusal": None, "reasoning": sections["reasoning"]}


def _logprob(token: TokenEvent, name: Names) -> dict[str, Any]:
    entry = {
        **_named(token.token_id, token.logprob if token.logprob is not None else 0.0, name),
        "top_logprobs": [_named(token_id, value, name) for token_id, value in token.top or ()],
    }
    if token.forced:  # the engine wrote it: there was nothing to choose
        entry["forced"] = True
    return entry


def _named(token_id: int, logprob: float, name: Names) -> dict[str, Any]:
    text = name(token_id)
    whole = "\ufffd" not in text  # else it is a part of a character, which has no text of its own
    return {"token": text, "logprob": max(LOWEST, logprob), "bytes": list(text.encode()) if whole else None}


def text_logprobs(pieces: Sequence[Piece], offset: int, name: Names) -> dict[str, Any]:
    """Log-probabilities in the form of text completions; `None` where the engine wrote the token.

    Args:
        offset: length of the text before these pieces.
    """
    tokens, values, tops, offsets = [], [], [], []
    for piece in pieces:
        if piece.token is not None:
            tokens.append(piece.text)
            values.append(max(LOWEST, piece.token.logprob) if piece.token.logprob is not None else None)
            top = piece.token.top
            tops.append({_unlike(token_id, name): max(LOWEST, value) for token_id, value in top} if top is not None else None)
            offsets.append(offset)
        offset += len(piece.text)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _unlike(token_id: int, name: Names) -> str:
    """A token's text; parts of characters, which look all the same, go by their number."""
    text = name(token_id)
    return f"token_id:{token_id}" if "\ufffd" in text else text


def header(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """What every answer and every chunk of it begins with."""
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}
