"""The server in front of another engine's: our API, the branch stream and the page, over a model that vLLM or another runs.

llm = StockLLM("http://localhost:8001/v1", tokenizer="./my-model")
server.serve(UpstreamService(llm, ServerConfig()), server.listen(ServerConfig()))
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UpstreamError
from ..stock.server import look_up
from . import logs
from .errors import as_api_error, invalid
from .metrics import Snapshot
from .service import Service

if TYPE_CHECKING:
    from ..engine import SamplingParams
    from ..engine.event_stream import EventStream
    from ..engine.response_format import ResponseFormat
    from ..stock.engine import StockEngine
    from ..stock.llm import StockLLM
    from .config import ServerConfig

_LOOK_EVERY = 2.0
"""Seconds for which a look at the other server counts."""
_UNLIMITED = 1 << 30


class UpstreamService(Service):
    """Runs generations on another engine's server. What concerns an engine of this process is left out or refused.

    Args:
        llm: the model on the other server.
        config: the options of this one.
    """

    def __init__(self, llm: StockLLM, config: ServerConfig) -> None:
        self._stock = llm
        super().__init__(llm, config)
        self._looked_at = -_LOOK_EVERY
        self._fault: UpstreamError | None = None
        self._looking = asyncio.Lock()

    def _open(self) -> StockEngine:
        self._requests = self._stock.async_engine()
        return self._requests

    @property
    def capacity(self) -> int:
        """Without a limit: how much fits into its memory is the other server's business."""
        return _UNLIMITED

    @property
    def deterministic(self) -> bool:
        """Not known."""
        return False

    @property
    def quantized(self) -> str | None:
        """Not known."""
        return None

    def compile_format(self, form: ResponseFormat) -> None:
        """Nothing: `llm.check` refuses it."""

    def check_token_ids(self, param: str | None) -> None:
        """As `Service.check_token_ids`."""
        if not self._stock.exact:
            raise invalid(
                "token ids mean nothing here: the model's tokens are not known (see --tokenizer), and text goes to its server",
                param,
            )

    async def check_ready(self) -> None:
        """As `Service.check_ready`; the other server has to answer, too."""
        await super().check_ready()
        await self._check_upstream()

    async def submit(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], param: str | None = None, *, priority: int = 0
    ) -> EventStream:
        """As `Service.submit`.

        Raises:
            ApiError: as there; or 503 at once if the other server does not answer.
        """
        await self._check_upstream()
        return await super().submit(prompts, params, param, priority=priority)

    async def _check_upstream(self) -> None:
        """Raise `ApiError` if the other server does not answer, as far as it was asked lately."""
        async with self._looking:
            if time.monotonic() - self._looked_at >= _LOOK_EVERY:
                fault = await asyncio.to_thread(self._look)
                if (fault is None) != (self._fault is None):
                    level = logging.WARNING if fault is not None else logging.INFO
                    logs.log("upstream", level=level, **({"error": str(fault)} if fault is not None else {"status": "back"}))
                self._fault, self._looked_at = fault, time.monotonic()
        if self._fault is not None:
            raise as_api_error(self._fault)

    def _look(self) -> UpstreamError | None:
        try:
            look_up(self._requests.options)
        except UpstreamError as error:
            return error
        return None

    def _memory(self) -> dict[str, Any]:
        engine = self._requests
        return {"upstream": {"url": engine.options.address, "engine": self._stock.server, "requests": engine.in_flight}}

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._engine.running, self._engine.waiting, upstream_requests=self._requests.in_flight)
