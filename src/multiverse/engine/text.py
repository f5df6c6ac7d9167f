"""Token ids to text, one token at a time. Torch-free."""

from __future__ import annotations

from collections.abc import Callable


class TextStream:
    """Decodes a growing token sequence without ever cutting a character in two.

    A byte-level token may hold half a character; its text comes with the token that completes it. A few tokens of context are
    decoded along, since some tokenizers write a word differently at the start of a text.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0
        self._shown = 0
        self.text = ""
        self.pieces: list[str] = []
        """What each token added, in order."""

    def push(self, token: int) -> str:
        """Add a token; returns the text that it completes, possibly none."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._shown])
        after = self._decode(self._ids[self._context :])
        if after.endswith("�") or len(after) <= len(before):
            self.pieces.append("")
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        new = after[len(before) :]
        self.text += new
        self.pieces.append(new)
        return new
