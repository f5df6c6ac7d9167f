"""All rows of an input, many at once, written in the order of the input.

What is in memory at a time is bounded: rows that are worked on, and rows that are done but wait for one before them.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from ..errors import ExtraError
from ..structure import MULTIVERSE, Dialect
from .client import Client
from .errors import CurationError, RefusedError
from .outcomes import OURS, REFUSED, Outcomes, record, writable
from .store import Usage
from .types import Ask, Completion, Outcome, Rejected, Request, Trace

Curate = Callable[[Trace, Ask], Awaitable[Outcome]]
"""What is done to each row."""

_WORKED_ON = 2
"""Rows that are worked on at once, for each call that may be in flight: a row is not always waiting for one."""

_WAITING = 16
"""Rows that may wait for one before them, for each that is worked on."""


class _Meter:
    """A row's way to the model; knows what it took."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.usage, self.stage = Usage(), ""
        self.attempts: Counter[str] = Counter()

    async def __call__(self, request: Request) -> Completion:
        self.stage = request.stage
        self.attempts[request.stage] += 1
        answer = await self._ask(request)
        self.usage = self.usage.plus(answer)
        return answer


class _Done(NamedTuple):
    number: int
    record: dict[str, Any]


async def run(
    traces: Iterable[Trace], curate: Curate, client: Client, outcomes: Outcomes, *, dialect: Dialect = MULTIVERSE
) -> CurationError | None:
    """Work through the rows that are not done yet, and write their outcomes.

    Returns:
        What ended the run before its end, if anything did: an endpoint that fails, a budget that is spent, `Client.stop`.
        Rows that were worked on have then come to their end as far as stored answers and calls in flight took them.

    Raises:
        RunError: a row that is done already was another one then.
        ExtraError: a library is not installed.
    """
    most = _WORKED_ON * client.endpoint.concurrency
    source = enumerate(traces)
    working: set[asyncio.Task[_Done]] = set()
    waiting: dict[int, dict[str, Any]] = {}
    next_row, more = outcomes.done, True
    ended: CurationError | None = None
    try:
        while True:
            while more and ended is None and len(working) < most and len(waiting) < _WAITING * most:
                number, trace = next(source, (0, None))
                if trace is None:
                    more = False
                elif number < outcomes.done:
                    outcomes.check(number, trace)
                else:
                    working.add(asyncio.create_task(_row(number, trace, curate, client.ask, dialect)))
            if not working:
                break
            finished, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                error = task.exception()
                if error is None:
                    number, found = task.result()
                    outcomes.count(found)
                    waiting[number] = found
                elif isinstance(error, CurationError):
                    ended = ended or error
                    client.stop(error)
                else:
                    raise error
            ended = ended or client.gate.stopped
            while next_row in waiting:
                outcomes.write(waiting.pop(next_row))
                next_row += 1
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    # Behind a row that was not reached: good for the outputs, dropped when the run goes on.
    for number in sorted(waiting):
        outcomes.write(waiting[number])
    return ended


async def _row(number: int, trace: Trace, curate: Curate, ask: Ask, dialect: Dialect) -> _Done:
    meter = _Meter(ask)
    try:
        outcome = writable(await curate(trace, meter), dialect)
    except RefusedError as error:
        outcome = Rejected(trace, meter.stage, REFUSED, str(error), dict(meter.attempts))
    except (CurationError, ExtraError):
        raise
    except Exception as error:  # a mistake of ours in one row must not take the others with it
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        outcome = Rejected(trace, meter.stage, OURS, detail, dict(meter.attempts))
    return _Done(number, record(number, outcome, meter.usage, dialect))
