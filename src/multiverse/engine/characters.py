"""Tokens that hold only a part of a character. Torch-free.

Byte-level tokenizers (GPT-2, Llama 3, Qwen) and those that fall back to bytes (Llama 2, Mistral) write rare characters as
several tokens. A text may be cut off, or closed by force, between two of them.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from .token_bytes import TokenBytes

EndsInside = Callable[[Sequence[int]], bool]
"""Whether the text of these tokens ends inside a character, which a further token may complete."""

_MOST = 4  # bytes of a character, and so tokens of one


def ends_inside_of(tokenizer: Any) -> EndsInside | None:
    """The function for a Hugging Face tokenizer; `None` if it does not say how it writes bytes."""
    token_bytes = TokenBytes(tokenizer)
    if not token_bytes.known:
        return None

    def ends_inside(token_ids: Sequence[int]) -> bool:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(token_bytes.of(token) for token in token_ids[-_MOST:]))
        return bool(decoder.getstate()[0])

    return ends_inside


def count_unfinished(token_ids: Sequence[int], ends_inside: EndsInside) -> int:
    """Number of tokens at the end that hold no whole character: those whose text a `TextStream` still holds back."""
    end = len(token_ids)
    while end and ends_inside(token_ids[max(0, end - _MOST) : end]):
        end -= 1
    return len(token_ids) - end
