"""Incremental detokenization of one branch, with detection of stop strings. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .characters import EndsInside


class TextStream:
    """Decodes the tokens of one branch as they arrive, without splitting a character.

    A byte-level token may hold part of a character; its text is added with the token that completes it. The preceding tokens
    are decoded too, since some tokenizers decode a word differently at the start of a text.

    Args:
        decode: token ids to text.
        stops: stop strings that count anywhere.
        answer_stops: stop strings that count in the answer only.
        include: the text ends behind a stop string, not before it.
        skip_blank: white space before the first word of the answer is no part of it.
        ends_inside: tells a part of a character at the end; without, every replacement character there stands for one.

    Attributes:
        pieces: text added by each token, in order.
        length: characters so far.
        held: number of newest tokens that may belong to a stop string.
        stop_at: number of characters before the first stop string, or with `include` up to its end; `None` if there is none so
            far.
        stopped_by: that stop string.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stops: tuple[str, ...] = (),
        ends_inside: EndsInside | None = None,
        *,
        answer_stops: tuple[str, ...] = (),
        include: bool = False,
        skip_blank: bool = False,
    ) -> None:
        self._decode, self._ends_inside = decode, ends_inside
        self._ids: list[int] = []
        self._context = 0
        self._shown = 0
        self._stops, self._answer_stops, self._include, self._blank = stops, answer_stops, include, skip_blank
        self._overlap = max(map(len, (*stops, *answer_stops)), default=1) - 1  # most characters of an incomplete stop string
        self._answer: int | None = None  # where the stretch of the answer begins that is being written
        self._end = ""  # the last `_overlap` characters of the text
        self.pieces: list[str] = []
        self.length = 0
        self.held = 0
        self.stop_at: int | None = None
        self.stopped_by: str | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def excess(self) -> int:
        """Number of characters at the end of the text, from the first stop string on, that are not part of the result."""
        return self.length - self.stop_at if self.stop_at is not None else 0

    def push(self, token: int, *, answer: bool = True, watched: bool = True) -> str:
        """Add a token; returns the text that it completes, possibly empty.

        Args:
            answer: whether it is text of the answer.
            watched: whether stop strings count yet.
        """
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._shown])
        after = self._decode(self._ids[self._context :])
        new = ""
        if len(after) > len(before) and not (after.endswith("�") and self._is_unfinished()):
            self._context, self._shown = self._shown, len(self._ids)
            new = after[len(before) :]
        self.pieces.append(new)
        self.length += len(new)
        if not watched:
            self._end, self._answer = "", None
        elif self._stops or self._answer_stops:
            self._watch(new, answer=answer)
        return new

    def stop(self) -> None:
        """End the text with the newest token, or before it."""
        self.held = max(1, self.held)
        self.stop_at = self.length - (0 if self._include else len(self.pieces[-1]))

    def _is_unfinished(self) -> bool:
        """Whether the text ends inside a character, and not with a replacement character that was written as one."""
        return self._ends_inside is None or self._ends_inside(self._ids[self._context :])

    def drop_unfinished(self) -> None:
        """Other text follows: what is held back of a character is not going to be completed, and has no text."""
        del self._ids[self._shown :]

    def push_end(self) -> None:
        """Add an end-of-text token, which has no text; it is held if the token before it is."""
        self.held += self.held > 0

    def _watch(self, new: str, *, answer: bool) -> None:
        if not answer:
            self._answer = None
        elif self._answer is None and (text := new.lstrip() if self._blank else new):
            self._answer, self._blank = self.length - len(text), False
        recent = self._end + new
        self._end = recent[-self._overlap :] if self._overlap else ""
        start = self.length - len(recent)
        if self.stop_at is None and (found := min(self._found(recent, start), default=None)) is not None:
            at, _, self.stopped_by = found
            self.stop_at = start + at + (len(self.stopped_by) if self._include else 0)
        if self.stop_at is not None:
            self.held += 1
            return
        count = max((_overlap(self._end, stop) for stop in self._stops), default=0)
        if self._answer is not None:
            own = self._end[max(0, self._answer - (self.length - len(self._end))) :]
            count = max(count, *(_overlap(own, stop) for stop in self._answer_stops), 0)
        self.held = characters = 0
        while characters < count:
            self.held += 1
            characters += len(self.pieces[-self.held])

    def _found(self, recent: str, start: int) -> Iterator[tuple[int, int, str]]:
        """Place, rank and text of each stop string in a text that begins at `start`."""
        for rank, stop in enumerate(self._stops):
            if (at := recent.find(stop)) >= 0:
                yield at, rank, stop
        if self._answer is not None:
            for rank, stop in enumerate(self._answer_stops):
                if (at := recent.find(stop, max(0, self._answer - start))) >= 0:
                    yield at, rank, stop


def _overlap(text: str, stop: str) -> int:
    """Number of characters at the end of a text that may be the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
