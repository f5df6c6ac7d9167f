"""What commands print as JSON."""

from __future__ import annotations

import json
from typing import Any


def dump(value: Any) -> str:
    """JSON on one line, letters as they are."""
    return json.dumps(value, ensure_ascii=False)
