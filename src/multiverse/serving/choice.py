"""One choice of an answer: its text, in document order, split into reasoning and content; usage.

Streamed or sent whole, a choice's text is put together here, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from ..engine.branch import TokenScore
from ..engine.events import Event, FinishEvent, ForkEvent, PromptEvent, TokenEvent
from ..engine.generation import Generation
from ..streaming import DocumentOrder
from ..structure import Document, MarkdownWriter, Role, TokenDialect, render

_FINISH = {"stop": "stop", "length": "length", "budget": "length", "deadline": "length"}

Section = Literal["reasoning", "content"]


class Piece(NamedTuple):
    """What one token adds to a choice.

    Attributes:
        section: where it belongs.
        text: what it adds; may be empty.
        token: the token; `None` for white space that was held back when its token was given out.
    """

    section: Section
    text: str
    token: TokenEvent | None


class Choice:
    """Turns the events of one generation into the pieces of a choice, as far as they are certain.

    Reasoning is what stands between the tags of the thinking, and content what follows it, without white space around it. A
    generation without a thinking is all content. An answer that may fork is content as Markdown (see `structure.markdown`):
    its tags and labels are tokens without text.

    Args:
        index: number of the choice.
        tokens: the dialect that the model writes; `None` makes everything content, as it was generated, tags included.
        thinking: the prompt has opened the thinking.
        skipped: tokens whose text is left out.

    Attributes:
        pieces: what has been given out; kept only for answers that are sent whole.
        length: characters that have been given out.
        thought: whether there is a thinking.
        reasoning_tokens: tokens of the thinking so far, its tags included, in document order.
        forks: blocks so far.
        prompt_scores: log-probabilities of the prompt's tokens, once they are there.
        generation: the result, once it is there.
    """

    def __init__(
        self,
        index: int,
        tokens: TokenDialect | None = None,
        *,
        thinking: bool = False,
        skipped: frozenset[int] = frozenset(),
    ) -> None:
        self.index = index
        self.pieces: list[Piece] = []
        self.length = self.reasoning_tokens = self.forks = 0
        self.generation: Generation | None = None
        self.prompt_scores: Sequence[TokenScore | None] = ()
        self._order = DocumentOrder()
        self._skipped = skipped
        self._token_ids: list[int] = []
        self._tokens = tokens
        self._tags: dict[int, Role] = {}
        if tokens is not None:
            self._tags = {id_: role for id_, role in tokens.roles.items() if role in (Role.THINK_OPEN, Role.THINK_CLOSE)}
        self._markdown: MarkdownWriter | None = None
        if tokens is not None and tokens.dialect.forks_answer:
            self._markdown = MarkdownWriter(tokens.dialect)
        self.thought = self._fresh = thinking and bool(self._tags)
        self._section: Section = "reasoning" if self.thought else "content"
        self._begun = False  # whether content has any text that is not white space
        self._blank: list[Piece] = []  # white space that is content only if more follows

    def feed(self, event: Event) -> list[Piece]:
        """Take the next event; returns what can now be given out."""
        if isinstance(event, ForkEvent):
            self.forks += 1
        elif isinstance(event, FinishEvent):
            self.generation = event.generation
        elif isinstance(event, PromptEvent):
            self.prompt_scores = event.scores
        pieces: list[Piece] = []
        for given in self._order.feed(event):
            token = replace(given, text="") if given.token_id in self._skipped else given
            self._token_ids.append(token.token_id)
            if self._tokens is None:
                pieces.append(Piece("content", token.text, token))
            else:
                self._sort(token, pieces, self._tokens.dialect.sep, given.text)
        if self.generation is not None and isinstance(stop := self.generation.stop_reason, str):
            if self.generation.text.endswith(stop):  # it is to be included, and so is white space in it
                pieces += self._blank
            self._blank = []
        self.length += sum(len(piece.text) for piece in pieces)
        return pieces

    def take_token_ids(self) -> list[int]:
        """The tokens that were given out since the last time, in document order."""
        taken, self._token_ids = self._token_ids, []
        return taken

    def _sort(self, token: TokenEvent, pieces: list[Piece], sep: str, whole: str) -> None:
        role = self._tags.get(token.token_id) if not token.branch else None
        if role is Role.THINK_OPEN and not self.thought:
            self.thought = self._fresh = True
            self._section = "reasoning"
            self.reasoning_tokens += 1
        elif role is Role.THINK_CLOSE and self._section == "reasoning":
            self._section = "content"
            self.reasoning_tokens += 1
        elif self._section == "reasoning":
            self.reasoning_tokens += 1
            text = token.text.removeprefix(sep) if self._fresh else token.text
            self._fresh = self._fresh and not token.text
            pieces.append(Piece("reasoning", text, token))
        elif self._markdown is None:
            self._content(token, pieces)
        elif not token.end_of_text:
            pieces.append(Piece("content", self._written(token, self._markdown, whole), token))

    def _written(self, token: TokenEvent, markdown: MarkdownWriter, whole: str) -> str:
        """What a token of an answer that may fork adds to its Markdown; `whole` is its text, be it left out or not."""
        assert self._tokens is not None
        role = self._tokens.roles.get(token.token_id)
        if role is not None:
            cut = self._tokens.decode([token.token_id]).strip() not in whole  # by a stop string: it is no tag
            return "" if cut else markdown.tag(role, token.branch)
        return markdown.text(token.text[token.label_length :]) if token.role != "structure" else ""

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

    def end(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The finished choice as JSON: these fields, OpenAI's finish reason, and what only this server gives."""
        generation = self.generation
        assert generation is not None
        extension = {
            "finish_reason": generation.finish_reason,
            "answer": generation.answer,
            "answer_text": self._answer_text(generation),
            **generation.usage.to_json("total_tokens", "critical_path_tokens", "critical_path_steps", "parallelism"),
            "forks": self.forks,
            **generation.usage.to_json("reread_tokens", "seconds"),
            "closed": [{"branch": label, "reason": reason} for label, reason in generation.closed],
            "structure_error": generation.structure_error,
        }
        reason = _FINISH[generation.finish_reason]
        ended = {"finish_reason": reason, "stop_reason": generation.stop_reason}
        return {"index": self.index, **fields, **ended, "multiverse": extension}

    def _answer_text(self, generation: Generation) -> str | None:
        """The answer with its tags, if it forks."""
        tree = generation.tree
        if self._tokens is None or tree is None or tree.plain_answer is not None:
            return None
        return render(Document(None, tree.answer), self._tokens.dialect)


