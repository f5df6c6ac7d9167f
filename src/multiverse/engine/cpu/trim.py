"""Give memory back that the C library holds and nobody uses.

Forwards of ever-changing size leave glibc's heap full of holes: what is in use stays level over hours, but what the process
holds creeps up. `malloc_trim` hands every whole free page back to the system.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

EVERY = 10.0
"""Seconds of work from one trim to the next: it takes a few milliseconds, or one in a thousand of them."""


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc: macOS, musl, Windows
        return None
    return found


def trim() -> None:
    """Return free pages to the system, where the C library can."""
    if (malloc_trim := _malloc_trim()) is not None:
        malloc_trim(0)
