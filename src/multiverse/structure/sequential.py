"""The sequential baseline of a document: the same reasoning without blocks."""

from __future__ import annotations

from .tree import Body, Document


def sequential_baseline(document: Document, *, conclusions: bool = False) -> Document:
    """The document with every block replaced by the texts of its paths, one after the other; goals are left out.

    Args:
        conclusions: keep each block's conclusion after its paths.
    """
    if document.thinking is None:
        return document
    lines = _lines(document.thinking, conclusions)
    return Document(("\n".join(lines),) if lines else (), document.answer)


def _lines(body: Body, conclusions: bool) -> list[str]:
    lines: list[str] = []
    for item in body:
        if isinstance(item, str):
            lines.append(item)
            continue
        for path in item.paths:
            lines.extend(_lines(path, conclusions))
        if conclusions and item.conclusion:
            lines.append(item.conclusion)
    return lines
