"""From a question and its solution to token ids, labels, positions and segments. No torch here.

A document is the chat prompt, the solution encoded segment by segment, and the token that ends a turn. Loss is taken on what
the model will have to write itself: not on the prompt, and not on forced tokens, which the engine writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..prompting import Mode, instruct
from ..structure import Document, Encoded, Layout, TokenDialect, check_share_every, encode, layout, partings
from .joins import Join, pack_contexts

IGNORED = -100
"""Label of a token that takes no loss (the value that torch's cross entropy leaves out)."""

Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class View:
    """How a model is shown structured text. The default is what the engine computes; the others are baselines.

    Attributes:
        attention: ``structured`` keeps the paths of a block apart; ``causal`` lets every token see all before it.
        positions: ``structured`` lets the paths of a block begin at the same position; ``linear`` counts through.
        share_every: paths also see each other's earlier stretches of this many positions (rule 7 of the layout).
        join: ``kv`` goes on with what the paths have computed; ``text`` reads their text again; ``message`` reads only the last
            clause of each (see `joins`).

    Raises:
        ValueError: `share_every` is below 1; or it, or `join`, stands beside settings with which it has no meaning.
    """

    attention: Literal["structured", "causal"] = "structured"
    positions: Literal["structured", "linear"] = "structured"
    share_every: int | None = None
    join: Join = "kv"

    def __post_init__(self) -> None:
        check_share_every(self.share_every)
        usual = (self.attention, self.positions) == ("structured", "structured")
        for name, value in (("share_every", self.share_every), ("join", None if self.join == "kv" else self.join)):
            if value is not None and not usual:
                raise ValueError(
                    f"{name}={value} needs structured attention and positions, not "
                    f"attention={self.attention!r}, positions={self.positions!r}"
                )
        if self.join != "kv" and self.share_every is not None:
            raise ValueError(f"join={self.join} needs share_every=None, not {self.share_every}: its paths never share")

    @property
    def plain(self) -> bool:
        """Whether the text is shown as any other: the model then has to write all of it, heads and labels, too."""
        return self.attention == "causal" and self.positions == "linear"


STRUCTURED = View()


@dataclass(frozen=True)
class Features:
    """One training document.

    Attributes:
        token_ids: prompt, solution, end of turn.
        labels: the token itself where loss is taken, `IGNORED` elsewhere; the trainer shifts, as transformers does.
        positions: what the model gets as position ids.
        segments: index of each token's branch; 0 is the trunk.
        visibility: for every pair of segments, whether tokens of the one may attend to earlier tokens of the other.
        starts: for every pair of segments, the position at which the paths begin that keep them apart, -1 where none do;
            `None` unless paths share.
    """

    token_ids: tuple[int, ...]
    labels: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    visibility: Table
    starts: Table | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def learned(self) -> int:
        """How many tokens take loss."""
        return sum(label != IGNORED for label in self.labels)


class Featurizer:
    """Makes features for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        tokens: the dialect resolved against that tokenizer.
        view: what of the structure the model is shown.

    Attributes:
        end: the token that ends a turn.
    """

    def __init__(self, tokenizer: Any, tokens: TokenDialect, view: View = STRUCTURED) -> None:
        self.tokenizer, self.tokens, self.view = tokenizer, tokens, view
        self.end = end_of_turn(tokenizer)

    def __call__(self, prompt: str | Sequence[Mapping[str, str]], document: Document, mode: Mode | None) -> Features:
        """Features of one solved question.

        Args:
            prompt: a question, or the messages that precede the solution.
            mode: the sentence that asks for this way of thinking ends the prompt; `None` adds nothing.
        """
        messages: Sequence[Mapping[str, str]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        prompt_ids = self.encode_prompt(instruct(messages, mode) if mode is not None else messages)
        encoded = encode(document, self.tokens)
        if self.view.join != "kv":
            return self._joined(prompt_ids, encoded)
        token_ids = (*prompt_ids, *encoded.token_ids, self.end)
        if self.tokens.roles.keys().isdisjoint(prompt_ids):
            whole = _behind(encoded.layout, len(prompt_ids))
        else:
            # Earlier turns that fork: the engine reads them with their own layout.
            whole = layout(token_ids[:-1], self.tokens)
        return self._shown(token_ids, self._labels(len(prompt_ids), encoded), whole)

    def encode_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat that waits for its answer."""
        chat = [dict(message) for message in messages]
        return self.tokens.encode(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def _joined(self, prompt_ids: Sequence[int], encoded: Encoded) -> Features:
        packed = pack_contexts(prompt_ids, encoded, self.end, self.view.join, self.tokens, self._decode)
        pairs = zip(packed.token_ids, packed.learned, strict=True)
        return Features(
            token_ids=tuple(packed.token_ids),
            labels=tuple(token if learned else IGNORED for token, learned in pairs),
            positions=tuple(packed.positions),
            segments=tuple(packed.segments),
            visibility=packed.visibility,
        )

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _labels(self, start: int, encoded: Encoded) -> tuple[int, ...]:
        pairs = zip(encoded.token_ids, encoded.layout.forced, strict=True)
        answer = (IGNORED if forced and not self.view.plain else token for token, forced in pairs)
        return (*(IGNORED for _ in range(start)), *answer, self.end)

    def _shown(self, token_ids: tuple[int, ...], labels: tuple[int, ...], whole: Layout) -> Features:
        # The document begins and ends in the trunk, so that the end of turn stands behind everything.
        positions = (*whole.positions, max(whole.positions, default=-1) + 1)
        segments = (*whole.branches, 0)
        visibility: Table = tuple(map(tuple, whole.visibility()))
        starts: Table | None = None
        if self.view.share_every is not None:
            starts = tuple(map(tuple, partings(whole.table, whole.starts)))
        if self.view.positions == "linear":
            positions = tuple(range(len(token_ids)))
        if self.view.attention == "causal":
            segments, visibility = (0,) * len(token_ids), ((True,),)
        return Features(token_ids, labels, positions, segments, visibility, starts)


def _behind(found: Layout, start: int) -> Layout:
    """The layout moved behind a prompt of `start` tokens that does not fork."""
    return Layout(
        positions=(*range(start), *(start + position for position in found.positions)),
        branches=(*(0 for _ in range(start)), *found.branches),
        forced=(*(False for _ in range(start)), *found.forced),
        table=found.table,
    )


def end_of_turn(tokenizer: Any) -> int:
    """The token that ends an answer: what the chat template writes behind one, or else the end of text."""
    answer = "answer"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}], tokenize=False
    )
    behind = tokenizer.encode(text[text.rindex(answer) + len(answer) :], add_special_tokens=False)
    markers = tokenizer.added_tokens_decoder
    return next((int(token) for token in behind[:1] if token in markers), int(tokenizer.eos_token_id))


def pack(lengths: Iterable[int], row_length: int, ahead: int = 64) -> list[list[int]]:
    """Which documents share a row of at most `row_length` tokens, by index.

    Documents are taken in order, each into the fullest row with room for it; when `ahead` rows are open, the fullest is closed.
    So rows come out nearly in the order of the documents, whatever their number. A document longer than `row_length`
    gets a row of its own.
    """
    closed: list[list[int]] = []
    rows: list[list[int]] = []
    filled: list[int] = []
    for index, length in enumerate(lengths):
        fitting = [row for row, used in enumerate(filled) if used + length <= row_length]
        if fitting:
            row = max(fitting, key=filled.__getitem__)
        else:
            if len(rows) >= ahead:
                fullest = max(range(len(rows)), key=filled.__getitem__)
                closed.append(rows.pop(fullest))
                del filled[fullest]
            row = len(rows)
            rows.append([])
            filled.append(0)
        rows[row].append(index)
        filled[row] += length
    return closed + rows
