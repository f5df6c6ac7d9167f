"""A run of curation in its folder, from the first look at the folder to the last file in it."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..data import FAULTS, Fault
from ..data.write import write_faults
from ..structure import Dialect
from . import manifest, output
from .budget import Budget, Prices
from .client import Client, EndpointConfig
from .config import CurationConfig
from .errors import BudgetError, CurationError, StoppedError
from .outcomes import CURATED, OUTCOMES, SET_ASIDE, Outcomes
from .run import Curate, run
from .store import Store, Usage
from .types import Ask, Trace

Watch = Callable[[Client, Outcomes], None]
"""Is shown, once, what a run's progress can be read from."""


class Caps(NamedTuple):
    """The most that a folder may take, all starts together; `None` is no limit."""

    cost: float | None = None
    tokens: int | None = None


class Result(NamedTuple):
    """What a start has come to.

    Attributes:
        ended: what ended it early.
        totals: of all outcomes, as the manifest has them; `None` if no outputs were made.
        curated, set_aside: rows so far.
        paid: answered calls of this start.
        spent: answered calls of all starts in the folder.
        failures: calls that failed in passing, by what happened.
    """

    out: Path
    ended: CurationError | None
    totals: dict[str, Any] | None
    curated: int
    set_aside: int
    paid: Usage
    spent: Usage
    failures: dict[str, int]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """All of it as plain objects."""
        told = None if self.ended is None else str(self.ended)
        usages = {"paid": self.paid._asdict(), "spent": self.spent._asdict()}
        return {**self._asdict(), "out": str(self.out), "ended": told, **usages, "seconds": round(self.seconds, 1)}


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        out: the run's folder.
        source, rows: the input, and how many traces it holds.
        validation: share of the questions to keep for validation.
        documents: whether to write each document to a file of its own, too.
        connect: makes the client.
    """

    out: Path
    endpoint: EndpointConfig
    settings: CurationConfig
    source: str
    rows: int
    validation: float = 0.05
    prices: Prices = Prices()  # noqa: RUF009
    documents: bool = False
    connect: Callable[[EndpointConfig, Store, Budget], Client] = Client

    def start(
        self,
        traces: Callable[[], Iterable[Trace]],
        *,
        caps: Caps | None = None,
        fresh: bool = False,
        faults: Sequence[Fault] = (),
        curate: Curate | None = None,
        watch: Watch | None = None,
    ) -> Result:
        """Begin, or go on where the folder's run was stopped or killed.

        Args:
            traces: opens the input.
            fresh: begin anew, even if the folder holds a run; its stored answers stay.
            faults: rows of the input that could not be read; listed in a file.
            curate: what is done to each row, if not the curation of this package.

        Raises:
            RunError: the folder or its run does not fit.
            StoreError: the stored answers cannot be used, or another run is at work here.
            DataError: an output cannot be written.
        """
        began = time.monotonic()
        output.prepare(self.out)
        with closing(Store(self.out / output.ANSWERS)) as store:
            planned = self._planned()
            if fresh:
                output.clear(self.out)
            manifest.check(self.out, planned)
            manifest.write(self.out, planned)
            (self.out / FAULTS).unlink(missing_ok=True)
            if faults:
                write_faults(faults, self.out / FAULTS)
            caps = caps if caps is not None else Caps()
            budget = Budget(self.prices, max_cost=caps.cost, max_tokens=caps.tokens, spent=store.usage())
            with closing(Outcomes(self.out / OUTCOMES)) as outcomes:
                client = self.connect(self.endpoint, store, budget)
                row = self._curate() if curate is None else curate
                ended = asyncio.run(_work(traces(), row, client, outcomes, self.settings.tags, watch))
            totals = None
            if ended is None or isinstance(ended, BudgetError):
                totals = output.finish(self.out, planned, self._finishing())
            result = Result(
                self.out,
                ended,
                totals,
                outcomes.statuses[CURATED],
                outcomes.statuses[SET_ASIDE],
                client.paid,
                budget.spent,
                dict(client.failures),
                time.monotonic() - began,
            )
            self._log(result)
        return result

    def _curate(self) -> Curate:
        from .curator import curate

        def row(trace: Trace, ask: Ask) -> Any:
            return curate(trace, ask, self.settings)

        return row

    def _planned(self) -> dict[str, Any]:
        settings = {**self.endpoint.settings, **asdict(self.settings), "validation": self.validation}
        return manifest.plan(settings, endpoint=self.endpoint.address, source=self.source, rows=self.rows)

    def _finishing(self) -> output.Finishing:
        seed = 0 if self.endpoint.seed is None else self.endpoint.seed
        return output.Finishing(self.settings.tags, self.prices, self.validation, seed, self.documents)

    def _log(self, result: Result) -> None:
        """A line for each start: the only file in which times stand."""
        line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "endpoint": self.endpoint.address, **result.as_json()}
        with (self.out / output.RUNS).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


async def _work(
    traces: Iterable[Trace], curate: Curate, client: Client, outcomes: Outcomes, dialect: Dialect, watch: Watch | None
) -> CurationError | None:
    async with client:
        if watch is not None:
            watch(client, outcomes)
        with _signals(client):
            try:
                return await run(traces, curate, client, outcomes, dialect=dialect)
            except asyncio.CancelledError:
                return StoppedError("interrupted; calls in flight were given up: start again to go on")


@contextmanager
def _signals(client: Client) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in good order; another one gives up on the calls in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if client.gate.stopped is not None:
            task.cancel()
        client.stop(StoppedError("interrupted; what was answered is stored: start again to go on"))

    taken = []
    with suppress(NotImplementedError):  # where loops know no signals, Ctrl-C ends the run as a kill does
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
