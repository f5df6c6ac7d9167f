"""A server under load from a second process: two hundred clients for two minutes, a burst beyond its bounds, and its end.

Of the clients some are slow, a fifth leaves in the middle, some send nonsense. Nobody else may get an error, every slot has to
come back, and memory has to stay flat. Then come more requests at once than the server takes, which has to say so without
delay; and SIGTERM while it works, on which it has to finish what it has begun.

What it is doing is told on standard error every ten seconds, and every phase has a time in which it has to be over.

    python -m benchmarks.serving                              # two minutes of load, some five in all
    python -m benchmarks.serving --seconds 10 --clients 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

from benchmarks.clients import CHAT, Connection, Crowd, HttpError, Tally, events
from benchmarks.machine import describe

# Flat: the last quarter of the run may hold so much more memory than the second one.
GROWTH = 0.02
CONCURRENT, QUEUE = 256, 256
GRACE = 60
# Seconds: to fill the memory for keys and values once before anything is measured; for clients to finish what they have begun
# when the time is up; for a burst to be answered.
WARM, DRAIN, BURST = 90, 180, 240
# Of an answer in the burst, which is about who is let in.
BURST_TOKENS = 50
TELL = 10.0


class Server:
    """`multiverse serve` in a process of its own."""

    def __init__(self, folder: Path, kv_gib: float) -> None:
        self.log = folder / "server.log"
        options = ["--port", "0", "--kv-memory", str(kv_gib), "--log-format", "json", "--drain-grace", str(GRACE)]
        options += ["--max-concurrent", str(CONCURRENT), "--max-queue", str(QUEUE)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "multiverse", "serve", *options], stderr=log)
        self.address = self._wait()
        self.memory: list[tuple[float, float]] = []

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log about such an event."""
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

    def resident_mib(self) -> float:
        """Memory of the process, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    async def watch(self, every: float, seconds: float) -> None:
        """Write its memory down for so long."""
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            self.memory.append((round(now, 1), round(self.resident_mib(), 1)))
            await asyncio.sleep(min(every, seconds - now))

    async def info(self) -> dict[str, Any]:
        """What it says about itself."""
        async with Connection(self.address) as connection:
            answer = await connection.ask("GET", "/get_server_info")
            return cast("dict[str, Any]", await answer.json())

    async def written(self) -> int:
        """Tokens that it has generated since its start."""
        async with Connection(self.address) as connection:
            answer = await connection.ask("GET", "/metrics")
            lines = b"".join([part async for part in answer.parts]).decode().splitlines()
        return int(float(next(line for line in lines if line.startswith("multiverse:generation_tokens_total")).split()[-1]))

    async def settled(self) -> dict[str, Any]:
        """What it says once nobody is left in it."""
        for _ in range(600):
            info = await self.info()
            if not info["requests"]["admitted"] and not info["kv_slots"]["owned"]:
                return info
            await asyncio.sleep(0.1)
        return info


def say(text: str) -> None:
    """What is going on, for whoever waits."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