def text_of(pieces: Sequence[Piece], section: Section) -> str:
    """The pieces of one section, joined."""
    return "".join(piece.text for piece in pieces if piece.section == section)


def usage_of(choices: Sequence[Choice], prompts: int = 1) -> dict[str, Any]:
    """The usage of a request as JSON.

    Several samples of a prompt share its tokens. They are not branches of one thinking, so that they run at the same time does
    not count as parallelism: it is all tokens over the sum of critical paths.

    Args:
        choices: finished ones, in order; as many for each prompt.
        prompts: number of prompts.
    """
    usages = [choice.generation.usage for choice in choices if choice.generation is not None]
    firsts = usages[:: len(usages) // prompts]
    prompt, total = sum(own.prompt_tokens for own in firsts), sum(own.total_tokens for own in usages)
    critical = sum(own.critical_path_tokens for own in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": total,
        "total_tokens": prompt + total,
        "prompt_tokens_details": {"cached_tokens": sum(own.cached_tokens for own in firsts)},
        "completion_tokens_details": {"reasoning_tokens": sum(choice.reasoning_tokens for choice in choices)},
        "multiverse": {
            "critical_path_tokens": critical,
            "critical_path_steps": sum(own.critical_path_steps for own in usages),
            "parallelism": total / critical if critical else 1.0,
            "forks": sum(choice.forks for choice in choices),
            "reread_tokens": sum(own.reread_tokens for own in usages),
            "seconds": max(own.seconds for own in usages),
        },
    }
