"""Overhead of curation: calls a second against an endpoint that answers at once, and memory over ten thousand rows.

The endpoint runs in a process of its own, on this machine; with `--delay` it takes so long over every answer, as a model does.
Two figures say who bounds whom: calls a second with no delay is what the client can do; with a delay, the share of the calls
that the endpoint could have answered at this concurrency.

    python -m benchmarks.curation                      # ten thousand rows
    python -m benchmarks.curation --rows 500 --delay 0.2 --concurrency 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

from multiverse.curation.client import Client
from multiverse.curation.config import CurationConfig, EndpointConfig
from multiverse.curation.job import Job, Result
from multiverse.curation.outcomes import Outcomes
from tests.curation import endpoint as served
from tests.curation.fake import Planted, answer, curate, traces

# Flat: the last quarter of the rows may hold so much more memory than the second one.
GROWTH = 0.02


def resident_mib() -> float:
    """Memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Slow(served.Endpoint):
    """Takes its time over every answer."""

    delay = 0.0

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(self.delay)
        return await super()._one(reader, writer)


def serve(delay: float, pipe: Connection) -> None:
    """Serve the fake task until the pipe says so."""
    up = Slow(answer, Planted())
    up.delay = delay
    with served.serving(up):
        pipe.send(up.url)
        pipe.recv()


class Watch:
    """Writes the memory of this process down while a run goes on, with the rows that were done by then.

    Attributes:
        seen: rows and MiB.
        began, ended: when the first row was begun and the last one was done; outputs are written behind that.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.seen: list[tuple[int, float]] = []
        self.began = self.ended = 0.0
        self._outcomes: Outcomes | None = None
        self._end = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __call__(self, client: Client, outcomes: Outcomes) -> None:  # noqa: ARG002
        self._outcomes, self.began = outcomes, time.monotonic()
        self._thread.start()

    def _look(self) -> None:
        assert self._outcomes is not None
        while not self._end.wait(0.05):
            self.seen.append((sum(self._outcomes.statuses.values()), resident_mib()))
            if self.seen[-1][0] < self.rows:
                self.ended = time.monotonic()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that the endpoint takes over an answer")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(options.delay, theirs), daemon=True)
    process.start()
    url = ours.recv()
    watch = Watch(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        endpoint = EndpointConfig(url, "fake", concurrency=options.concurrency)
        job = Job(Path(folder) / "out", endpoint, CurationConfig(), "rows.jsonl", options.rows)
        result = job.start(lambda: traces(options.rows), curate=curate, on_start=watch)
        watch.stop()
    ours.send(None)
    process.join()
    assert result.ended is None, result.ended
    assert result.curated == options.rows
    report = figures(watch, options, result)
    for name, value in report.items():
        print(f"{name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report) + "\n")
    if report["memory_growth"] > GROWTH:
        sys.exit(f"memory grew by {report['memory_growth']:.1%} between the second and the last quarter of the rows")


def figures(watch: Watch, options: argparse.Namespace, result: Result) -> dict[str, Any]:
    """What was measured."""
    seen, calls, seconds = watch.seen, result.paid.calls, watch.ended - watch.began
    working = [(rows, mib) for rows, mib in seen if 0 < rows < options.rows]
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
        "memory_peak_mib": round(max((mib for _, mib in seen), default=0.0), 1),
        "memory_growth": median(late) / median(early) - 1 if early and late else 0.0,
    }
    if options.delay:
        report["share_of_the_endpoint"] = round(calls * options.delay / options.concurrency / seconds, 3)
    return report


if __name__ == "__main__":
    main()