@asynccontextmanager
async def phase(name: str, limit: float, how_far: Callable[[], str], problems: Counter[str]) -> AsyncIterator[None]:
    """Tell how far a phase is, and end it when its time is up, which is a problem."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(TELL)
            say(f"{name}: {how_far()}")

    began = time.monotonic()
    say(f"{name}: begins")
    telling = asyncio.create_task(tell())
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        problems[f"{name} was not over after {limit:g} s: {how_far()}"] += 1
    finally:
        telling.cancel()
    say(f"{name}: over after {time.monotonic() - began:.1f} s; {how_far()}")


async def load(server: Server, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """The crowd: before anything is measured, until memory for keys and values is full; then for so many seconds."""
    crowd = Crowd(server.address, seed)
    problems: Counter[str] = Counter()

    def how_far() -> str:
        ended, errors = sum(crowd.tally.counts.values()), sum(crowd.tally.errors.values())
        return f"{crowd.open} clients, {ended} ended as they should, {errors} errors, {server.resident_mib():.0f} MiB"

    running = asyncio.create_task(crowd.run(clients))
    async with phase("warm-up", WARM + DRAIN, how_far, problems):
        until = time.monotonic() + min(WARM, seconds)
        slots = (await server.info())["kv_slots"]
        while slots["free"] > slots["size"] / 50 and time.monotonic() < until:
            await asyncio.sleep(1)
            slots = (await server.info())["kv_slots"]
    problems += crowd.tally.errors
    crowd.tally = Tally()
    written, began = await server.written(), time.monotonic()
    async with phase("load", seconds + TELL, how_far, problems):
        await server.watch(max(0.2, seconds / 120), seconds)
    took, tally, written = time.monotonic() - began, crowd.tally, await server.written() - written
    crowd.tally = Tally()
    crowd.stop()
    async with phase("last answers", DRAIN, how_far, problems):
        await running
    info = await server.settled()
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "ended_as_they_should": dict(tally.counts),
        "errors": dict(problems + tally.errors + crowd.tally.errors),
        "requests_per_second": round(sum(tally.counts.values()) / took, 1),
        "tokens_per_second": round(written / took),
        "first_token_ms": _spread(tally.first_token),
        "between_tokens_ms": _spread(tally.between_tokens),
        "whole_answer_ms": _spread(tally.whole),
        "left_over": {**info["requests"], "slots": info["kv_slots"]["owned"]},
        **_flatness(server.memory),
    }


async def burst(server: Server, count: int) -> dict[str, Any]:
    """More requests at the same moment than the server takes."""
    crowd = Crowd(server.address, 3)
    answers: Counter[int] = Counter()
    refused: list[float] = []
    problems: Counter[str] = Counter()
    finished = 0

    async def one() -> None:
        nonlocal finished
        try:
            async with Connection(server.address) as connection:
                began = time.monotonic()
                answer = await connection.ask("POST", CHAT, crowd.body(max_tokens=BURST_TOKENS))
                answers[answer.status] += 1
                if answer.status == 200:
                    async for _ in events(answer):
                        pass
                    finished += 1
                    return
                refused.append(time.monotonic() - began)
                if int(answer.headers["retry-after"]) < 1 or "error" not in await answer.json():
                    raise HttpError("a refusal without a reason or a time")
        except (HttpError, OSError, asyncio.IncompleteReadError) as error:
            problems[f"{type(error).__name__}: {error}"[:200]] += 1

    def how_far() -> str:
        return f"{answers[200]} let in, {len(refused)} refused, {finished} finished"

    async with phase("burst", BURST, how_far, problems):
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
    """SIGTERM while so many clients are in the middle of their answers."""
    crowd = Crowd(server.address, 4)
    begun = asyncio.Semaphore(0)
    outcomes: Counter[str] = Counter()

    async def one() -> None:
        try:
            async with Connection(server.address) as connection:
                first = True
                async for _ in events(await connection.ask("POST", CHAT, crowd.body())):
                    if first:
                        begun.release()
                        first = False
            outcomes["finished"] += 1
        except (HttpError, OSError, asyncio.IncompleteReadError) as error:
            outcomes[f"{type(error).__name__}: {error}"[:200]] += 1

    async def late() -> None:
        try:
            async with Connection(server.address) as connection:
                answer = await connection.ask("POST", CHAT, crowd.body())
                outcomes[f"late: {answer.status}"] += 1
        except (HttpError, OSError) as error:
            outcomes[f"late: {type(error).__name__}"] += 1

    problems: Counter[str] = Counter()
    began, code = time.monotonic(), None
    async with phase("end", 2 * GRACE, lambda: f"{dict(outcomes)}", problems):
        tasks = [asyncio.create_task(one()) for _ in range(clients)]
        for _ in tasks:
            await begun.acquire()
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
    """What is not as it should be."""
    found = []
    for name in ("load", "burst", "end"):
        found += [f"{name}: {count} times {what}" for what, count in report[name]["errors"].items()]
    for name in ("load", "burst"):
        found += [f"{name}: {count} {what} left over" for what, count in report[name]["left_over"].items() if count]
    if report["load"]["memory_growth"] > GROWTH:
        found.append(f"memory grew by {report['load']['memory_growth']:.1%}; at most {GROWTH:.0%} counts as flat")
    answers, asked = report["burst"]["answers"], report["burst"]["requests"]
    if asked > CONCURRENT + QUEUE and "429" not in answers:
        found.append("nobody was refused")
    if set(answers) - {"200", "429"}:
        found.append(f"the burst was answered with {answers}")
    ended = report["end"]
    if (
        ended["outcomes"].get("finished") != ended["clients"]
        or ended["outcomes"].get("late: 503") != 10
        or ended["exit_code"] != 0
    ):
        found.append(f"the end was not orderly: {ended}")
    return found


async def measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """All three phases."""
    return {
        "machine": f"{describe()}; clients on the same cores, load average {os.getloadavg()[0]:.1f} before",
        "load": await load(server, options.clients, options.seconds, options.seed),
        "burst": await burst(server, options.burst),
        "end": await end(server, min(50, options.clients)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--burst", type=int, default=800, help="requests sent at once")
    parser.add_argument(
        "--kv-memory", type=float, default=0.125, help="GiB; small, so that it is full before memory is measured"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), options.kv_memory)
        try:
            report = asyncio.run(measure(server, options))
        finally:
            if server.process.poll() is None:
                server.process.kill()
        trouble = server.lines("unexpected error")
    for part, values in report.items():
        print(f"{part}: {values}" if isinstance(values, str) else part)
        if isinstance(values, dict):
            for name, value in values.items():
                if name != "memory_mib":
                    print(f"  {name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report) + "\n")
    found = faults(report) + [line["traceback"] for line in trouble[:3]]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
