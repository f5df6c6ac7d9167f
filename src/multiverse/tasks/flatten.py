"""From a structured document to the same reasoning written sequentially.

One function for all families, so that sequential and parallel data differ in their structure and in nothing else: a
comparison of the two then measures the structure.
"""

from __future__ import annotations

from multiverse.structure.sequential import sequential_baseline
from multiverse.structure.tree import Document

IN_PARALLEL = "Let's think in parallel."
IN_A_LINE = "Let's think step by step."


def flatten(document: Document) -> Document:
    """The document with every block written path after path, each on its own line, then its conclusion."""
    flat = sequential_baseline(document, conclusions=True)
    if flat.thinking is None:
        return document
    texts = (text.replace(IN_PARALLEL, IN_A_LINE) for text in flat.thinking if isinstance(text, str))
    return Document(tuple(texts), flat.answer)
