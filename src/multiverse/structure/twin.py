"""The sequential twin of a document: the same reasoning in a line, to compare a structured model with."""

from __future__ import annotations

from .tree import Body, Document


def twin(document: Document, *, conclusions: bool = False) -> Document:
    """The document with every block told path after path, each on its own lines; what its goal says is left out.

    Args:
        conclusions: whether what a block concludes is told behind its paths.
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
