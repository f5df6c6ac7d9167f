"""Log-probabilities as JSON: in the form of chat completions, of text completions, and of vLLM's `prompt_logprobs`.

All are under the model's own distribution, before temperature, penalties, biases, cuts and the guard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..engine.branch import TokenScore
from ..engine.events import TokenEvent
from .choice import Piece

LOWEST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON cannot hold; the same as OpenAI's."""


class TokenNames:
    """How tokens are called.

    Args:
        bytes_of: the bytes of a token (see `TokenBytes`).
        as_ids: call a token ``token_id:5`` (`return_tokens_as_token_ids`).
    """

    def __init__(self, bytes_of: Callable[[int], bytes], *, as_ids: bool = False) -> None:
        self.bytes_of, self.as_ids = bytes_of, as_ids

    def text(self, token_id: int, part: str = "") -> str:
        r"""A token's name: its text, or the bytes of a part of a character as ``\xe4\xbd``, behind `part`."""
        if self.as_ids:
            return f"token_id:{token_id}"
        raw = self.bytes_of(token_id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return part + "".join(f"\\x{byte:02x}" for byte in raw)

    def old(self, token_id: int) -> str:
        """A token's name in text completions, where OpenAI marks parts of characters."""
        return self.text(token_id, "bytes:")

    def entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        """A token of a chat completion."""
        return {"token": self.text(token_id), "logprob": finite(logprob), "bytes": list(self.bytes_of(token_id))}


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(LOWEST, logprob)


def chat_logprobs(pieces: Sequence[Piece], names: TokenNames) -> dict[str, Any]:
    """Log-probabilities of these pieces' tokens: those of the content, and, as no other server has them, of the reasoning."""
    sections: dict[str, list[dict[str, Any]]] = {"content": [], "reasoning": []}
    for piece in pieces:
        if piece.token is not None:
            sections[piece.section].append(_logprob(piece.token, names))
    return {"content": sections["content"], "refusal": None, "reasoning": sections["reasoning"]}


def _logprob(token: TokenEvent, names: TokenNames) -> dict[str, Any]:
    entry = {
        **names.entry(token.token_id, token.logprob if token.logprob is not None else 0.0),
        "top_logprobs": [names.entry(token_id, value) for token_id, value in token.top or ()],
    }
    if token.forced:  # the engine wrote it: there was nothing to choose
        entry["forced"] = True
    return entry


class TextLogprobs:
    """Log-probabilities in the form of text completions; `None` where the engine wrote the token, and for a prompt's first.

    Args:
        names: how tokens are called.
        count: number of likeliest tokens; the token itself is added where it is none of them.
    """

    def __init__(self, names: TokenNames, count: int) -> None:
        self._names, self._count = names, count
        self._columns: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}

    def add(
        self, token_id: int, logprob: float | None, top: Sequence[tuple[int, float]] | None, offset: int, *, end: bool = False
    ) -> None:
        """The next token, which begins so many characters after the beginning of the text, or ends it and has none itself."""
        columns, value = self._columns, None if logprob is None else finite(logprob)
        columns["tokens"].append("" if end and not self._names.as_ids else self._names.old(token_id))
        columns["token_logprobs"].append(value)
        columns["text_offset"].append(offset)
        if value is None:
            columns["top_logprobs"].append(None)
            return
        likeliest: dict[str, float] = {}
        for other, one in [*(top or ())[: self._count], (token_id, value)]:
            likeliest.setdefault(self._names.old(other), finite(one))  # of two tokens with one text, the likelier
        columns["top_logprobs"].append(likeliest)

    def add_pieces(self, pieces: Sequence[Piece], offset: int) -> TextLogprobs:
        """The next tokens, of which the first begins there."""
        for piece in pieces:
            if piece.token is not None:
                end = piece.token.end_of_text and not piece.text
                self.add(piece.token.token_id, piece.token.logprob, piece.token.top, offset, end=end)
            offset += len(piece.text)
        return self

    def to_json(self) -> dict[str, Any]:
        """OpenAI's object."""
        return self._columns


def prompt_logprobs(
    token_ids: Sequence[int], scores: Sequence[TokenScore | None], names: TokenNames
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each token, itself and the likeliest ones by id; `None` where there is no score."""
    answer: list[dict[str, Any] | None] = []
    for token_id, score in zip(token_ids, scores, strict=True):
        if score is None:
            answer.append(None)
            continue
        entries = [(token_id, score.logprob, score.rank)]
        entries += [(other, value, rank) for rank, (other, value) in enumerate(score.top, 1) if other != token_id]
        answer.append(
            {
                str(other): {"logprob": finite(value), "rank": rank, "decoded_token": names.text(other)}
                for other, value, rank in entries
            }
        )
    return answer


def text_offsets(token_ids: Sequence[int], text: str, names: TokenNames) -> list[int]:
    """Where in a text each of its tokens begins, in characters; 0 for those in front of it, as a tokenizer adds them."""
    starts, characters = [], 0
    for token_id in token_ids:
        raw = names.bytes_of(token_id)
        inside = bool(raw) and raw[0] & 0xC0 == 0x80  # it goes on with a character that an earlier token has begun
        starts.append(characters - inside)
        characters += sum(byte & 0xC0 != 0x80 for byte in raw)
    before = characters - len(text)
    return [max(0, start - before) for start in starts]
