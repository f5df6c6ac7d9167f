"""No process that a benchmark has started outlives it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multiverse.bench.processes import started

ROOT = Path(__file__).parents[2]
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
DIRECT = f"""
import subprocess, sys, time
from multiverse.bench.processes import started
with started([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.PIPE) as own:
    own.stdout.readline()
    print(own.pid, flush=True)
    time.sleep(600)
"""
# What ends waits for threads that ask the process.
THREADS = f"""
import subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from multiverse.bench.processes import started
with started([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.PIPE) as own, ThreadPoolExecutor(2) as pool:
    own.stdout.readline()
    print(own.pid, flush=True)
    list(pool.map(lambda _: own.wait(), range(2)))
"""
# A benchmark whose runs are processes, with one of their own and with processes that keep cores busy.
NESTED = f"""
import sys
from benchmarks import busy_core
from multiverse.bench.processes import started
with busy_core._busy(1), started([sys.executable, "-c", {DIRECT!r}]) as run:
    run.wait()
"""
# A server of another engine, of which only the program is another one.
SERVER = f"""
import sys, time
from pathlib import Path
from benchmarks.others import servers
servers._program = lambda _: Path(sys.executable)
servers.convert = lambda *_, **__: None
servers._llama = lambda *_: [sys.executable, "-c", {SLEEP!r}]
servers._wait = lambda process, *_: found.append(process.pid)
servers._version = lambda _: ""
found = []
with servers.serve("llama", Path("model")):
    print(*found, flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """Processes that it has started, and that these have."""
    own = [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [other for number in own for other in children(number)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("program", [DIRECT, THREADS, NESTED, SERVER], ids=["direct", "threads", "nested", "server"])
def test_a_benchmark_that_is_ended_ends_what_it_has_started(program: str, number: signal.Signals) -> None:
    # In the background of a shell the signal of Ctrl-C is ignored, under nohup SIGHUP, and children inherit that.
    default = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    )
    command = [sys.executable, "-c", default + program]
    below: list[int] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL) as own:
        try:
            assert own.stdout is not None
            started_pid = int(own.stdout.readline())
            below = children(own.pid)
            assert started_pid in below
            assert len(below) == (3 if program is NESTED else 1)
            os.kill(own.pid, number)
            assert own.wait(20) == (-signal.SIGINT if number is signal.SIGINT else 128 + number)
        except BaseException:
            for pid in below:
                os.kill(pid, signal.SIGKILL)
            raise
        finally:
            own.kill()
    end = time.monotonic() + 10
    while any(map(alive, below)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(alive, below))


def test_a_process_ends_with_its_block_and_signals_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with started([sys.executable, "-c", SLEEP], stdout=subprocess.PIPE) as own:
        assert own.stdout is not None
        own.stdout.readline()
        os.kill(own.pid, signal.SIGSTOP)  # as workers are between two measurements
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert own.poll() == -signal.SIGTERM
    assert own.stdout.closed
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
