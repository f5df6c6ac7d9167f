"""Load test of a server from a second process: many clients for two minutes, a burst beyond its limits, and SIGTERM.

Some of the clients read slowly, a fifth disconnects early, some send malformed requests. No other client may get an error,
every slot must be released, and memory must stay flat. In the burst more requests arrive at once than the server admits; the
others must be refused without delay. After SIGTERM the server must finish all requests that it has started.

Progress is printed to standard error every ten seconds, and every phase has a time limit.

    python -m benchmarks.serving                              # two minutes of load, some five in all
    python -m benchmarks.serving --seconds 10 --clients 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

from benchmarks.clients import FAILURES, Clients, ResponseError, Tally, events, open_client
from benchmarks.machine import MAX_GROWTH, describe, resident_mib
from benchmarks.options import make_parser
from multiverse.bench.processes import started

CONCURRENT, QUEUE = 256, 256
GRACE = 60
# Most seconds in which the KV cache fills before anything is measured, the clients finish, and the burst is answered.
WARM, DRAIN, BURST = 90, 180, 240
# Of a response in the burst, which tests admission.
BURST_TOKENS = 50
REPORT_SECONDS = 10.0


class Server:
    """`multiverse serve` in a process of its own, which ends with the stack."""

    def __init__(self, folder: Path, kv_gib: float, stack: ExitStack) -> None:
        self.log = folder / "server.log"
        options = ["--port", "0", "--kv-memory", str(kv_gib), "--log-format", "json", "--drain-grace", str(GRACE)]
        options += ["--max-concurrent", str(CONCURRENT), "--max-queue", str(QUEUE)]
        command = [sys.executable, "-m", "multiverse", "serve", *options]
        with self.log.open("wb") as log:
            self.process = stack.enter_context(started(command, stderr=log))
        self.address = self._wait()
        self.http = open_client(self.address)
        self.memory: list[tuple[float, float]] = []

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of this event."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                fields = json.loads(line)
                if fields["event"] == event:
                    found.append(fields)
        return found

    def _wait(self) -> tuple[str, int]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if ready := self.lines("ready"):
                host, _, port = ready[0]["url"].removeprefix("http://").rpartition(":")
                return host, int(port)
            time.sleep(0.1)
        sys.exit(f"the server did not start:\n{self.log.read_text()}")

    async def watch(self, every: float, seconds: float) -> None:
        """Record its memory every few seconds, for this time."""
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            self.memory.append((round(now, 1), round(resident_mib(self.process.pid), 1)))
            await asyncio.sleep(min(every, seconds - now))

    async def info(self) -> dict[str, Any]:
        """Its ``/get_server_info``."""
        return cast("dict[str, Any]", (await self.http.get("/get_server_info")).json())

    async def generated_tokens(self) -> int:
        """Tokens that it has generated since its start."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        return int(float(next(line for line in lines if line.startswith("multiverse:generation_tokens_total")).split()[-1]))

    async def settled(self) -> dict[str, Any]:
        """Its information once it holds no request and no slot, or after a minute."""
        for _ in range(600):
            info = await self.info()
            if not info["requests"]["admitted"] and not info["kv_slots"]["owned"]:
                return info
            await asyncio.sleep(0.1)
        return info


