"""Tokens that hold only a part of a character. Torch-free.

Byte-level tokenizers (GPT-2, Llama 3, Qwen) and those that fall back to bytes (Llama 2, Mistral) write rare characters as
several tokens. A text may be cut off, or closed by force, between two of them.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

EndsInside = Callable[[Sequence[int]], bool]
"""Whether the text of these tokens ends inside a character, which a further token may complete."""

_MOST = 4  # bytes of a character, and so tokens of one
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def ends_inside_of(tokenizer: Any) -> EndsInside | None:
    """The function for a Hugging Face tokenizer; `None` if it does not say how it writes bytes."""
    bytes_of = token_bytes(tokenizer)
    if bytes_of is None:
        return None

    def ends_inside(token_ids: Sequence[int]) -> bool:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(bytes_of(token) for token in token_ids[-_MOST:]))
        return bool(decoder.getstate()[0])

    return ends_inside


def count_unfinished(token_ids: Sequence[int], ends_inside: EndsInside) -> int:
    """Number of tokens at the end that hold no whole character: those whose text a `TextStream` still holds back."""
    end = len(token_ids)
    while end and ends_inside(token_ids[max(0, end - _MOST) : end]):
        end -= 1
    return len(token_ids) - end


def token_bytes(tokenizer: Any) -> Callable[[int], bytes] | None:
    """The function from a token to its bytes, for a Hugging Face tokenizer; `None` if it does not say how it writes bytes."""
    decoder = str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    if "ByteLevel" in decoder:
        alphabet = _byte_alphabet()

        def byte_level(token: int) -> bytes:
            piece = tokenizer.convert_ids_to_tokens(token) or ""
            if token in added or any(character not in alphabet for character in piece):
                return str(piece).encode()
            return bytes(alphabet[character] for character in piece)

        return lru_cache(maxsize=4096)(byte_level)
    # Those of the sentencepiece library have no decoder that could be read, but the same pieces.
    if "ByteFallback" in decoder or (
        not hasattr(tokenizer, "backend_tokenizer") and "<0x41>" in getattr(tokenizer, "get_vocab", dict)()
    ):

        def fallback(token: int) -> bytes:
            piece = tokenizer.convert_ids_to_tokens(token) or ""
            found = _BYTE.fullmatch(piece)
            return bytes.fromhex(found[1]) if found else str(piece).encode()

        return lru_cache(maxsize=4096)(fallback)
    return None


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: printable ones for themselves (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}
