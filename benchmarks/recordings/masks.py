"""What differs from run to run of the same code, replaced by fixed values."""

from __future__ import annotations

import json
import re
from typing import Any

MASK = "<masked>"
VOLATILE = frozenset({"seconds", "date", "created", "machine", "versions", "time", "elapsed", "began", "ended_at", "started"})
"""Keys of JSON whose values are times, durations or descriptions of the machine."""


def mask_body(body: bytes) -> bytes:
    """A body of the server without ids, times, durations, and comments that keep a connection open."""
    body = re.sub(rb'"id":( ?)"(?:chatcmpl|cmpl)-[^"]*"', rb'"id":\1"<masked>"', body)
    body = re.sub(rb'"created":( ?)\d+', rb'"created":\g<1>0', body)
    body = re.sub(rb'"seconds":( ?)[-+.\deE]+', rb'"seconds":\g<1>0', body)
    return re.sub(rb"^: [^\n]*\n\n", b"", body, flags=re.MULTILINE)


def mask_json(value: Any) -> Any:
    """The value with every volatile key masked."""
    if isinstance(value, dict):
        return {key: MASK if key in VOLATILE else mask_json(item) for key, item in value.items()}
    return [mask_json(item) for item in value] if isinstance(value, list) else value


def mask_lines(text: str) -> str:
    """JSON, or JSON lines, with every volatile key masked; of other text, the duration in the line of usage."""
    try:
        return f"{json.dumps(mask_json(json.loads(text)), ensure_ascii=False)}\n"
    except ValueError:
        pass
    try:
        values = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return re.sub(r"^(usage: .*?)[\d.]+ s\b", rf"\1{MASK} s", text, flags=re.MULTILINE)
    return "".join(f"{json.dumps(mask_json(value), ensure_ascii=False)}\n" for value in values)
