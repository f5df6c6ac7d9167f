"""The sequential baseline of a document: the same reasoning and answer without blocks."""

from __future__ import annotations

from .markdown import markdown
from .tree import Body, Document


def sequential_baseline(document: Document, *, conclusions: bool = False) -> Document:
    """The document with every block replaced by the texts of its paths, one after the other; goals are left out.

    A forked answer becomes Markdown, which is how it is read: outlines as headings, and with every conclusion.

    Args:
        conclusions: keep the conclusion of each block of the thinking after its paths.
    """
    answer = document.answer if document.plain_answer is not None else markdown(document.answer)
    if document.thinking is None:
        return Document(None, answer)
    lines = _lines(document.thinking, conclusions)
    return Document(("\n".join(lines),) if lines else (), answer)


def unnested(path: Body) -> Body:
    """A path without blocks, for dialects that do not nest: the texts of their paths, and their conclusions, line by line."""
    if all(isinstance(item, str) for item in path):
        return path
    lines = _lines(path, conclusions=True)
    return ("\n".join(lines),) if lines else ()


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
