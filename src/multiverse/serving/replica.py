"""A replica's process: the plain server's application over an engine of its own, without a socket.

A request comes as plain data, and the messages of its answer go back in batches as they become ready.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .. import cluster
from .config import ServerConfig
from .gateway import Report
from .middleware import Message

if TYPE_CHECKING:
    from ray.actor import ActorHandle

HEADER = b"x-multiverse-replica"
"""Response header that names the replica."""
STALE = 15.0
"""Seconds without a report after which a replica is taken for dead."""


class Board:
    """Keeps the reports of the replicas. A Ray actor."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, Report]] = {}

    def post(self, name: str, report: Report) -> None:
        """Store a replica's report."""
        self._reports[name] = time.monotonic(), report

    def read(self) -> dict[str, Report]:
        """The latest report of every replica, but for those without a recent one."""
        now = time.monotonic()
        self._reports = {name: entry for name, entry in self._reports.items() if now - entry[0] < STALE}
        return {name: report for name, (_, report) in self._reports.items()}


class Replica:
    """One replica. A Ray Serve deployment.

    Args:
        config: the server's options; the gateway has checked API keys and origins.
        options: arguments of `LLM`.
        board: takes the reports.
    """

    def __init__(self, config: ServerConfig, options: dict[str, Any], board: ActorHandle[Board]) -> None:
        from ..llm import LLM
        from . import logs
        from .app import create_app
        from .service import Service

        cluster.be_quiet()
        logs.set_up("warning")  # requests are logged by the gateway
        self._service = Service(LLM(**options), config)
        self._app = create_app(self._service)
        self._board = board
        self._name = f"{time.time_ns():x}"[-8:]

    async def answer(self, scope: dict[str, Any], content: bytes) -> AsyncIterator[list[Message]]:
        """Answer a request; closing the iterator, or cancelling the task that waits for it, stops the work on it."""
        self._service.admission.started = True
        made: asyncio.Queue[Message | None] = asyncio.Queue()
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": content, "more_body": False}
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never  # cancelled when the client leaves

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, self._name.encode())]}
            made.put_nowait(message)

        async def run() -> None:
            try:
                await self._app({**scope, "state": {}}, receive, send)
            finally:
                made.put_nowait(None)

        work = asyncio.create_task(run())
        try:
            over = False
            while not over:
                batch = [await made.get()]
                while not made.empty():
                    batch.append(made.get_nowait())
                over = batch[-1] is None
                messages = [message for message in batch if message is not None]
                if messages:
                    yield messages
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def check_health(self) -> None:
        """Report to the board. Ray replaces a replica that raises here."""
        self._service.admission.started = True
        if (broken := self._service.llm.engine.backend.broken) is not None:
            raise RuntimeError(f"the tensor-parallel ranks do not run any more: {broken}")
        if not self._service.admission.ready:
            raise RuntimeError("the engine is closed")
        metrics = self._service.metrics.render().decode()
        self._board.post.remote(self._name, Report(self._service.stats(), metrics, os.getpid()))
