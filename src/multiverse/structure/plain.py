"""Text in which control tokens are only text, as token ids.

A tokenizer makes control tokens of any text that spells them: of a message that asks about a tag, too. Here the caller says
which are meant. All others become the tokens of ordinary text, exactly: everything is tokenised in one go by a copy of the
tokenizer in which control tokens go by names that nobody can write.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

_SALT = secrets.token_hex(8)


def mark(number: int) -> str:
    """A text that nobody else writes: private-use characters around a number that only this process knows."""
    return f"\ue000{_SALT}{number}\ue001"


MARK = re.compile(f"\ue000{_SALT}(?P<number>[0-9]+)\ue001")
"""Finds what `mark` writes."""
MARKED = re.compile(f"[\ue000\ue001]|{_SALT}")
"""Finds a part of a mark."""


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Special tokens of a tokenizer and their ids: nothing that a model writes within a text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {str(token.content): int(token_id) for token_id, token in added.items() if token.special and str(token.content)}


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Control tokens of a tokenizer and their ids: special ones, and what else was added to it that is no ordinary text.

    Ordinary are words and white space, which can be added to a vocabulary, too (Gemma's line ends, for example).
    """
    template = str(getattr(tokenizer, "chat_template", None) or "")
    found = special_tokens(tokenizer)
    for token_id, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        text = str(token.content)
        if text.strip(" \t\r\n▁") and (_MARKUP.fullmatch(text) or (not text.isalnum() and text in template)):
            found[text] = int(token_id)
    return found


_MARKUP = re.compile(r"<.+>|\[.+\]|\{.+\}|＜.+＞", re.DOTALL)


class PlainEncoder:
    """Encodes text beside the control tokens that are meant.

    Args:
        tokenizer: a Hugging Face tokenizer.
        control: its control tokens and their ids.

    Attributes:
        pattern: finds control tokens in a text, the longest first, as tokenizers do.
    """

    def __init__(self, tokenizer: Any, control: Mapping[str, int]) -> None:
        self._tokenizer, self.control = tokenizer, control
        self._ids = frozenset(control.values())
        self._names = {token_id: text for text, token_id in control.items()}
        self.pattern = pattern_of(control)

    def encode(self, parts: Sequence[str | int]) -> list[int]:
        """Token ids of texts and of the control tokens between them, without special tokens around them.

        Args:
            parts: texts, in which nothing is a control token; and the ids of those that are meant.
        """
        meant = [part for part in parts if isinstance(part, int)]
        whole = "".join(self._names[part] if isinstance(part, int) else part for part in parts)
        if not whole:
            return []
        ids = self._as_it_is(whole)
        if [token for token in ids if token in self._ids] == meant:
            return ids  # nothing in the texts reads like a control token
        if self._copy is None:
            return self._piece_by_piece(parts)
        copy, known = self._copy
        text = "".join(mark(part) if isinstance(part, int) else part for part in parts)
        ids = [known.get(token, token) for token in copy.encode(text, add_special_tokens=False).ids]
        return ids if [token for token in ids if token in self._ids] == meant else self._piece_by_piece(parts)

    @cached_property
    def _edges(self) -> tuple[frozenset[str], frozenset[str], int]:
        """Beginnings and ends of control tokens, and the length of the longest."""
        heads = frozenset(text[:size] for text in self.control for size in range(1, len(text)))
        tails = frozenset(text[size:] for text in self.control for size in range(1, len(text)))
        return heads, tails, max(map(len, self.control), default=1)

    def edges(self, text: str) -> tuple[int, int]:
        """Number of characters at both ends of a text that could be part of a control token, with what stands next to it."""
        heads, tails, longest = self._edges
        sizes = range(min(longest - 1, len(text)), 0, -1)
        first = next((size for size in sizes if text[:size] in tails), 0)
        last = next((size for size in sizes if text[-size:] in heads), 0)
        return (first, last) if first + last <= len(text) else (0, last)

    def _as_it_is(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _piece_by_piece(self, parts: Sequence[str | int]) -> list[int]:
        """Where the tokenizer cannot be copied, or reads the names of control tokens in a way of its own."""
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif self._copy is not None:
                ids += [self._copy[1].get(token, token) for token in self._copy[0].encode(part, add_special_tokens=False).ids]
            elif self.pattern.search(part):
                ids += self._tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)
            else:
                ids += self._as_it_is(part)
        return ids

    @cached_property
    def _copy(self) -> tuple[Any, dict[int, int]] | None:
        """The tokenizer with other names for its control tokens, and ids that differ in it; `None` if it cannot be copied."""
        core = getattr(self._tokenizer, "backend_tokenizer", None)
        if core is None:
            return None
        try:
            saved = json.loads(core.to_str())
        except Exception:  # parts that are written in Python cannot be saved
            return None
        names = {text: mark(token_id) for text, token_id in self.control.items()}
        before = {names.get(token["content"], token["content"]): token["id"] for token in saved["added_tokens"]}
        for token in saved["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        for text, token_id in self.control.items():
            if names[text] not in before:  # a token of the vocabulary itself
                saved["added_tokens"].append({**_ADDED, "id": token_id, "content": names[text]})
                before[names[text]] = token_id
        _rename(saved["model"], names)
        saved.update(post_processor=None, truncation=None, padding=None)
        copy = type(core).from_str(json.dumps(saved))
        return copy, {copy.token_to_id(text): token_id for text, token_id in before.items()}


def pattern_of(control: Iterable[str]) -> re.Pattern[str]:
    """Finds the longest of these texts at each place; nothing if there are none."""
    return re.compile("|".join(re.escape(text) for text in sorted(control, key=len, reverse=True)) or "(?!)")


_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give entries of a saved vocabulary other names, so that no text becomes them."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(text, text): token_id for text, token_id in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(text, text), *rest] for text, *rest in vocabulary]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    merges = model.get("merges")
    if merges:
        pairs = [(pair, tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair)) for pair in merges]
        model["merges"] = [pair for pair, (first, second) in pairs if not {first, second, first + second} & names.keys()]
