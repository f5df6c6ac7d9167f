"""Fill the template of a page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

# Characters that could end the element with the data, and lone surrogates.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_PLACE = re.compile(r"\{\{ (\w+) \}\}")


def embedded(value: Any) -> str:
    """JSON that can be embedded in an HTML page: nothing in it begins or ends an element."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def style() -> str:
    """The rules that all pages have: colours, light and dark, cards, tables, lanes."""
    return (files(__package__) / "report.css").read_text(encoding="utf-8")


def script() -> str:
    """The functions that all pages have: elements from text, and drawings of documents that fork."""
    return (files(__package__) / "report.js").read_text(encoding="utf-8")


def fill(template: str, parts: dict[str, str | Iterable[str]]) -> Iterator[str]:
    """The page in pieces: each place replaced by its part, in which places are not looked for.

    Args:
        template: HTML; ``{{ style }}`` and ``{{ script }}`` are what all pages share.
        parts: under the name of each other place, HTML that is safe where it goes (see `embedded`), whole or in pieces.
    """
    known = {"style": style(), "script": script(), **parts}
    for index, piece in enumerate(_PLACE.split(template)):
        part = known[piece] if index % 2 else piece
        yield from (part,) if isinstance(part, str) else part
