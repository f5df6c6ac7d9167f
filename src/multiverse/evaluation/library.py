"""Libraries that are imported only where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import ExtraError


def library(name: str) -> Any:
    """A library that only evaluation needs (`ExtraError` if it is not installed)."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ExtraError(name.partition(".")[0], "eval") from error
