"""`multiverse serve` as a process: options, refusals, shutdown."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="the extra [serve] is not installed")

import httpx

from multiverse.cli import main
from multiverse.cli.loading import ModelOptions
from multiverse.cli.serve import announce
from multiverse.errors import RequestError
from multiverse.serving import server
from multiverse.serving.app import create_app
from multiverse.serving.config import ScaleConfig, ServerConfig
from multiverse.serving.service import Service
from tests.cli.scripted import scripted_llm
from tests.serving.conftest import error_of

Serve = Callable[..., tuple[int, str]]
WAIT = 120.0


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Serve]:
    """Call the command; it serves nothing, but keeps what it would have served (`serve.settings`, `serve.model`)."""
    monkeypatch.delenv("MULTIVERSE_API_KEY", raising=False)
    kept: dict[str, Any] = {}

    def keep(config: ServerConfig, model: ModelOptions, scale: ScaleConfig | None, _upstream_key: str | None) -> None:
        kept.update(config=config, model=model, scale=scale)

    monkeypatch.setattr(importlib.import_module("multiverse.cli.serve"), "_serve", keep)

    def run(*args: str) -> tuple[int, str]:
        kept.clear()
        capsys.readouterr()
        code = main(["serve", *args])
        return code, capsys.readouterr().err

    run.kept = kept  # type: ignore[attr-defined]
    yield run
    quiet()


def quiet() -> None:
    for name in ("multiverse.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)


# -- the command -------------------------------------------------------------------------------------------------------------


def test_options_reach_the_server(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# for the web shop\none\n\n two \n")
    monkeypatch.setenv("MULTIVERSE_API_KEY", "three four")
    code, err = serve("--api-key-file", str(keys), "--port", "1", "--kv-memory", "0.5", "--cors-origin", "*", "--mode", "as-is")
    assert (code, err) == (0, "")
    kept = serve.kept  # type: ignore[attr-defined]
    assert kept["config"] == ServerConfig(port=1, api_keys=("three", "four", "one", "two"), cors_origins=("*",), mode="as-is")
    assert kept["model"] == ModelOptions(kv_memory=0.5)
    assert kept["scale"] is None


def test_replicas(serve: Serve) -> None:
    assert serve("--replicas", "2", "--tensor-parallel", "3") == (0, "")
    kept = serve.kept  # type: ignore[attr-defined]
    assert kept["scale"] == ScaleConfig(replicas=2)
    assert kept["model"].tensor_parallel == 3
    assert serve("--replicas", "1", "--max-replicas", "4", "--target-requests", "8", "--downscale-delay", "60") == (0, "")
    assert kept["scale"] == ScaleConfig(replicas=1, max_replicas=4, target_requests=8.0, downscale_delay=60.0)


def test_every_setting_has_an_option(serve: Serve) -> None:
    numbers = ["--max-body-bytes", "--max-prompt-tokens", "--default-max-tokens", "--max-tokens-limit", "--max-concurrent"]
    numbers += ["--max-queue", "--request-timeout", "--header-timeout", "--body-timeout", "--write-timeout", "--drain-grace"]
    options = [part for option in numbers for part in (option, "7")]
    code, _ = serve(*options, "--host", "::1", "--port", "7", "--root-path", "/7", "--served-model-name", "7")
    assert code == 0
    config = serve.kept["config"]  # type: ignore[attr-defined]
    default = ServerConfig()
    # What is not a number: keys, origins and the mode are seen to above; budgets have no option.
    same = {name for name in vars(config) if getattr(config, name) == getattr(default, name)}
    assert same == {"api_keys", "mode", "cors_origins", "reasoning_budgets"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com"])
def test_other_hosts_need_a_key(serve: Serve, host: str) -> None:
    code, err = serve("--host", host)
    assert code == 2
    assert host in err
    assert "MULTIVERSE_API_KEY" in err
    assert "--insecure" in err
    assert not serve.kept  # type: ignore[attr-defined]
    code, err = serve("--host", host, "--api-key", "sesame")
    assert (code, err) == (0, "")


def test_insecure_hosts_are_served_with_a_warning(serve: Serve) -> None:
    code, err = serve("--host", "0.0.0.0", "--insecure")
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["level"] for line in lines} == {"warning"}
    assert any("WITHOUT A KEY" in line["event"] and "0.0.0.0" in line["event"] for line in lines)
    assert len(lines) == 3
    assert serve("--insecure") == (0, "")  # on the loopback interface there is no warning


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--port", "70000"), "--port 70000"),
        (("--port", "many"), "--port"),
        (("--kv-memory", "0"), "--kv-memory 0"),
        (("--max-queue", "-1"), "--max-queue -1"),
        (("--mode", "both"), "--mode"),
        (("--api-key-file", "/nowhere"), "/nowhere"),
        (("--api-key", "two words"), "an API key is not valid"),
        (("--cors-origin", "example.com"), "--cors-origin 'example.com'"),
        (("--log-level", "loud"), "--log-level"),
        (("--max-replicas", "2"), "--max-replicas is for replicas"),
    ],
)
def test_invalid_options_are_refused(serve: Serve, args: tuple[str, ...], told: str) -> None:
    code, err = serve(*args)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1


def test_an_empty_key_file_is_refused(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# none yet\n")
    code, err = serve("--api-key-file", str(keys))
    assert code == 2
    assert "holds no key" in err


@pytest.mark.parametrize(
    ("listens", "opens"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("http://0.0.0.0:80", "http://127.0.0.1:80/"),
        ("http://[::]:80", "http://[::1]:80/"),
    ],
)
def test_the_page_s_address_is_one_that_a_browser_can_open(
    listens: str, opens: str, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(listens)
    assert capsys.readouterr().out == f"the page: {opens}\n"


def test_an_address_in_use() -> None:
    with server.listen(ServerConfig(port=0)) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot listen at 127.0.0.1 port {port}"):
            server.listen(ServerConfig(port=port))
    with pytest.raises(RequestError, match=r"cannot listen at nowhere\.invalid"):
        server.listen(ServerConfig(host="nowhere.invalid"))


# -- shutdown -----------------------------------------------------------------------------------------------------------------


class Process:
    """`multiverse serve` with the embedded model."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.log, self.out = folder / "log", folder / "out"
        args = [sys.executable, "-m", "multiverse", "serve", "--port", "0", "--kv-memory", "0.05", *options]
        with self.log.open("wb") as log, self.out.open("wb") as out:
            self.process = subprocess.Popen(args, stdout=out, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.url = self.wait_for("ready")["url"]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def wait_for(self, event: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["event"] == event:
                    return line
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        pytest.fail(f"{event!r} never came: {self.log.read_text()}")

    def ask(self, **fields: Any) -> Iterator[str]:
        """A streamed answer, as lines."""
        question = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it. What is the total?"
        body = {"messages": [{"role": "user", "content": question}], "stream": True, "temperature": 0, **fields}
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=WAIT) as answer:
            assert answer.status_code == 200
            yield from answer.iter_lines()


@contextmanager
def process(folder: Path, *options: str) -> Iterator[Process]:
    started = Process(folder, *options)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_sigterm_finishes_running_requests_and_refuses_new_ones(tmp_path: Path) -> None:
    with process(tmp_path, "--drain-grace", "1000", "--log-level", "debug") as own:
        # The first runs long enough for all that follows.
        answers = [own.ask(ignore_eos=True, max_tokens=300), *(own.ask() for _ in range(3))]
        begun = [next(lines) for lines in answers]
        assert own.out.read_text() == f"the page: {own.url}/\n"
        own.process.send_signal(signal.SIGTERM)
        own.wait_for("draining")
        late = httpx.post(f"{own.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "hello"}]})
        assert error_of(late, 503)["code"] == "shutting_down"
        assert int(late.headers["retry-after"]) >= 1
        assert late.headers["connection"] == "close"
        assert httpx.get(f"{own.url}/ready").status_code == 503
        assert httpx.get(f"{own.url}/health").status_code == 200
        for first, lines in zip(begun, answers, strict=True):
            said = [line for line in (first, *lines) if line]
            assert said[-1] == "data: [DONE]"
            assert not any('"error"' in line for line in said)
            assert any('"finish_reason":"' in line for line in said)
        assert own.process.wait(WAIT) == 0
        assert [line["admitted"] for line in own.lines() if line["event"] == "drained"] == [0]


class Inside(NamedTuple):
    """A server in this process, on a thread: signals do not come there, but what they do can be done."""

    url: str
    own: server.Server
    thread: threading.Thread

    def signal(self) -> None:
        assert self.own._loop is not None
        self.own._loop.call_soon_threadsafe(self.own.leave, "a test")

    def ask(self) -> Iterator[str]:
        """A long answer, as lines."""
        body = {"messages": [{"role": "user", "content": "go on"}], "stream": True}
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=WAIT) as answer:
            assert answer.status_code == 200
            yield from (line for line in answer.iter_lines() if line)


@pytest.fixture
def inside(model_folders: dict[str, Path]) -> Iterator[Callable[..., Inside]]:
    """Start servers that go on for long."""
    started: list[Inside] = []

    def start(**options: Any) -> Inside:
        config = ServerConfig(port=0, **options)
        llm = scripted_llm(model_folders["qwen3"], lambda _: "word " * 350)
        ready: Queue[str] = Queue()
        service = Service(llm, config)
        own = server.make_server(service, create_app(service), ready.put)
        thread = threading.Thread(target=own.run, kwargs={"sockets": [server.listen(config)]})
        thread.start()
        started.append(Inside(ready.get(timeout=WAIT), own, thread))
        return started[-1]

    yield start
    for one in started:
        one.own.should_exit = one.own.force_exit = True
        one.thread.join(WAIT)
        assert not one.thread.is_alive()


def test_after_the_grace_streams_end_with_an_error(inside: Callable[..., Inside]) -> None:
    running = inside(drain_grace=0)
    lines = running.ask()
    next(lines)
    running.signal()
    said = list(lines)
    errors = [json.loads(line.removeprefix("data: "))["error"] for line in said if '"error"' in line]
    assert [error["code"] for error in errors] == ["shutting_down"]
    assert said[-1] == "data: [DONE]"
    running.thread.join(WAIT)
    assert not running.thread.is_alive()


def test_a_second_signal_ends_it_at_once(inside: Callable[..., Inside]) -> None:
    running = inside(drain_grace=1000.0)
    lines = running.ask()
    next(lines)
    running.signal()
    running.signal()
    with pytest.raises(httpx.RemoteProtocolError):
        list(lines)
    running.thread.join(WAIT)
    assert not running.thread.is_alive()


def test_addresses() -> None:
    assert server._url(("::1", 8000, 0, 0), False) == "http://[::1]:8000"
    assert server._url(("127.0.0.1", 8000), True) == "https://127.0.0.1:8000"
