"""Samples as recordings: files that the page opens."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any, NamedTuple

from ..errors import StructureError
from ..structure import DIALECTS, Dialect, Document, parse
from .sample import Sample

PAGE = "http://127.0.0.1:8000/"
"""Default address of the page of `multiverse serve`."""

LONGEST_LINK = 6000
"""Most characters of an address; longer ones make lists of samples unreadable in Markdown viewers."""


def recording(sample: Sample, model: str) -> dict[str, Any]:
    """A sample in the page's format. It has the text instead of token events, which are not kept; the server parses it."""
    text, dialect, _ = readable(sample.text)
    graded = "right" if sample.right else "wrong"
    answered = f"expected {sample.expected}, answered {sample.answer or 'nothing'}"
    # The page counts words; the note has the model's tokens.
    took = f"{sample.total_tokens} tokens, critical path {sample.critical_path_tokens} in {sample.critical_path_steps} steps"
    note = f"{sample.task} {sample.id}, epoch {sample.epoch}: {graded}, {answered} ({sample.finish_reason}); {took}"
    run = {"mode": sample.mode, "text": text, **({"dialect": dialect.name} if dialect is not None else {})}
    return {
        "format": "multiverse-recording",
        "version": 1,
        "question": sample.question,
        "model": model,
        "note": note,
        "runs": [run],
    }


def link(recorded: dict[str, Any], page: str = PAGE) -> str | None:
    """An address that opens a recording in the page at `page`; `None` if it would be too long.

    The recording is in the fragment, which browsers do not send to the server.
    """
    packed = base64.urlsafe_b64encode(zlib.compress(json.dumps(recorded, ensure_ascii=False).encode(), 9)).decode().rstrip("=")
    address = f"{page.partition('#')[0]}#sample={packed}"
    return address if len(address) <= LONGEST_LINK else None


def file_name(number: int, sample: Sample) -> str:
    """A portable name for a sample's file that sorts like the samples."""
    return f"{number:04d}-{slug(sample.id)}-{sample.epoch}.json"


def slug(text: str) -> str:
    """Letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:60] or "x"


class Readable(NamedTuple):
    """A text as a document, which is `None`, like its dialect, if it parses in no dialect."""

    text: str
    dialect: Dialect | None = None
    document: Document | None = None


def readable(text: str) -> Readable:
    """A sample's text as a document.

    If the prompt opened the thinking, the tag that opens it is not part of the text and is prepended.
    """
    for dialect in DIALECTS.values():
        if not any(tag in text for tag in dialect.tags):
            continue
        opened = f"{dialect.think.open}{dialect.sep}{text.removeprefix(dialect.sep)}" if dialect.think is not None else text
        for candidate in (text, opened):
            try:
                document = parse(candidate, dialect)
            except StructureError:
                continue
            if document.thinking is not None or document.branches or dialect.think is None:
                return Readable(candidate, dialect, document)
    return Readable(text)
