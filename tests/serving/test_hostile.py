"""Misbehaving, broken and malicious clients: each gets the documented response, and the server is unaffected."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="the extra [serve] is not installed")

import httpx
import uvicorn

from multiverse.serving.config import ServerConfig
from multiverse.serving.server import connection_class, listen
from tests.cli.scripted import scripted_llm
from tests.serving.conftest import Site, error_of, serving

KEY = "open-sesame"
LIMIT = 100_000
LONG = "word " * 300
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def site(model_folders: dict[str, Path]) -> Iterator[Site]:
    """A server with a key and short time-outs, whose model generates endlessly."""
    llm = scripted_llm(model_folders["qwen3"], lambda prompt: LONG if "long" in prompt else "short")
    options: dict[str, Any] = {"header_timeout": 2.0, "body_timeout": 2.0, "max_concurrent": 2, "max_queue": 1}
    with serving(llm, api_keys=(KEY,), max_body_bytes=LIMIT, **options) as site:
        site.client.headers["authorization"] = f"Bearer {KEY}"
        yield site


@pytest.fixture(autouse=True)
def nothing_is_left_behind(site: Site) -> Iterator[None]:
    """After each of them the server has forgotten it, and still answers."""
    yield
    wait_until(lambda: idle(site))
    assert site.chat("hello").json()["choices"][0]["message"]["content"] == "short"
    # A client has its answer before the server has counted it as over.
    wait_until(lambda: site.service.admission.held == 0)


def idle(site: Site) -> bool:
    stats = site.service.stats()
    return not any(stats["requests"].values()) and stats["kv_slots"]["owned"] == 0


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def connect(site: Site) -> socket.socket:
    host, _, port = site.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read_all(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of what the server says until it closes the connection."""
    said = b""
    while part := connection.recv(65536):
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if said else 0, body


def send(site: Site, raw: bytes) -> tuple[int, bytes]:
    """Send bytes, and read what is said until the connection is closed."""
    with connect(site) as connection:
        connection.sendall(raw)
        return read_all(connection)


def post(body: bytes, *headers: str) -> bytes:
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", "content-type: application/json", f"authorization: Bearer {KEY}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


# -- authentication ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/get_server_info", "/openapi.json", "/nothing"])
def test_without_a_key(site: Site, path: str) -> None:
    error = error_of(httpx.get(site.url + path), 401)
    assert (error["type"], error["code"]) == ("authentication_error", "missing_api_key")


def test_with_a_wrong_key(site: Site) -> None:
    answer = httpx.post(site.url + CHAT, json=question("hello"), headers={"authorization": "Bearer sesame"})
    assert error_of(answer, 401)["code"] == "invalid_api_key"


def test_without_a_key_the_body_is_not_read(site: Site) -> None:
    answer = httpx.post(site.url + CHAT, content=b"x" * (3 * LIMIT))
    assert error_of(answer, 401)["code"] == "missing_api_key"


def test_health_and_page_are_open(site: Site) -> None:
    for path in ("/health", "/ready"):
        assert httpx.get(site.url + path).json() == {"status": "ok"}
    page = httpx.get(site.url + "/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


# -- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/../../errors.py",
        "/static/%2e%2e/settings.py",
        "/static/%2e%2e%2fsettings.py",
        "/static/..%2fsettings.py",
        "/static/..%5csettings.py",
        "/static/..\\settings.py",
        "/static/....//settings.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/%00",
        "/static/" + "../" * 20 + "etc/passwd",
        "/static/" + "%2e%2e%2f" * 20 + "etc%2fpasswd",
        "/static/" + "a" * 5000,
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/",
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_path_traversal_is_refused(site: Site, path: str, known: bool) -> None:
    key = f"authorization: Bearer {KEY}\r\n" if known else ""
    status, body = send(site, f"GET {path} HTTP/1.1\r\nhost: x\r\n{key}connection: close\r\n\r\n".encode())
    assert status in (400, 401, 404, 405), body
    assert json.loads(body)["error"]["message"]
    assert b"class ServerConfig" not in body
    assert b"root:" not in body


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "PUT", "BREW"])
def test_methods_that_are_not_allowed(site: Site, method: str) -> None:
    head = f"{method} /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
    status, body = send(site, head.encode())
    assert status in (400, 405)
    assert json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\n\r\n",  # no host
        b"GET /health HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nbig: " + b"x" * 40_000,
        post(b"{}", "content-length: -1"),
        post(b"{}", "content-length: 2", "content-length: 3"),
        post(b"xx\r\n", "transfer-encoding: chunked"),
        post(b"{}", "transfer-encoding: gzip"),
    ],
)
def test_data_that_is_not_http(site: Site, raw: bytes) -> None:
    status, body = send(site, raw)
    assert 400 <= status < 500 or (status, raw[:1]) == (501, b"P"), body
    assert json.loads(body)["error"]["message"]


