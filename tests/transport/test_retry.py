"""When a call is repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from random import Random

from multiverse.transport.retry import backoff, is_transient, seconds_after


def test_seconds_after() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert seconds_after(None, now) == 0
    assert seconds_after("7", now) == 7
    assert seconds_after("0.5", now) == 0.5
    assert seconds_after(format_datetime(datetime(2030, 1, 1, 0, 1, tzinfo=UTC), usegmt=True), now) == 60
    for nothing in ("-3", "nan", "inf", "soon", format_datetime(datetime(2029, 1, 1, tzinfo=UTC), usegmt=True)):
        assert seconds_after(nothing, now) == 0


def test_the_backoff_doubles_up_to_a_minute() -> None:
    draw = Random(0)
    for number in range(1, 5):
        assert 0.5 * 2 ** (number - 1) <= backoff(1.0, number, draw) <= 2 ** (number - 1)
    assert 30 <= backoff(1.0, 10_000, draw) <= 60
    assert backoff(0.0, 3, draw) == 0


def test_what_may_succeed_later() -> None:
    assert [status for status in (200, 400, 401, 404, 408, 409, 422, 425, 429, 500, 503, 529) if is_transient(status)] == [
        408,
        409,
        425,
        429,
        500,
        503,
        529,
    ]
