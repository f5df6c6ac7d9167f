"""What commands print as JSON."""

from __future__ import annotations

import json
from typing import Any

from ..structure import Block, Body, Document


def dump(value: Any) -> str:
    """JSON on one line, letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def document_json(document: Document) -> dict[str, Any]:
    """A document as nested objects: texts are strings, blocks are objects of outlines, paths and a conclusion."""
    return {"thinking": None if document.thinking is None else _body(document.thinking), "answer": document.answer}


def _body(body: Body) -> list[Any]:
    return [_block(item) if isinstance(item, Block) else item for item in body]


def _block(block: Block) -> dict[str, Any]:
    return {
        "outlines": list(block.outlines),
        "paths": [_body(path) for path in block.paths],
        "conclusion": block.conclusion,
    }