def test_an_upgrade_to_a_websocket_is_just_a_request(site: Site) -> None:
    raw = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: upgrade, close\r\n"
    status, _ = send(site, f"{raw}upgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n".encode())
    assert status == 200


# -- bodies ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1e999}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": NaN}',
        b"[" * 90_000,
        b'{"messages":' * 7_000,
        b'{"a' + b"a" * 90_000 + b'": 1}',
        b'{"max_tokens": ' + b"9" * 90_000 + b"}",
    ],
)
def test_invalid_bodies(site: Site, body: bytes) -> None:
    error = error_of(site.client.post(CHAT, content=body, headers={"content-type": "application/json"}))
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 1000


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_that_are_too_large(site: Site, declared: bool) -> None:
    body = b"x" * (20 * LIMIT)
    content = body if declared else iter([body[at : at + LIMIT] for at in range(0, len(body), LIMIT)])
    error = error_of(site.client.post(CHAT, content=content), 413)
    assert str(LIMIT) in error["message"]


def test_a_large_body_that_is_only_announced(site: Site) -> None:
    with connect(site) as connection:
        connection.sendall(post(b"", f"content-length: {LIMIT + 1}", "expect: 100-continue"))
        status, body = read_all(connection)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "request_too_large"


def test_ten_thousand_stop_strings(site: Site) -> None:
    error = error_of(site.chat("hello", stop=[f"s{n}" for n in range(10_000)]))
    assert error["param"] == "stop"


def test_a_prompt_that_is_far_too_long(site: Site) -> None:
    assert error_of(site.chat("x" * (LIMIT - 1000)))["type"] == "invalid_request_error"


# -- time-outs -------------------------------------------------------------------------------------------------------


def test_the_head_has_to_come_in_time(site: Site) -> None:
    with connect(site) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")
        status, body = read_all(connection)
    assert status == 408
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_header_timeout_is_not_restarted_by_each_byte(site: Site) -> None:
    with connect(site) as connection:
        for byte in b"GET /health HTTP/1.1\r\nx: " + b"y" * 10_000:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                return
            time.sleep(0.005)
    pytest.fail("it would have gone on for ever")


def test_header_timeout_holds_for_later_requests_of_a_connection(site: Site) -> None:
    with connect(site) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /hea")
        assert read_all(connection)[0] == 408


def test_a_connection_without_a_request_gets_no_answer(site: Site) -> None:
    with connect(site) as connection:
        assert read_all(connection) == (0, b"")


def test_the_body_has_to_come_in_time(site: Site) -> None:
    with connect(site) as connection:
        connection.sendall(post(b'{"messages"', "content-length: 1000"))
        status, body = read_all(connection)
    assert status == 408
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_fifty_idle_connections_block_no_request(site: Site) -> None:
    waiting = [connect(site) for _ in range(50)]
    try:
        for connection in waiting:
            connection.sendall(b"GET / HT")
        assert site.chat("hello").status_code == 200
    finally:
        for connection in waiting:
            connection.close()


def test_a_client_that_does_not_read_is_disconnected() -> None:
    """A flood for a client that reads nothing of it."""
    ended = threading.Event()

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    config = ServerConfig(port=0, write_timeout=0.2)
    own = listen(config)
    server = uvicorn.Server(uvicorn.Config(flood, http=connection_class(config), ws="none", lifespan="off", log_config=None))
    ready: Queue[None] = Queue()

    async def serve() -> None:
        await server.serve(sockets=[own])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        address = own.getsockname()
        wait_until(lambda: server.started)
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert ended.wait(20)
    finally:
        server.should_exit = True
        thread.join()
    assert ready.empty()


# -- disconnects and overload ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"stream": True}, {"stream": True, "multiverse": {"branches": True}}, {}, {"n": 2}])
def test_a_client_that_disconnects_aborts_its_generation(site: Site, fields: dict[str, Any]) -> None:
    body = json.dumps(question("a long story", **fields)).encode()
    with connect(site) as connection:
        connection.sendall(post(body, f"content-length: {len(body)}"))
        wait_until(lambda: site.service.stats()["requests"]["running"] == fields.get("n", 1))
    tokens = "multiverse:generation_tokens_total"
    labels = {"model_name": site.service.model_name}
    wait_until(lambda: idle(site))
    written = site.service.metrics.registry.get_sample_value(tokens, labels)
    assert site.service.metrics.registry.get_sample_value(tokens, labels) == written


def test_requests_beyond_the_limits_are_refused(site: Site) -> None:
    release = site.service.admission.admit(3)  # as many as may run and wait
    try:
        for stream in (False, True):
            answer = site.chat("hello", stream=stream)
            error = error_of(answer, 429)
            assert (error["type"], error["code"]) == ("rate_limit_error", "server_full")
            assert int(answer.headers["retry-after"]) >= 1
        assert site.client.get("/health").status_code == 200
        assert site.client.get("/v1/models").status_code == 200
    finally:
        release()
    assert error_of(site.chat("hello", n=4))["param"] == "n"
