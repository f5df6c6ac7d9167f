"""Incremental detokenization of one branch, with detection of stop strings. Torch-free."""

from __future__ import annotations

from collections.abc import Callable


class TextStream:
    """Decodes the tokens of one branch as they arrive, without splitting a character.

    A byte-level token may hold part of a character; its text is added with the token that completes it. The preceding tokens
    are decoded too, since some tokenizers decode a word differently at the start of a text.

    Args:
        decode: token ids to text.
        stops: stop strings.

    Attributes:
        pieces: text added by each token, in order.
        length: characters so far.
        held: number of newest tokens that may belong to a stop string.
        stop_at: number of characters before the first stop string; `None` if there is none so far.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: tuple[str, ...] = ()) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0
        self._shown = 0
        self._stops = stops
        self._overlap = max(map(len, stops), default=1) - 1  # most characters of an incomplete stop string
        self._end = ""  # the last `_overlap` characters of the text
        self.pieces: list[str] = []
        self.length = 0
        self.held = 0
        self.stop_at: int | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def excess(self) -> int:
        """Number of characters at the end of the text, from the first stop string on, that are not part of the result."""
        return self.length - self.stop_at if self.stop_at is not None else 0

    def push(self, token: int) -> str:
        """Add a token; returns the text that it completes, possibly empty."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._shown])
        after = self._decode(self._ids[self._context :])
        new = ""
        if len(after) > len(before) and not after.endswith("�"):
            self._context, self._shown = self._shown, len(self._ids)
            new = after[len(before) :]
        self.pieces.append(new)
        self.length += len(new)
        if self._stops:
            self._watch(new)
        return new

    def push_end(self) -> None:
        """Add an end-of-text token, which has no text; it is held if the token before it is."""
        self.held += self.held > 0

    def _watch(self, new: str) -> None:
        recent = self._end + new
        self._end = recent[-self._overlap :] if self._overlap else ""
        found = [at for at in map(recent.find, self._stops) if at >= 0]
        if found and self.stop_at is None:
            self.stop_at = self.length - len(recent) + min(found)
        if self.stop_at is not None:
            self.held += 1
            return
        count = max(_overlap(self._end, stop) for stop in self._stops)
        self.held = characters = 0
        while characters < count:
            self.held += 1
            characters += len(self.pieces[-self.held])


def _overlap(text: str, stop: str) -> int:
    """Number of characters at the end of a text that may be the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
