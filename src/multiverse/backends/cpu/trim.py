"""Return unused memory that the C library holds to the system.

Forwards of ever-changing size leave holes in glibc's heap: what is in use stays level over hours, but the memory of the
process grows. `malloc_trim` returns every whole free page.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc: macOS, musl, Windows
        return None
    return found


def trim() -> None:
    """Return free pages to the system, if the C library can."""
    if (malloc_trim := _malloc_trim()) is not None:
        malloc_trim(0)
