"""From a question and its solution to token ids, labels, positions and segments. No torch.

A document is the chat prompt, the solution encoded segment by segment, and the end-of-turn token. Loss is taken on the tokens
that the model has to generate: not on the prompt, nor on forced tokens, which the engine inserts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..prompting import DEFAULT, Mode, Prompting
from ..structure import (
    ChatEncoder,
    ChatForm,
    Contexts,
    Document,
    Encoded,
    Layout,
    TokenDialect,
    check_share_every,
    encode,
    end_of_turn,
    layout,
    partings,
)

IGNORED = -100
"""Label of a token without loss (the `ignore_index` of torch's cross entropy)."""

Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class View:
    """Mask and positions of structured text in training. The default is what the engine computes; others are baselines.

    Attributes:
        attention: with ``structured`` the paths of a block do not attend to each other; ``causal`` is a plain causal mask.
        positions: with ``structured`` the paths of a block start at the same position; ``linear`` is 0, 1, 2, ...
        share_every: paths also attend to each other's earlier chunks of this many positions.

    Raises:
        ValueError: `share_every` is below 1, or a combination has no meaning.
    """

    attention: Literal["structured", "causal"] = "structured"
    positions: Literal["structured", "linear"] = "structured"
    share_every: int | None = None

    def __post_init__(self) -> None:
        check_share_every(self.share_every)
        usual = (self.attention, self.positions) == ("structured", "structured")
        if self.share_every is not None and not usual:
            raise ValueError(
                f"share_every={self.share_every} needs structured attention and positions, not "
                f"attention={self.attention!r}, positions={self.positions!r}"
            )

    @property
    def plain(self) -> bool:
        """Whether mask and positions are those of plain text; then forced tokens have loss too, as nothing inserts them."""
        return self.attention == "causal" and self.positions == "linear"


STRUCTURED = View()


@dataclass(frozen=True)
class Features:
    """One training document.

    Attributes:
        token_ids: prompt, solution, end of turn.
        labels: the token itself where there is loss, `IGNORED` elsewhere; not shifted.
        positions: position ids.
        segments: index of each token's branch; 0 is the trunk.
        visibility: for every pair of segments, whether tokens of the first may attend to earlier tokens of the second.
        starts: for every pair of segments, the start position of the paths that separate them, -1 if none do; `None` unless
            `View.share_every` is set.
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
    def num_loss_tokens(self) -> int:
        """Number of tokens with loss."""
        return sum(label != IGNORED for label in self.labels)


class Featurizer:
    """Makes features for one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        tokens: the dialect resolved against that tokenizer; its join decides what contexts there are (`structure.contexts`).
        view: mask and positions.
        prompting: the instructions of each mode.
        form: how chats are written.

    Attributes:
        end: the end-of-turn token.
    """

    def __init__(
        self,
        tokenizer: Any,
        tokens: TokenDialect,
        view: View = STRUCTURED,
        prompting: Prompting = DEFAULT,
        form: ChatForm = ChatForm(),  # noqa: B008
    ) -> None:
        self.tokenizer, self.tokens, self.view, self.prompting = tokenizer, tokens, view, prompting
        self.end = end_of_turn(tokenizer)
        self._chats = ChatEncoder(tokenizer, tokens, form)

    def __call__(self, prompt: str | Sequence[Mapping[str, str]], document: Document, mode: Mode | None) -> Features:
        """Features of a question with its solution.

        Args:
            prompt: a question, or the messages before the solution.
            mode: the sentence that asks for this mode is appended to the prompt; `None` appends nothing.
        """
        messages: Sequence[Mapping[str, str]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        prompt_ids = self.encode_prompt(self.prompting.instruct(messages, mode) if mode is not None else messages)
        if self.tokens.dialect.join != "kv":
            # A plain engine decodes these: it writes all but the heads itself.
            return self._joined(prompt_ids, encode(document, self.tokens, heads_only=True))
        encoded = encode(document, self.tokens)
        token_ids = (*prompt_ids, *encoded.token_ids, self.end)
        if self.tokens.roles.keys().isdisjoint(prompt_ids):
            whole = _shift(encoded.layout, len(prompt_ids))
        else:
            # Earlier turns that fork: the engine prefills them with their own layout.
            whole = layout(token_ids[:-1], self.tokens)
        return self._with_layout(token_ids, self._labels(len(prompt_ids), encoded), whole)

    def encode_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat with the generation prompt, as the engine gets it."""
        return self._chats(messages).token_ids

    def _joined(self, prompt_ids: Sequence[int], encoded: Encoded) -> Features:
        contexts = Contexts.of(encoded.token_ids, encoded.layout, self.tokens, len(prompt_ids))
        packed = list(contexts)
        forced = iter(encoded.layout.forced)
        labels = (token.token if token.own and not next(forced) else IGNORED for token in packed)
        start = range(len(prompt_ids))
        last = max(token.position for token in packed if not token.branch) + 1
        return Features(
            token_ids=(*prompt_ids, *(token.token for token in packed), self.end),
            labels=(*(IGNORED for _ in start), *labels, self.end),
            positions=(*start, *(token.position for token in packed), last),
            segments=(*(0 for _ in start), *(token.branch for token in packed), 0),
            visibility=contexts.visibility,
        )

    def _labels(self, start: int, encoded: Encoded) -> tuple[int, ...]:
        pairs = zip(encoded.token_ids, encoded.layout.forced, strict=True)
        answer = (IGNORED if forced and not self.view.plain else token for token, forced in pairs)
        return (*(IGNORED for _ in range(start)), *answer, self.end)

    def _with_layout(self, token_ids: tuple[int, ...], labels: tuple[int, ...], whole: Layout) -> Features:
        # The end of turn is in the trunk, after the longest path.
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


def _shift(found: Layout, start: int) -> Layout:
    """The layout after a prompt of `start` tokens that does not fork."""
    return Layout(
        positions=(*range(start), *(start + position for position in found.positions)),
        branches=(*(0 for _ in range(start)), *found.branches),
        forced=(*(False for _ in range(start)), *found.forced),
        table=found.table,
        writers=(*(0 for _ in range(start)), *found.writers),
    )


def pack(lengths: Iterable[int], row_length: int, ahead: int = 64) -> list[list[int]]:
    """Best-fit packing: indices of the documents of each row of at most `row_length` tokens.

    Documents are taken in order, each into the fullest open row with room for it; when `ahead` rows are open, the fullest is
    closed. So rows are nearly in the order of the documents. A document longer than `row_length` gets a row of its own.
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
