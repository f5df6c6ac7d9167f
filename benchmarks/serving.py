"""A server under load from a second process: two hundred clients for two minutes, a burst beyond its bounds, and its end.

Of the clients some are slow, a fifth leaves in the middle, some send nonsense. Nobody else may get an error, every slot has to
come back, and memory has to stay flat. Then come more requests at once than the server takes, which has to say so without
delay; and SIGTERM while it works, on which it has to finish what it has begun.

    python -m benchmarks.serving                              # two minutes
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
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

from benchmarks.clients import CHAT, Connection, Crowd, HttpError, events
from benchmarks.machine import describe

# Flat: the last quarter of the run may hold so much more memory than the second one.
GROWTH = 0.02
CONCURRENT, QUEUE = 256, 256
GRACE = 60


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

    async def watch(self, every: float) -> None:
        """Write its memory down until cancelled."""
        began = time.monotonic()
        while True:
            self.memory.append((round(time.monotonic() - began, 1), round(self.resident_mib(), 1)))
            await asyncio.sleep(every)

    async def info(self) -> dict[str, Any]:
        """What it says about itself."""
        async with Connection(self.address) as connection:
            answer = await connection.ask("GET", "/get_server_info")
            return cast("dict[str, Any]", await answer.json())

    async def settled(self) -> dict[str, Any]:
        """What it says once nobody is left in it."""
        for _ in range(600):
            info = await self.info()
            if not info["requests"]["admitted"] and not info["kv_slots"]["owned"]:
                return info
            await asyncio.sleep(0.1)
        return info


async def load(server: Server, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """The crowd."""
    warm = Crowd(server.address, seed + 1)
    await warm.run(clients, min(10.0, seconds / 4))
    crowd = Crowd(server.address, seed)
    watch = asyncio.create_task(server.watch(max(0.2, seconds / 120)))
    began = time.monotonic()
    await crowd.run(clients, seconds)
    took = time.monotonic() - began
    watch.cancel()
    info = await server.settled()
    tally = crowd.tally
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "ended_as_they_should": dict(tally.counts),
        "errors": dict(tally.errors + warm.tally.errors),
        "requests_per_second": round(sum(tally.counts.values()) / took, 1),
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

    async def one() -> None:
        try:
            async with Connection(server.address) as connection:
                began = time.monotonic()
                answer = await connection.ask("POST", CHAT, crowd.body())
                answers[answer.status] += 1
                if answer.status == 200:
                    async for _ in events(answer):
                        pass
                    return
                refused.append(time.monotonic() - began)
                if int(answer.headers["retry-after"]) < 1 or "error" not in await answer.json():
                    raise HttpError("a refusal without a reason or a time")
        except (HttpError, OSError, asyncio.IncompleteReadError) as error:
            problems[f"{type(error).__name__}: {error}"[:200]] += 1

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

    tasks = [asyncio.create_task(one()) for _ in range(clients)]
    for _ in tasks:
        await begun.acquire()
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    await asyncio.gather(*(late() for _ in range(10)))
    await asyncio.gather(*tasks)
    code = await asyncio.to_thread(server.process.wait, GRACE + 30)
    return {"clients": clients, "outcomes": dict(outcomes), "exit_code": code, "seconds": round(time.monotonic() - began, 1)}


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
    for phase in ("load", "burst"):
        found += [f"{phase}: {count} times {what}" for what, count in report[phase]["errors"].items()]
        found += [f"{phase}: {count} {what} left over" for what, count in report[phase]["left_over"].items() if count]
    if report["load"]["memory_growth"] > GROWTH:
        found.append(f"memory grew by {report['load']['memory_growth']:.1%}; at most {GROWTH:.0%} counts as flat")
    answers, asked = report["burst"]["answers"], report["burst"]["requests"]
    if asked > CONCURRENT + QUEUE and "429" not in answers:
        found.append("nobody was refused")
    if set(answers) - {"200", "429"}:
        found.append(f"the burst was answered with {answers}")
    ended = report["end"]
    if ended["outcomes"].get("finished") != ended["clients"] or ended["outcomes"].get("late: 503") != 10 or ended["exit_code"]:
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
    for phase, values in report.items():
        print(f"{phase}: {values}" if isinstance(values, str) else phase)
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
