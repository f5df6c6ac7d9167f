"""Documents as the pages draw them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from ..structure import Block, Body, Document, child_label


def within(name: str, number: int) -> str:
    """Name of a block or path inside a named one, by its number from 0."""
    return f"{name}/{number + 1}" if name else str(number + 1)


def tree_json(document: Document, marked: Collection[str] = frozenset()) -> dict[str, Any]:
    """A document as plain objects: texts, blocks with their paths, and the answer behind them.

    Args:
        marked: names of paths and blocks that the page marks.
    """
    plain = document.plain_answer if document.thinking is not None else None
    whole = document.thinking or () if plain is not None else (*(document.thinking or ()), *document.answer)
    return {"thinking": _body(whole, _Place("", ""), marked), "answer": plain or ""}


class _Place(NamedTuple):
    """A path or a block: its label in the document (a block's is that of the path it is in), and its name (see `within`)."""

    label: str
    name: str


def _body(body: Body, place: _Place, marked: Collection[str]) -> list[Any]:
    items: list[Any] = []
    blocks = 0
    for item in body:
        if isinstance(item, Block):
            items.append(_block(item, _Place(place.label, within(place.name, blocks)), marked))
            blocks += 1
        else:
            items.append(item)
    return items


def _block(block: Block, place: _Place, marked: Collection[str]) -> dict[str, Any]:
    paths = []
    for index, (written, outline, body) in enumerate(block.titled()):
        own = _Place(child_label(place.label, index), within(place.name, index))
        items = _body(body, own, marked)
        paths.append({"label": written or own.label, "outline": outline, "kept": own.name in marked, "body": items})
    return {"paths": paths, "conclusion": block.conclusion, "name": place.name, "kept": place.name in marked}
