"""Work on all rows of an input concurrently, and write their outcomes in the order of the input.

Memory is bounded by two windows: the rows in work, and finished rows that wait for an earlier one.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..errors import ExtraError
from ..structure import MULTIVERSE, Dialect
from .client import Client
from .errors import CurationError, RefusedError
from .outcomes import INTERNAL_ERROR, REFUSED, Outcomes, record, writable
from .types import Ask, Completion, Outcome, Rejected, Request, Trace, Usage

CurateRow = Callable[[Trace, Ask], Awaitable[Outcome]]
"""What is done with each row."""

_IN_WORK = 2
"""Rows in work for each call that may be in flight: a row does not always wait for a call."""

_WAITING = 16
"""Finished rows that may wait for an earlier one, for each row in work."""


class _RowClient:
    """The `Ask` of one row; counts its requests and tokens."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.usage, self.stage = Usage(), ""
        self.attempts: Counter[str] = Counter()

    async def __call__(self, request: Request) -> Completion:
        self.stage = request.stage
        self.attempts[request.stage] += 1
        completion = await self._ask(request)
        self.usage = self.usage.plus(completion)
        return completion


async def run(
    traces: Iterable[Trace], curate: CurateRow, client: Client, outcomes: Outcomes, *, dialect: Dialect = MULTIVERSE
) -> CurationError | None:
    """Work on the rows that are not done yet, and write their outcomes.

    Returns:
        What ended the run early, if anything did: an endpoint that fails, a spent budget, `Client.stop`. Rows in work have
        then gone as far as stored completions and calls in flight took them.

    Raises:
        RunError: a row that is done already differs from the input.
        ExtraError: a library is not installed.
    """
    most = _IN_WORK * client.config.concurrency
    source = enumerate(traces)
    working: set[asyncio.Task[dict[str, Any]]] = set()
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
                    working.add(asyncio.create_task(work_on(number, trace, curate, client.ask, dialect)))
            if not working:
                break
            finished, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                error = task.exception()
                if error is None:
                    found = task.result()
                    outcomes.count(found)
                    waiting[found["row"]] = found
                elif isinstance(error, CurationError):
                    ended = ended or error
                    client.stop(error)
                else:
                    raise error
            ended = ended or client.limiter.stopped
            while next_row in waiting:
                outcomes.write(waiting.pop(next_row))
                next_row += 1
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    # Rows behind one that was not reached are used in the outputs, and dropped when the run is resumed.
    for number in sorted(waiting):
        outcomes.write(waiting[number])
    return ended


async def work_on(number: int, trace: Trace, curate: CurateRow, ask: Ask, dialect: Dialect) -> dict[str, Any]:
    """The line of a row: what `curate` makes of it, or why it is rejected."""
    client = _RowClient(ask)
    try:
        outcome = writable(await curate(trace, client), dialect)
    except RefusedError as error:
        outcome = Rejected(trace, client.stage, REFUSED, str(error), dict(client.attempts))
    except (CurationError, ExtraError):
        raise
    except Exception as error:  # a bug that one row triggers must not end the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        outcome = Rejected(trace, client.stage, INTERNAL_ERROR, detail, dict(client.attempts))
    return record(number, outcome, client.usage, dialect)
