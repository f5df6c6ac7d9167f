"""When a call that failed may be repeated, and after how long."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses below 500 with which the same call may succeed later; from 500 on all of them are."""
OVERLOADED = frozenset({408, 429, 503, 529})
"""Statuses of an endpoint that has too much to do."""
LONGEST_WAIT = 600.0
"""Nobody waits longer for a `Retry-After`, in seconds: the call has failed."""

_LONGEST_BACKOFF = 60.0


def is_transient(status: int) -> bool:
    """Whether a call that was answered with this HTTP status may succeed when it is repeated."""
    return status in TRANSIENT or status >= 500


def backoff(first: float, number: int, draw: Random) -> float:
    """Seconds before a call is repeated: doubled after each try, up to a minute, and half of it at random.

    Args:
        first: before the second try, at most.
        number: tries so far, 1 or more.
        draw: source of the randomness.
    """
    return min(first * 2.0 ** min(number - 1, 32), _LONGEST_BACKOFF) * draw.uniform(0.5, 1)


def seconds_after(header: str | None, now: datetime) -> float:
    """Seconds to wait according to `Retry-After` (seconds or a date); 0 if it gives neither."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return seconds if 0 < seconds < float("inf") else 0.0
