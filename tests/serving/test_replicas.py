"""Replicas under a real Ray: one of two is killed under load."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray[serve]"),
]
PATIENCE = 180.0
CLIENTS = 8


class Server(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    home: Path
    log: list[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`multiverse serve --replicas 2`, with a home folder of its own to see what is left there."""
    home = tmp_path_factory.mktemp("home")
    env = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        env.pop(name, None)
    command = [sys.executable, "-m", "multiverse", "serve", "--replicas", "2", "--port", "0", "--kv-memory", "0.25"]
    command += ["--log-format", "json", "--drain-grace", "600"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    log: list[str] = []
    found: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if '"event": "ready"' in line:
                found.append(json.loads(line)["url"])
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert ready.wait(2 * PATIENCE), "".join(log)
        assert found, "".join(log)
        yield Server(process, found[0], home, log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def get(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.url}{path}", timeout=30) as response:
        return response.read().decode()


def pids(server: Server) -> dict[str, int]:
    """Process of each replica that has been heard of lately."""
    return {name: report["pid"] for name, report in json.loads(get(server, "/get_server_info"))["replicas"].items()}


class Outcome(NamedTuple):
    replica: str | None
    begun: float
    ended: float
    error: str | None
    text: str


def stream(server: Server, tokens: int) -> Outcome:
    """One generation that goes on for so many tokens."""
    body = {"prompt": "Count.", "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": True}
    body["multiverse"] = {"max_depth": 0}
    data, begun = json.dumps(body).encode(), time.monotonic()
    headers = {"content-type": "application/json"}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(f"{server.url}/v1/completions", data, headers), timeout=PATIENCE
        )
    except HTTPError as refusal:
        with refusal:
            code = json.loads(refusal.read())["error"]["code"]
        return Outcome(None, begun, time.monotonic(), code, "")
    with response:
        text, error, done = "", None, False
        for line in response:
            if not line.startswith(b"data:"):
                continue
            value = line[5:].strip()
            if value == b"[DONE]":
                done = True
                continue
            chunk = json.loads(value)
            if "error" in chunk:
                error = chunk["error"]["code"]
            else:
                text += "".join(choice["text"] for choice in chunk["choices"])
        assert done, "the stream ended without its last line"
        return Outcome(response.headers["x-multiverse-replica"], begun, time.monotonic(), error, text)


def wait_until(true: Any) -> None:
    limit = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.2)


def test_killing_one_of_two_replicas_under_load(server: Server) -> None:
    wait_until(lambda: len(pids(server)) == 2)
    before = pids(server)
    stop = threading.Event()
    outcomes: list[Outcome] = []
    failures: list[BaseException] = []

    def client() -> None:
        try:
            while not stop.is_set():
                outcomes.append(stream(server, 300))
        except BaseException as error:
            failures.append(error)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    wait_until(lambda: {outcome.replica for outcome in outcomes} == set(before))
    victim = next(iter(before))
    os.kill(before[victim], signal.SIGKILL)
    killed = time.monotonic()
    # Capacity comes back: two replicas answer again, and the new one among them.
    wait_until(lambda: len(set(pids(server).values()) - {before[victim]}) == 2)
    back = time.monotonic()
    wait_until(lambda: {o.replica for o in outcomes if o.begun > back} - {None, victim} == set(pids(server)) - {victim})
    stop.set()
    for thread in clients:
        thread.join(PATIENCE)
    assert not failures
    lost = [outcome for outcome in outcomes if outcome.error is not None]
    # Only streams on the killed replica get an error; all others have the same text.
    assert {outcome.error for outcome in lost} <= {"replica_lost"}
    assert all(outcome.replica in (victim, None) and outcome.begun < killed for outcome in lost)
    assert 0 < len(lost) <= CLIENTS
    assert len({outcome.text for outcome in outcomes if outcome.error is None}) == 1
    assert any(outcome.replica != victim and outcome.begun < killed < outcome.ended for outcome in outcomes)
    print(f"\n{len(outcomes)} streams, {len(lost)} lost, capacity back after {back - killed:.1f} s")


def test_sigterm_finishes_running_requests(server: Server) -> None:
    outcomes: list[Outcome] = []
    clients = [threading.Thread(target=lambda: outcomes.append(stream(server, 300))) for _ in range(4)]
    for thread in clients:
        thread.start()
    wait_until(lambda: json.loads(get(server, "/get_server_info"))["requests"]["running"] >= 4)
    server.process.send_signal(signal.SIGTERM)
    for thread in clients:
        thread.join(PATIENCE)
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert server.process.wait(PATIENCE) == 0
    # Ray leaves nothing in the home folder, in particular no token.
    assert not list(server.home.rglob(".ray*"))
