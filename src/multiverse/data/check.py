"""Checks of rows before training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import StructureError
from ..structure import TokenDialect, encode, parse, render
from .row import Duplicate, Fault, Loaded, Row


def check(
    rows: Iterable[Row],
    tokens: TokenDialect,
    *,
    max_tokens: int | None = None,
    encode_prompt: Callable[[Row], int] | None = None,
    need_prompt: bool = True,
) -> Loaded:
    """The rows that can be trained on, and every fault of the others.

    Args:
        tokens: the dialect resolved against the model's tokenizer.
        max_tokens: most tokens of a row: prompt, document and end of turn.
        encode_prompt: number of tokens of a row's prompt; `ValueError` is a fault. `None` does not count prompts.
        need_prompt: whether a row without a question is a fault.
    """
    checked = Loaded([], [])
    for row in rows:
        problems = list(_problems(row, tokens, need_prompt))
        if not problems:
            problems = list(_length(row, tokens, max_tokens, encode_prompt))
        checked.faults.extend(Fault(row.source, row.line, problem) for problem in problems)
        if not problems:
            checked.rows.append(row)
    return checked


def duplicates(rows: Iterable[Row]) -> list[Duplicate]:
    """The rows that are the same as an earlier one, in order."""
    first: dict[Any, str] = {}
    found = []
    for row in rows:
        key = _content(row)
        if key in first:
            found.append(Duplicate(row.source, row.line, first[key]))
        else:
            first[key] = f"{row.source}:{row.line}"
    return found


def distinct(rows: Iterable[Row]) -> list[Row]:
    """The rows without those that are the same as an earlier one."""
    first: dict[Any, Row] = {}
    for row in rows:
        first.setdefault(_content(row), row)
    return list(first.values())


def _content(row: Row) -> Any:
    return row.prompt, row.document, row.sequential


def _problems(row: Row, tokens: TokenDialect, need_prompt: bool) -> Iterator[str]:
    if need_prompt and not row.question:
        yield "it has no question: training needs one (for an .xml file, in a .txt file of the same name beside it)"
    for number, message in enumerate(row.prompt, 1):
        if message.role == "assistant":
            try:
                parse(message.content, tokens.dialect)
            except StructureError as error:
                yield f"message {number}, an earlier answer, breaks the grammar: {error}"


def _length(
    row: Row, tokens: TokenDialect, max_tokens: int | None, encode_prompt: Callable[[Row], int] | None
) -> Iterator[str]:
    try:
        prompt = encode_prompt(row) if encode_prompt is not None else 0
        if max_tokens is None:
            render(row.document, tokens.dialect)  # finds the same faults as `encode`, ten times faster
            return
        length = prompt + len(encode(row.document, tokens).token_ids) + 1
    except ValueError as error:  # a tag in a text, or a message that the chat template refuses
        yield str(error)
        return
    if length > max_tokens:
        counted = "tokens with its prompt" if encode_prompt is not None else "tokens"
        yield f"it has {length:,} {counted}, over the limit of {max_tokens:,}: shorten it, or raise the limit"
