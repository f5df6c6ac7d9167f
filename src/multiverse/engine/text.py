"""Token ids to text, one token at a time, with a watch for stop strings. Torch-free."""

from __future__ import annotations

from collections.abc import Callable


class TextStream:
    """Decodes the growing token sequence of one branch without ever cutting a character in two.

    A byte-level token may hold half a character; its text comes with the token that completes it. A few tokens of context are
    decoded along, since some tokenizers write a word differently at the start of a text.

    Args:
        decode: token ids to text.
        stops: stop strings.

    Attributes:
        pieces: text that each token added, in order.
        length: characters so far.
        held: how many of the newest tokens hold characters that may be the beginning of a stop string.
        stop_at: characters before the first stop string; `None` as long as there is none.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: tuple[str, ...] = ()) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0
        self._shown = 0
        self._stops = stops
        self._overlap = max(map(len, stops), default=1) - 1  # the most characters that a stop string may have begun with
        self._end = ""  # the last characters of the text, `_overlap` at most
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
        """Characters at the end of the text that are not part of the result: a stop string and what follows it."""
        return self.length - self.stop_at if self.stop_at is not None else 0

    def push(self, token: int) -> str:
        """Add a token; returns the text that it completes, possibly none."""
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
        """Add an end-of-text token, which has no text: it is held back if what precedes it is."""
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
    """How many characters at the end of a text may be the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
