"""What commands print as JSON."""

from __future__ import annotations

import json
from typing import Any

import typer


def dump(value: Any) -> str:
    """JSON on one line, letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def print_json(value: Any) -> None:
    """Print one JSON object, on one line."""
    typer.echo(dump(value))
