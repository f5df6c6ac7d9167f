"""Answers of ``/v1/completions`` as they come: vLLM's, SGLang's, llama.cpp's and OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Top = tuple[tuple[int, float], ...]


class Piece(NamedTuple):
    """A token of an answer, or a text where the server gives no ids.

    Attributes:
        token_id: `None` if the server does not say.
        top: the likeliest tokens with their log-probabilities, likeliest first; ids are `None` as above, texts stand for them.
    """

    text: str
    token_id: int | None = None
    logprob: float | None = None
    top: tuple[tuple[int | str, float], ...] | None = None


class Chunk(NamedTuple):
    """What came at once.

    Attributes:
        finish: ``stop``, ``length`` or another reason with which the server ended; `None` while it goes on.
        prompt_tokens, cached_tokens: of the whole prompt, and how many of them were in the server's cache; `None` unless said.
        prompt_ids: the prompt as the server reads it; `None` unless said.
        stop: the stop token with which it ended; `None` if it did not end so, or does not say.
    """

    pieces: tuple[Piece, ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_ids: tuple[int, ...] | None = None
    stop: int | None = None


def read_chunk(value: Mapping[str, Any], *, by_ids: bool = True) -> Chunk:
    """A chunk of a stream, or a whole answer, from its JSON.

    Args:
        by_ids: take token ids, where there are any; else the text.

    Raises:
        ValueError: it is no completion.
    """
    try:
        usage = value.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        counts = (usage.get("prompt_tokens"), details.get("cached_tokens"))
        choices = value.get("choices") or []
        if not choices:
            return Chunk((), None, *counts)
        choice = choices[0]
        text = choice.get("text")
        if text is None:
            text = ""
        if not isinstance(text, str):
            raise TypeError("the text is no string")
        verbose = value.get("__verbose") or {}
        ids = choice.get("token_ids")
        if ids is None:
            ids = verbose.get("tokens")
        ids = ids if by_ids else None
        pieces = _pieces(text, ids, choice.get("logprobs"))
        prompt_ids = choice.get("prompt_token_ids")
        stop = choice.get("stop_reason", choice.get("matched_stop"))
        return Chunk(
            pieces,
            choice.get("finish_reason"),
            *counts,
            tuple(prompt_ids) if prompt_ids is not None else None,
            stop if isinstance(stop, int) else None,
        )
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"no completion: {str(value)[:80]} ({error})") from None


def _pieces(text: str, ids: Sequence[int] | None, logprobs: Mapping[str, Any] | None) -> tuple[Piece, ...]:
    scores = _scores(logprobs)
    if ids is not None:
        if any(type(token) is not int for token in ids):
            raise TypeError("a token id is no whole number")
        padded = [*scores, *[_NO_SCORE] * (len(ids) - len(scores))]
        # The text of a chunk is that of all its tokens; what each adds is found by decoding.
        return tuple(Piece("", token, logprob, top) for token, (_, logprob, top) in zip(ids, padded, strict=False))
    if scores and "".join(written for written, _, _ in scores) == text:
        return tuple(Piece(written, None, logprob, top) for written, logprob, top in scores if written)
    return (Piece(text, None, *scores[0][1:]) if len(scores) == 1 else Piece(text),) if text else ()


_Score = tuple[str, float | None, tuple[tuple[int | str, float], ...] | None]
_NO_SCORE: _Score = ("", None, None)


def _scores(logprobs: Mapping[str, Any] | None) -> list[_Score]:
    """Text, log-probability and likeliest tokens of each token, in any of the shapes."""
    if not logprobs:
        return []
    if (content := logprobs.get("content")) is not None:  # as chat completions have it, and llama.cpp here
        return [(str(one.get("token", "")), one.get("logprob"), _ranked(one.get("top_logprobs"))) for one in content]
    written = logprobs.get("tokens") or []
    values = logprobs.get("token_logprobs") or [None] * len(written)
    tops = logprobs.get("top_logprobs") or [None] * len(written)
    return [(str(token), value, _ranked(top)) for token, value, top in zip(written, values, tops, strict=False)]


def _ranked(top: Any) -> tuple[tuple[int | str, float], ...] | None:
    if not top:
        return None
    if isinstance(top, Mapping):
        pairs = [(_named(token), float(value)) for token, value in top.items()]
    else:
        pairs = [(one["id"] if "id" in one else _named(one["token"]), float(one["logprob"])) for one in top]
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _named(token: str) -> int | str:
    """A token that goes by its id, as ``token_id:7``, or else by its text."""
    number = token.removeprefix("token_id:")
    return int(number) if number != token and number.isdigit() else token
