"""From a question and its solution to token ids, labels, positions and segments. No torch here.

A row is the chat prompt, the document encoded segment by segment, and the end-of-turn token. Loss is taken on what the
model will have to write itself: not on the prompt, and not on forced tokens, which the engine writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..prompting import Mode, ask
from ..structure import Document, TokenDialect, encode

IGNORED = -100
"""Label of a token that takes no loss (the value that torch's cross entropy leaves out)."""


class Features(NamedTuple):
    """One training document.

    Attributes:
        token_ids: prompt, solution, end of turn.
        labels: the token itself where loss is taken, `IGNORED` elsewhere; the trainer shifts, as transformers does.
        positions: what the model gets as position ids.
        segments: index of each token's branch; 0 is the trunk.
        visibility: for every pair of segments, whether tokens of the one may attend to earlier tokens of the other.
    """

    token_ids: tuple[int, ...]
    labels: tuple[int, ...]
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    visibility: tuple[tuple[bool, ...], ...]

    def __len__(self) -> int:
        return len(self.token_ids)


def featurize(question: str, document: Document, mode: Mode, tokenizer: Any, tokens: TokenDialect) -> Features:
    """Features of one solved question, asked in this mode.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template and an end-of-sequence token.
        tokens: the dialect resolved against that tokenizer.
    """
    prompt_text = tokenizer.apply_chat_template(ask(question, mode), tokenize=False, add_generation_prompt=True)
    prompt = tokens.encode(prompt_text)
    encoded = encode(document, tokens)
    start, layout = len(prompt), encoded.layout
    # The document begins and ends in the trunk, so that the end of turn stands behind everything.
    end_position = max(layout.positions, default=-1) + 1
    return Features(
        token_ids=(*prompt, *encoded.token_ids, tokenizer.eos_token_id),
        labels=(
            *(IGNORED for _ in prompt),
            *(IGNORED if forced else token for token, forced in zip(encoded.token_ids, layout.forced, strict=True)),
            tokenizer.eos_token_id,
        ),
        positions=(*range(start), *(start + position for position in layout.positions), start + end_position),
        segments=(*(0 for _ in prompt), *layout.branches, 0),
        visibility=tuple(tuple(row) for row in layout.visibility()),
    )


def pack(documents: Iterable[Features], row_length: int) -> list[list[Features]]:
    """Documents in rows of at most `row_length` tokens: longest first, each into the fullest row that has room.

    A document longer than `row_length` gets a row of its own. The order is a function of the documents alone.
    """
    rows: list[list[Features]] = []
    filled: list[int] = []
    for document in sorted(documents, key=len, reverse=True):
        fitting = [row for row, used in enumerate(filled) if used + len(document) <= row_length]
        if fitting:
            row = max(fitting, key=filled.__getitem__)
        else:
            row = len(rows)
            rows.append([])
            filled.append(0)
        rows[row].append(document)
        filled[row] += len(document)
    return rows


def row_width(rows: Sequence[Sequence[Features]]) -> int:
    """Length of the longest row."""
    return max((sum(len(document) for document in row) for row in rows), default=0)


def micro_batches(rows: Iterable[Sequence[Features]], tokens: int) -> list[list[Sequence[Features]]]:
    """Rows of like length in groups of at most `tokens` tokens, padding included; a longer row goes alone."""
    groups: list[list[Sequence[Features]]] = []
    for row in sorted(rows, key=lambda row: sum(map(len, row)), reverse=True):
        # Rows come longest first, so that the first of a group is as wide as the group.
        if groups and row_width(groups[-1][:1]) * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
