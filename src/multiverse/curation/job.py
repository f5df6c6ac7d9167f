"""A run of curation in its folder: manifest, store, rows, outputs."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..data import FAULTS, Fault
from ..data.write import write_faults
from ..errors import writing
from . import manifest, output
from .budget import Budget
from .client import Client
from .config import BudgetConfig, CurationConfig, EndpointConfig
from .curator import curate as curate_trace
from .errors import BudgetError, CurationError, StoppedError
from .outcomes import CURATED, OUTCOMES, REJECTED, Outcomes
from .output import Expected
from .run import CurateRow, run
from .store import Store
from .types import Trace, Usage

OnStart = Callable[[Client, Outcomes], None]
"""Called once when the rows begin, with what the progress can be read from."""


class Result(NamedTuple):
    """Result of one start of a run.

    Attributes:
        ended: the error that ended it early.
        totals: of all outcomes, as in the manifest; `None` if no outputs were made.
        curated, rejected: rows so far.
        paid: completed calls of this start.
        spent: completed calls of all starts in the folder.
        failures: transient failures, by kind.
    """

    out: Path
    ended: CurationError | None
    totals: dict[str, Any] | None
    curated: int
    rejected: int
    paid: Usage
    spent: Usage
    failures: dict[str, int]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "out": str(self.out),
            "ended": None if self.ended is None else str(self.ended),
            "totals": self.totals,
            "curated": self.curated,
            "set_aside": self.rejected,
            "paid": self.paid._asdict(),
            "spent": self.spent._asdict(),
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Job:
    """What is to be done in a folder.

    Attributes:
        out: the run's folder.
        source, rows: the input, and how many traces it holds.
        documents: also write each document to a file of its own.
        connect: makes the client.
    """

    out: Path
    endpoint: EndpointConfig
    config: CurationConfig
    source: str
    rows: int
    budget: BudgetConfig = BudgetConfig()  # noqa: RUF009  (frozen)
    documents: bool = False
    connect: Callable[[EndpointConfig, Store, Budget], Client] = Client

    def start(
        self,
        traces: Callable[[], Iterable[Trace]],
        *,
        fresh: bool = False,
        faults: Sequence[Fault] = (),
        curate: CurateRow | None = None,
        on_start: OnStart | None = None,
    ) -> Result:
        """Begin the folder's run, or resume one that was stopped or killed.

        Args:
            traces: opens the input.
            fresh: restart even if the folder holds a run; its stored completions are kept.
            faults: rows of the input that could not be read, listed in a file.
            curate: what is done with each row; by default `curator.curate`.

        Raises:
            RunError: the folder or the run in it does not fit.
            StoreError: the store cannot be used, or another run uses it.
            DataError: an output cannot be written.
            DiskError: the disk is full; completions so far are stored.
        """
        began = time.monotonic()
        output.prepare(self.out)
        with writing(self.out), closing(Store(self.out / output.STORE)) as store:
            description = self.describe()
            if fresh:
                output.clear(self.out)
            manifest.check(self.out, description)
            manifest.write(self.out, description)
            (self.out / FAULTS).unlink(missing_ok=True)
            if faults:
                write_faults(faults, self.out / FAULTS)
            budget = Budget(self.budget, store.usage())
            with closing(self.open_outcomes()) as outcomes:
                client = self.connect(self.endpoint, store, budget)
                row = partial(curate_trace, config=self.config) if curate is None else curate
                ended = asyncio.run(self._rows(traces(), row, client, outcomes, on_start))
            totals = None
            if ended is None or isinstance(ended, BudgetError):
                expected = self.expected()
                totals = output.finish(self.out, description, self.config, self.budget, expected, documents=self.documents)
            counts = (outcomes.statuses[CURATED], outcomes.statuses[REJECTED])
            seconds = time.monotonic() - began
            result = Result(self.out, ended, totals, *counts, client.paid, budget.spent, dict(client.failures), seconds)
            self._log(result)
        return result

    def describe(self) -> dict[str, Any]:
        """What the manifest says about the run when it begins."""
        return manifest.create(self.config, self.endpoint, self.source, self.rows)

    def open_outcomes(self) -> Outcomes:
        """The file of outcomes, with those of earlier starts."""
        return Outcomes(self.out / OUTCOMES)

    def expected(self) -> Expected:
        """What the outputs say besides what is in the outcomes."""
        return Expected(self.rows)

    async def work(
        self, traces: Iterable[Trace], curate: CurateRow, client: Client, outcomes: Outcomes
    ) -> CurationError | None:
        """Work on the rows that are not done yet; returns what ended it early."""
        return await run(traces, curate, client, outcomes, dialect=self.config.tags)

    async def _rows(
        self, traces: Iterable[Trace], curate: CurateRow, client: Client, outcomes: Outcomes, on_start: OnStart | None
    ) -> CurationError | None:
        async with client:
            if on_start is not None:
                on_start(client, outcomes)
            with _signals(client):
                try:
                    return await self.work(traces, curate, client, outcomes)
                except asyncio.CancelledError:
                    return StoppedError("interrupted; calls in flight were abandoned: start again to continue")

    def _log(self, result: Result) -> None:
        """Append a line for this start to the only file that holds times."""
        line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "endpoint": self.endpoint.address, **result.as_json()}
        with (self.out / output.RUNS).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


@contextmanager
def _signals(client: Client) -> Iterator[None]:
    """SIGINT and SIGTERM stop the client; a second one cancels the calls in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if client.limiter.stopped is not None:
            task.cancel()
        client.stop(StoppedError("interrupted; completions are stored: start again to continue"))

    handled = []
    with suppress(NotImplementedError):  # on event loops without signals, Ctrl-C ends the run as a kill does
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
