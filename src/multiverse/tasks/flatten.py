"""From a structured document to the same reasoning in a line.

One function for all families, so that sequential and parallel data differ in their structure and in nothing else: a
comparison of the two then measures the structure.
"""

from __future__ import annotations

from multiverse.structure.tree import Body, Document

IN_PARALLEL = "Let's think in parallel."
IN_A_LINE = "Let's think step by step."


def flatten(document: Document) -> Document:
    """The document with every block told path after path, each on its own line, then its conclusion."""
    if document.thinking is None:
        return document
    return Document(("\n".join(_lines(document.thinking)),), document.answer)


def _lines(body: Body) -> list[str]:
    lines: list[str] = []
    for item in body:
        if isinstance(item, str):
            lines.append(item.replace(IN_PARALLEL, IN_A_LINE))
            continue
        for path in item.paths:
            lines.extend(_lines(path))
        if item.conclusion:
            lines.append(item.conclusion)
    return lines
