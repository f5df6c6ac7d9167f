"""The bytes that each token of a tokenizer stands for, parts of characters included. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The bytes that a token adds to a text: put together, those of a text's tokens are the text in UTF-8.

    A token may hold a part of a character, which has bytes and no text. How a tokenizer writes bytes in its vocabulary is read
    from its decoder: as characters of the byte-level alphabet (GPT-2), as ``<0xE4>`` (byte fallback), with another character
    in the place of spaces (sentence-piece). For other decoders the bytes are those of the token's text.

    Args:
        tokenizer: a Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.of = lru_cache(maxsize=65536)(self._of)

    def _of(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return added.encode()
        if self.known:
            piece = self._tokenizer.convert_ids_to_tokens(token_id)
            if piece is None:  # vocabularies are padded with rows that stand for nothing
                return b""
            if "ByteLevel" in self._steps and all(character in _ALPHABET for character in piece):
                return bytes(_ALPHABET[character] for character in piece)
            if "ByteFallback" in self._steps and (byte := _BYTE.fullmatch(piece)):
                return bytes.fromhex(byte[1])
            for old, new in self._replaced:
                piece = piece.replace(old, new)
            return str(piece).encode()
        text: str = self._tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.encode()

    @cached_property
    def _added(self) -> Mapping[int, str]:
        """Texts of the tokens that were added to the vocabulary, which stand in it as they are."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return {token_id: str(token) for token_id, token in added.items()}

    @cached_property
    def _decoder(self) -> list[dict[str, Any]]:
        """Steps of the decoder, as the tokenizer's file has them."""
        decoder = getattr(getattr(self._tokenizer, "backend_tokenizer", None), "decoder", None)
        return list(_steps(json.loads(decoder.__getstate__()))) if decoder is not None else []

    @cached_property
    def _steps(self) -> frozenset[str]:
        return frozenset(step["type"] for step in self._decoder)

    @property
    def known(self) -> bool:
        """Whether the decoder does nothing but what this class knows."""
        return bool(self._steps) and self._steps <= {"ByteLevel", "ByteFallback", "Replace", "Metaspace", "Fuse", "Strip"}

    @cached_property
    def _replaced(self) -> list[tuple[str, str]]:
        """What the decoder replaces, and by what."""
        pairs = []
        for step in self._decoder:
            if step["type"] == "Metaspace":
                pairs.append((step["replacement"], " "))
            elif step["type"] == "Replace" and "String" in step["pattern"]:
                pairs.append((step["pattern"]["String"], step["content"]))
        return pairs


def _steps(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if decoder["type"] == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    else:
        yield decoder


def _alphabet() -> dict[str, int]:
    """The byte-level alphabet of GPT-2: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_ALPHABET = _alphabet()