def log(text: str) -> None:
    """Print progress to standard error."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


@asynccontextmanager
async def phase(name: str, limit: float, progress: Callable[[], str], problems: Counter[str]) -> AsyncIterator[None]:
    """Print the progress of a phase, and end it at its time limit, which counts as a problem."""

    async def report() -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            log(f"{name}: {progress()}")

    began = time.monotonic()
    log(f"{name}: started")
    reporting = asyncio.create_task(report())
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        problems[f"{name} did not end within {limit:g} s: {progress()}"] += 1
    finally:
        reporting.cancel()
    log(f"{name}: ended after {time.monotonic() - began:.1f} s; {progress()}")


async def load(server: Server, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """Clients of all kinds: first unmeasured, until the KV cache is full; then for `seconds`."""
    traffic = Clients(server.address, seed)
    problems: Counter[str] = Counter()

    def progress() -> str:
        ended, errors = sum(traffic.tally.counts.values()), sum(traffic.tally.errors.values())
        return f"{traffic.open} clients, {ended} as expected, {errors} errors, {resident_mib(server.process.pid):.0f} MiB"

    running = asyncio.create_task(traffic.run(clients))
    async with phase("warm-up", WARM + DRAIN, progress, problems):
        until = time.monotonic() + min(WARM, seconds)
        slots = (await server.info())["kv_slots"]
        while slots["free"] > slots["size"] / 50 and time.monotonic() < until:
            await asyncio.sleep(1)
            slots = (await server.info())["kv_slots"]
    problems += traffic.tally.errors
    traffic.tally = Tally()
    generated, began = await server.generated_tokens(), time.monotonic()
    async with phase("load", seconds + REPORT_SECONDS, progress, problems):
        await server.watch(max(0.2, seconds / 120), seconds)
    took, tally, generated = time.monotonic() - began, traffic.tally, await server.generated_tokens() - generated
    traffic.tally = Tally()
    traffic.stop()
    async with phase("last responses", DRAIN, progress, problems):
        await running
    info = await server.settled()
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "ended_as_they_should": dict(tally.counts),
        "errors": dict(problems + tally.errors + traffic.tally.errors),
        "requests_per_second": round(sum(tally.counts.values()) / took, 1),
        "tokens_per_second": round(generated / took),
        "first_token_ms": _spread(tally.first_token),
        "between_tokens_ms": _spread(tally.between_tokens),
        "whole_answer_ms": _spread(tally.whole),
        "left_over": {**info["requests"], "slots": info["kv_slots"]["owned"]},
        **_flatness(server.memory),
    }


async def burst(server: Server, count: int) -> dict[str, Any]:
    """More requests at once than the server admits."""
    traffic = Clients(server.address, 3)
    answers: Counter[int] = Counter()
    refused: list[float] = []
    problems: Counter[str] = Counter()
    finished = 0

    async def one() -> None:
        nonlocal finished
        try:
            began = time.monotonic()
            async with traffic.chat(traffic.body(max_tokens=BURST_TOKENS)) as response:
                answers[response.status_code] += 1
                if response.status_code == 200:
                    async for _ in events(response):
                        pass
                    finished += 1
                    return
                refused.append(time.monotonic() - began)
                if int(response.headers["retry-after"]) < 1 or b'"error"' not in await response.aread():
                    raise ResponseError("a refusal without an error or a retry-after header")
        except FAILURES as error:
            problems[f"{type(error).__name__}: {error}"[:200]] += 1

    def progress() -> str:
        return f"{answers[200]} admitted, {len(refused)} refused, {finished} finished"

    async with phase("burst", BURST, progress, problems):
        await asyncio.gather(*(one() for _ in range(count)))
    info = await server.settled()
    return {
        "requests": count,
        "answers": {str(status): number for status, number in sorted(answers.items())},
        "refused_after_ms": _spread(refused),
        "errors": dict(problems),
        "left_over": {**info["requests"], "slots": info["kv_slots"]["owned"]},
    }


async def end(server: Server, clients: int) -> dict[str, Any]:
    """SIGTERM while this number of clients read their responses."""
    traffic = Clients(server.address, 4)
    started = asyncio.Semaphore(0)
    outcomes: Counter[str] = Counter()

    async def one() -> None:
        try:
            async with traffic.chat(traffic.body()) as response:
                first = True
                async for _ in events(response):
                    if first:
                        started.release()
                        first = False
            outcomes["finished"] += 1
        except FAILURES as error:
            outcomes[f"{type(error).__name__}: {error}"[:200]] += 1

    async def late() -> None:
        try:
            async with traffic.chat(traffic.body()) as response:
                outcomes[f"late: {response.status_code}"] += 1
        except FAILURES as error:
            outcomes[f"late: {type(error).__name__}"] += 1

    problems: Counter[str] = Counter()
    began, code = time.monotonic(), None
    async with phase("end", 2 * GRACE, lambda: f"{dict(outcomes)}", problems):
        tasks = [asyncio.create_task(one()) for _ in range(clients)]
        for _ in tasks:
            await started.acquire()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        await asyncio.gather(*(late() for _ in range(10)))
        await asyncio.gather(*tasks)
        while (code := server.process.poll()) is None:
            await asyncio.sleep(0.1)
    return {
        "clients": clients,
        "outcomes": dict(outcomes),
        "errors": dict(problems),
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = quantiles(seconds, n=100)
    return {"p50": round(1000 * cuts[49], 1), "p99": round(1000 * cuts[98], 1), "count": len(seconds)}


def _flatness(memory: list[tuple[float, float]]) -> dict[str, Any]:
    quarter = len(memory) // 4
    early = median(mib for _, mib in memory[quarter : 2 * quarter])
    late = median(mib for _, mib in memory[-quarter:])
    return {
        "memory_mib_second_quarter": early,
        "memory_mib_last_quarter": late,
        "memory_growth": round(late / early - 1, 4),
        "memory_mib": memory,
    }


def faults(report: dict[str, Any]) -> list[str]:
    """Descriptions of everything in the report that must not be."""
    found = []
    for name in ("load", "burst", "end"):
        found += [f"{name}: {count} times {what}" for what, count in report[name]["errors"].items()]
    for name in ("load", "burst"):
        found += [f"{name}: {count} {what} left over" for what, count in report[name]["left_over"].items() if count]
    if report["load"]["memory_growth"] > MAX_GROWTH:
        found.append(f"memory grew by {report['load']['memory_growth']:.1%}; at most {MAX_GROWTH:.0%} counts as flat")
    answers, asked = report["burst"]["answers"], report["burst"]["requests"]
    if asked > CONCURRENT + QUEUE and "429" not in answers:
        found.append("no request of the burst was refused")
    if set(answers) - {"200", "429"}:
        found.append(f"the burst got {answers}")
    ended = report["end"]
    if (
        ended["outcomes"].get("finished") != ended["clients"]
        or ended["outcomes"].get("late: 503") != 10
        or ended["exit_code"] != 0
    ):
        found.append(f"not all requests finished after SIGTERM: {ended}")
    return found


async def measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Run all three phases."""
    return {
        "machine": f"{describe()}; clients on the same cores, load average {os.getloadavg()[0]:.1f} before",
        "load": await load(server, options.clients, options.seconds, options.seed),
        "burst": await burst(server, options.burst),
        "end": await end(server, min(50, options.clients)),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of measured load")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--burst", type=int, default=800, help="requests sent at once")
    parser.add_argument(
        "--kv-memory", type=float, default=0.125, help="GiB; small, so that it is full before memory is measured"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = Server(Path(folder), options.kv_memory, stack)
        report = asyncio.run(measure(server, options))
        unexpected = server.lines("unexpected error")
    for part, values in report.items():
        print(f"{part}: {values}" if isinstance(values, str) else part)
        if isinstance(values, dict):
            for name, value in values.items():
                if name != "memory_mib":
                    print(f"  {name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report) + "\n")
    found = faults(report) + [line["traceback"] for line in unexpected[:3]]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
