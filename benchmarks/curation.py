"""Overhead of curation: calls per second against an endpoint that responds at once, and memory over ten thousand rows.

The endpoint runs in its own process on this machine; with `--delay` it waits before every response, as a model does. Calls per
second without a delay are the limit of the client; with a delay, `share_of_the_endpoint` is the share of the calls that the
endpoint could have served at this concurrency.

    python -m benchmarks.curation                      # ten thousand rows
    python -m benchmarks.curation --rows 500 --delay 0.2 --concurrency 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

from benchmarks.machine import MAX_GROWTH, resident_mib
from benchmarks.options import make_parser
from multiverse.curation.client import Client
from multiverse.curation.config import CurationConfig, EndpointConfig
from multiverse.curation.job import Job, Result
from multiverse.curation.outcomes import Outcomes
from tests.curation import endpoint as served
from tests.curation.fake import Planted, answer, curate, traces


class SlowEndpoint(served.Endpoint):
    """Waits before every response."""

    delay = 0.0

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(self.delay)
        return await super()._one(reader, writer)


def serve(delay: float, pipe: Connection) -> None:
    """Serve the fake task until the pipe receives something."""
    endpoint = SlowEndpoint(answer, Planted())
    endpoint.delay = delay
    with served.serving(endpoint):
        pipe.send(endpoint.url)
        pipe.recv()


class MemoryLog:
    """Records the memory of this process during a run, with the number of finished rows.

    Attributes:
        samples: finished rows and MiB.
        began, ended: times at which the first row started and the last one finished, before outputs are written.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.samples: list[tuple[int, float]] = []
        self.began = self.ended = 0.0
        self._outcomes: Outcomes | None = None
        self._end = Event()
        self._thread = Thread(target=self._record, daemon=True)

    def __call__(self, client: Client, outcomes: Outcomes) -> None:  # noqa: ARG002
        self._outcomes, self.began = outcomes, time.monotonic()
        self._thread.start()

    def _record(self) -> None:
        assert self._outcomes is not None
        while not self._end.wait(0.05):
            self.samples.append((sum(self._outcomes.statuses.values()), resident_mib()))
            if self.samples[-1][0] < self.rows:
                self.ended = time.monotonic()

    def stop(self) -> None:
        """Stop recording."""
        self._end.set()
        self._thread.join()


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that the endpoint waits before a response")
    options = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(options.delay, theirs), daemon=True)
    process.start()
    url = ours.recv()
    log = MemoryLog(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        endpoint = EndpointConfig(url, "fake", concurrency=options.concurrency)
        job = Job(Path(folder) / "out", endpoint, CurationConfig(), "rows.jsonl", options.rows)
        result = job.start(lambda: traces(options.rows), curate=curate, on_start=log)
        log.stop()
    ours.send(None)
    process.join()
    assert result.ended is None, result.ended
    assert result.curated == options.rows
    report = figures(log, options, result)
    for name, value in report.items():
        print(f"{name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report) + "\n")
    if report["memory_growth"] > MAX_GROWTH:
        sys.exit(f"memory grew by {report['memory_growth']:.1%} between the second and the last quarter of the rows")


def figures(log: MemoryLog, options: argparse.Namespace, result: Result) -> dict[str, Any]:
    """The figures of a run."""
    samples, calls, seconds = log.samples, result.paid.calls, log.ended - log.began
    working = [(rows, mib) for rows, mib in samples if 0 < rows < options.rows]
    early = [mib for rows, mib in working if options.rows / 4 < rows <= options.rows / 2]
    late = [mib for rows, mib in working if rows > 3 * options.rows / 4]
    report = {
        "rows": options.rows,
        "concurrency": options.concurrency,
        "delay": options.delay,
        "seconds_asking": round(seconds, 2),
        "seconds_in_all": round(result.seconds, 2),
        "calls_per_second": round(calls / seconds, 1),
        "memory_mib": [round(median(early), 1), round(median(late), 1)] if early and late else [],
        "memory_peak_mib": round(max((mib for _, mib in samples), default=0.0), 1),
        "memory_growth": median(late) / median(early) - 1 if early and late else 0.0,
    }
    if options.delay:
        report["share_of_the_endpoint"] = round(calls * options.delay / options.concurrency / seconds, 3)
    return report


if __name__ == "__main__":
    main()
