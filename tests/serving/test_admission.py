"""Admission: a counter, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from multiverse.serving.admission import Admission
from multiverse.serving.config import ServerConfig
from multiverse.serving.errors import ApiError
from multiverse.serving.metrics import Metrics

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 20))


def admission(**options: Any) -> Admission:
    config = ServerConfig(**options)
    made = Admission(config.max_concurrent + config.max_queue, config, Metrics("m"))
    made.started = True
    return made


def rejected(admission: Admission, reason: str) -> float:
    name, labels = "multiverse:request_rejected_total", {"model_name": "m", "reason": reason}
    return admission.metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_full_server_refuses_at_once() -> None:
    async def main() -> None:
        own = admission(max_concurrent=2, max_queue=1)
        release = own.admit(2)
        other = own.admit()
        with pytest.raises(ApiError, match="3 generations run or wait, of 3") as full:
            own.admit()
        assert (full.value.status, full.value.type, full.value.code) == (429, "rate_limit_error", "server_full")
        assert full.value.headers == {"retry-after": "1"}
        release()
        release()  # a second time changes nothing
        other()
        assert own.held == 0
        own.admit(3)()
        with pytest.raises(ApiError, match="asks for 4 generations at once, and the server takes at most 3") as never:
            own.admit(4)
        assert (never.value.status, never.value.param) == (400, "n")
        assert rejected(own, "full") == 1

    run(main())


def test_retry_after_grows_with_the_length_of_generations() -> None:
    async def main() -> None:
        own = admission(max_concurrent=1, max_queue=3)
        for _ in range(100):
            own.finished(10.0)
        own.admit(4)
        assert own.full().headers["retry-after"] == "20"  # half of four rounds of ten seconds

    run(main())


def test_nothing_is_admitted_before_the_start() -> None:
    async def main() -> None:
        own = admission()
        own.started = False
        assert not own.ready
        with pytest.raises(ApiError, match="shutting down") as refused:
            own.admit()
        assert refused.value.status == 503

    run(main())


def test_draining_waits_for_what_was_admitted() -> None:
    async def main() -> None:
        own = admission()
        releases = [own.admit(), own.admit(3)]
        drained = asyncio.create_task(own.drain(10))
        await asyncio.sleep(0)
        assert not own.ready
        with pytest.raises(ApiError, match="shutting down") as refused:
            own.admit()
        assert (refused.value.status, refused.value.code) == (503, "shutting_down")
        assert refused.value.headers == {"retry-after": "5"}
        assert rejected(own, "draining") == 1
        for release in releases:
            await asyncio.sleep(0)
            assert not drained.done()
            release()
        assert await drained is True
        assert await own.drain(0) is True

    run(main())


def test_draining_ends_with_the_grace() -> None:
    async def main() -> None:
        own = admission(drain_grace=0.0)
        own.hold()
        assert await own.drain() is False

    run(main())
