"""The text of one answer, piece by piece: what is reasoning, what is content, and what can be given out already.

Whether an answer is streamed or sent whole, its text is put together here, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..engine.events import Event, ForkEvent, TokenEvent
from ..live import Transcript
from ..structure import Role, TokenDialect

Section = Literal["reasoning", "content"]


class Piece(NamedTuple):
    """What one token adds to the answer.

    Attributes:
        section: where it belongs.
        text: what it adds; may be empty.
        token: the token; `None` for white space that was kept back when its token was told.
    """

    section: Section
    text: str
    token: TokenEvent | None


class Parts:
    """Takes the events of one generation, and gives out the pieces of the answer in the order of the document.

    Reasoning is what stands between the tags of the thinking, and content what follows it, without white space around it. A
    generation without a thinking is all content.

    Args:
        tokens: the dialect that the model writes; `None` makes everything content.
        stops: the request's stop strings.
        prompt_thinking: the prompt has opened the thinking.
        whole: make no difference between thinking and answer: all is content, as it was written.

    Attributes:
        thought: whether there is a thinking.
        reasoning_tokens: tokens of the thinking so far, its tags included, in document order.
        forks: blocks so far.
    """

    def __init__(
        self, tokens: TokenDialect | None, stops: tuple[str, ...] = (), *, prompt_thinking: bool = False, whole: bool = False
    ) -> None:
        self._transcript = Transcript(stops=stops)
        self._whole = whole
        self._think: dict[int, Role] = {}
        self._sep = ""
        if tokens is not None and not whole:
            self._think = {id_: role for id_, role in tokens.roles.items() if role in (Role.THINK_OPEN, Role.THINK_CLOSE)}
            self._sep = tokens.dialect.sep
        self.thought = self._fresh = prompt_thinking and bool(self._think)
        self._section: Section = "reasoning" if self.thought else "content"
        self._begun = False  # whether content has any text that is not white space
        self._blank: list[Piece] = []  # white space that is content only if more follows
        self.reasoning_tokens = 0
        self.forks = 0

    def feed(self, event: Event) -> list[Piece]:
        """Take in what has happened; returns what can now be given out."""
        if isinstance(event, ForkEvent):
            self.forks += 1
        pieces: list[Piece] = []
        for token in self._transcript.take(event):
            if self._whole:
                pieces.append(Piece("content", token.text, token))
            else:
                self._sort(token, pieces)
        return pieces

    def _sort(self, token: TokenEvent, pieces: list[Piece]) -> None:
        role = self._think.get(token.token_id) if not token.branch else None
        if role is Role.THINK_OPEN and not self.thought:
            self.thought = self._fresh = True
            self._section = "reasoning"
            self.reasoning_tokens += 1
        elif role is Role.THINK_CLOSE and self._section == "reasoning":
            self._section = "content"
            self.reasoning_tokens += 1
        elif self._section == "reasoning":
            self.reasoning_tokens += 1
            text = token.text.removeprefix(self._sep) if self._fresh else token.text
            self._fresh = self._fresh and not token.text
            pieces.append(Piece("reasoning", text, token))
        else:
            self._content(token, pieces)

    def _content(self, token: TokenEvent, pieces: list[Piece]) -> None:
        text = token.text if self._begun else token.text.lstrip()
        if not text.strip():
            if self._begun:
                self._blank.append(Piece("content", text, token))
            return
        self._begun = True
        body = text.rstrip()
        pieces += [*self._blank, Piece("content", body, token)]
        self._blank = [Piece("content", text[len(body) :], None)] if len(body) < len(text) else []


def text_of(pieces: Sequence[Piece], section: Section) -> str:
    """The pieces of one section, joined."""
    return "".join(piece.text for piece in pieces if piece.section == section)
