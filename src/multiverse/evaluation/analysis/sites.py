"""From cases to token sequences with sites: the tokens at which a probe is asked whether a fork is about to start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import RequestError
from ...prompting import Mode, ask
from ...structure import MULTIVERSE, ChatEncoder, Dialect, Document, Layout, TokenDialect, layout, render, segments
from .cases import Case
from .options import Place, SiteOptions
from .sentences import aligned, sentences


class Site(NamedTuple):
    """A token and its label: whether a fork is about to start."""

    token: int
    forks: bool


@dataclass(frozen=True)
class Marked:
    """One text as token ids, prompt included.

    Attributes:
        prompt_tokens: tokens of the prompt.
        case: number of its case; the two texts of one case share it.
    """

    token_ids: tuple[int, ...]
    layout: Layout
    prompt_tokens: int
    sites: tuple[Site, ...]
    case: int

    def position(self, index: int) -> tuple[int, int]:
        """Position of a token, and the same counted from where the answer begins (-1 for the prompt's last token)."""
        start = max(self.layout.positions[: self.prompt_tokens], default=-1) + 1
        return self.layout.positions[index], self.layout.positions[index] - start

    def last_tokens(self, index: int, count: int) -> tuple[int, ...]:
        """Up to `count` tokens of the site's own branch, up to and including the site."""
        branch = self.layout.writers[index]
        own = [self.token_ids[i] for i in range(index, -1, -1) if self.layout.writers[i] == branch][:count]
        return tuple(reversed(own))


@dataclass(frozen=True)
class Marker:
    """Finds the sites of texts.

    Attributes:
        tokenizer: the model's; it must be a fast one, which gives the offsets of its tokens.
        tokens: the model's dialect; `None` for a model without tags, which takes sequential texts only.
        at, within: see `SiteOptions`.
    """

    tokenizer: Any
    tokens: TokenDialect | None
    at: Place = "sentence"
    within: int = 8

    def __post_init__(self) -> None:
        SiteOptions(self.at, self.within)  # raises if they are not valid
        if not getattr(self.tokenizer, "is_fast", False):
            raise RequestError("the probing test needs a fast tokenizer, which gives the offsets of its tokens")

    @property
    def dialect(self) -> Dialect:
        """The tags that texts are written with."""
        return self.tokens.dialect if self.tokens is not None else MULTIVERSE

    def mark(self, number: int, case: Case, mode: Mode) -> Marked:
        """The structured text (mode parallel) or the sequential one, with its sites.

        Raises:
            RequestError: a structured text for a model without tags.
            DataError: the case's two texts have different sentences.
        """
        if mode == "parallel" and self.tokens is None:
            raise RequestError("this model has no tags for structured texts: use --mode sequential")
        document = case.structured if mode == "parallel" else case.sequential
        prompt = self.prompt(case.question, mode)
        ids, ends = self._encode(document)
        if self.at == "question":
            sites = [Site(len(prompt) - 1, case.forks)]
        else:
            sites = [Site(len(prompt) + site.token, site.forks) for site in self._sites(case, mode, ends)]
        whole = (*prompt, *ids)
        where = layout(whole, self.tokens, decoded=True) if self.tokens is not None else _line(len(whole))
        return Marked(whole, where, len(prompt), tuple(sites), number)

    def prompt(self, question: str, mode: Mode) -> list[int]:
        """The question as the model's chat template puts it, or as plain text where there is none."""
        messages = ask(question, mode)
        if getattr(self.tokenizer, "chat_template", None) is None:
            return list(self.tokenizer.encode(f"{messages[-1]['content']}\n\n"))
        return ChatEncoder(self.tokenizer, self.tokens)(messages).token_ids

    def _encode(self, document: Document) -> tuple[list[int], list[int]]:
        """Token ids, encoded by segment as the engine does, and the end offset of each in the rendered text."""
        if self.tokens is None:
            texts: Sequence[str] = [render(document, self.dialect)]
        else:
            texts = [segment.text for segment in segments(document, self.dialect)]
        ids: list[int] = []
        ends: list[int] = []
        offset = 0
        for text in texts:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            ids += encoded["input_ids"]
            ends += [offset + end for _, end in encoded["offset_mapping"]]
            offset += len(text)
        return ids, ends

    def _sites(self, case: Case, mode: Mode, ends: list[int]) -> list[Site]:
        if mode == "parallel":
            found = sentences(case.structured, self.dialect)
        else:
            found = aligned(case.structured, case.sequential, self.dialect)
        sites: list[Site] = []
        for sentence in found:
            if not sentence.open:
                continue
            last = next(index for index, end in enumerate(ends) if end >= sentence.end)
            if self.at == "sentence":
                sites.append(Site(last, sentence.forks))
                continue
            first = next(index for index, end in enumerate(ends) if end > sentence.start)
            sites += [Site(index, sentence.forks and last - index < self.within) for index in range(first, last + 1)]
        return sites


def _line(length: int) -> Layout:
    """The layout of a text without tags."""
    return Layout(tuple(range(length)), (0,) * length, (False,) * length)
