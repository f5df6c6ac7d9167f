"""One choice of an answer: its text, in document order, split into reasoning and content; log-probabilities and usage.

Streamed or sent whole, a choice's text is put together here, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ..engine.events import Event, FinishEvent, ForkEvent, TokenEvent
from ..engine.generation import Generation
from ..streaming import DocumentOrder
from ..structure import Document, MarkdownWriter, Role, TokenDialect, render

LOWEST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON cannot hold; the same as OpenAI's."""

_FINISH = {"stop": "stop", "length": "length", "budget": "length", "deadline": "length"}

Section = Literal["reasoning", "content"]
Decode = Callable[[int], str]
"""Text of a token by itself."""


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

    Attributes:
        pieces: what has been given out; kept only for answers that are sent whole.
        length: characters that have been given out.
        thought: whether there is a thinking.
        reasoning_tokens: tokens of the thinking so far, its tags included, in document order.
        forks: blocks so far.
        generation: the result, once it is there.
    """

    def __init__(self, index: int, tokens: TokenDialect | None = None, *, thinking: bool = False) -> None:
        self.index = index
        self.pieces: list[Piece] = []
        self.length = self.reasoning_tokens = self.forks = 0
        self.generation: Generation | None = None
        self._order = DocumentOrder()
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
        pieces: list[Piece] = []
        for token in self._order.feed(event):
            if self._tokens is None:
                pieces.append(Piece("content", token.text, token))
            else:
                self._sort(token, pieces, self._tokens.dialect.sep)
        self.length += sum(len(piece.text) for piece in pieces)
        return pieces

    def _sort(self, token: TokenEvent, pieces: list[Piece], sep: str) -> None:
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
            pieces.append(Piece("content", self._written(token, self._markdown), token))

    def _written(self, token: TokenEvent, markdown: MarkdownWriter) -> str:
        """What a token of an answer that may fork adds to its Markdown."""
        assert self._tokens is not None
        role = self._tokens.roles.get(token.token_id)
        if role is not None:
            return markdown.tag(role)
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
            **generation.usage.to_json("seconds"),
            "closed": [{"branch": label, "reason": reason} for label, reason in generation.closed],
            "structure_error": generation.structure_error,
        }
        reason = _FINISH[generation.finish_reason]
        return {"index": self.index, **fields, "finish_reason": reason, "multiverse": extension}

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
            "seconds": max(own.seconds for own in usages),
        },
    }


def chat_logprobs(pieces: Sequence[Piece], decode: Decode) -> dict[str, Any]:
    """Log-probabilities of these pieces' tokens: those of the content, and, as no other server has them, of the reasoning."""
    sections: dict[str, list[dict[str, Any]]] = {"content": [], "reasoning": []}
    for piece in pieces:
        if piece.token is not None:
            sections[piece.section].append(_logprob(piece.token, decode))
    return {"content": sections["content"], "refusal": None, "reasoning": sections["reasoning"]}


def _logprob(token: TokenEvent, decode: Decode) -> dict[str, Any]:
    entry = {
        **_named(token.token_id, token.logprob if token.logprob is not None else 0.0, decode),
        "top_logprobs": [_named(token_id, value, decode) for token_id, value in token.top or ()],
    }
    if token.forced:  # the engine wrote it: there was nothing to choose
        entry["forced"] = True
    return entry


def _named(token_id: int, logprob: float, decode: Decode) -> dict[str, Any]:
    text = decode(token_id)
    whole = "\ufffd" not in text  # else it is a part of a character, which has no text of its own
    return {"token": text, "logprob": max(LOWEST, logprob), "bytes": list(text.encode()) if whole else None}


def text_logprobs(pieces: Sequence[Piece], offset: int, decode: Decode) -> dict[str, Any]:
    """Log-probabilities in the form of text completions; `None` where the engine wrote the token.

    Args:
        offset: length of the text before these pieces.
    """
    tokens, values, tops, offsets = [], [], [], []
    for piece in pieces:
        if piece.token is not None:
            tokens.append(piece.text)
            values.append(max(LOWEST, piece.token.logprob) if piece.token.logprob is not None else None)
            top = piece.token.top
            tops.append({_distinct(id_, decode): max(LOWEST, value) for id_, value in top} if top is not None else None)
            offsets.append(offset)
        offset += len(piece.text)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _distinct(token_id: int, decode: Decode) -> str:
    """A token's text; parts of characters, which all look the same, go by their number."""
    text = decode(token_id)
    return f"token_id:{token_id}" if "\ufffd" in text else text
