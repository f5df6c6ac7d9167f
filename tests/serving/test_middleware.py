"""The middleware, driven through ASGI."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from multiverse.serving import logs
from multiverse.serving.admission import Admission
from multiverse.serving.config import ServerConfig
from multiverse.serving.errors import ApiError
from multiverse.serving.metrics import Metrics
from multiverse.serving.middleware import middleware, path_of, refuse

T = TypeVar("T")
KEY = "open-sesame"
Log = Callable[[], list[dict[str, Any]]]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Site:
    """An application with the middleware around it, and a client that can misbehave."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics("some/model")
        self.admission = Admission(256, ServerConfig(**settings), self.metrics)
        self.admission.started = True
        self.app = app = FastAPI(middleware=middleware(self.admission))
        self.cancelled: list[str] = []
        self.started = asyncio.Event()

        @app.get("/health")
        @app.get("/v1/models")
        @app.get("/static/app.js")
        async def fine() -> dict[str, str]:
            logs.note(noted="yes")
            return {"fine": "yes"}

        @app.post("/echo")
        async def echo(request: Request) -> dict[str, int]:
            return {"length": len(await request.body())}

        @app.post("/wait")
        async def wait() -> None:
            exchange = logs.current()
            assert exchange is not None
            exchange.at_end(lambda: self.cancelled.append("ended"))
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append("wait")
                raise

        @app.get("/stream")
        async def stream() -> StreamingResponse:
            async def endless() -> AsyncIterator[str]:
                try:
                    while True:
                        yield "word "
                        self.started.set()
                        await asyncio.sleep(0.001)
                finally:
                    self.cancelled.append("stream")

            return StreamingResponse(endless())

        @app.get("/broken")
        async def broken() -> None:
            raise RuntimeError("the secret is 42")

        @app.get("/torn")
        async def torn() -> StreamingResponse:
            async def some() -> AsyncIterator[str]:
                yield "word"
                raise RuntimeError("the secret is 42")

            return StreamingResponse(some())

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: Sequence[bytes] = (b"",),
        leave: asyncio.Event | None = None,
        pause: bool = False,
        root_path: str = "",
        **headers: str,
    ) -> Answer:
        """Send a request; with `leave` the client disconnects, with `pause` it never sends the end of its body."""
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in body]
        messages[-1]["more_body"] = pause
        over = asyncio.Event()
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            await (leave if leave is not None else over).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                over.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": root_path,
            "query_string": b"secret=42",
            "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("10.1.2.3", 1234),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, receive, send)
        start = sent[0] if sent else {"status": 0, "headers": []}
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 30))


def ask(path: str, settings: dict[str, Any] | None = None, **request: Any) -> Answer:
    async def main() -> Answer:
        return await Site(**settings or {}).ask(path, **request)

    return run(main())


@pytest.fixture
def log() -> Iterator[Log]:
    """What has been logged so far, line by line."""
    stream = io.StringIO()
    logs.set_up("debug", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for name in ("multiverse.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)


def test_every_answer_has_an_id_and_safe_headers(log: Log) -> None:
    answer = ask("/v1/models")
    assert answer.status == 200
    headers = answer.headers
    assert headers["x-request-id"].startswith("req-")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    (line,) = log()
    assert line["request_id"] == headers["x-request-id"]
    assert {name: line[name] for name in ("event", "level", "method", "path", "status", "client", "noted", "bytes")} == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "path": "/v1/models",
        "status": 200,
        "client": "10.1.2.3",
        "noted": "yes",
        "bytes": len(answer.body),
    }
    assert line["seconds"] >= 0
    assert "secret" not in json.dumps(line)  # queries are not logged


def test_valid_request_ids_are_adopted(log: Log) -> None:
    assert ask("/v1/models", x_request_id="my-id.1:2_3").headers["x-request-id"] == "my-id.1:2_3"
    for bad in ("two words", "", "x" * 129, 'a"b', "é", "a\r\nset-cookie: b"):
        assert ask("/v1/models", x_request_id=bad).headers["x-request-id"].startswith("req-")
    assert log()[0]["request_id"] == "my-id.1:2_3"


def test_health_checks_are_logged_at_debug(log: Log) -> None:
    ask("/health")
    assert log()[0]["level"] == "debug"


def test_without_keys_all_requests_are_accepted() -> None:
    assert ask("/v1/models").status == 200


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": ""}, "missing_api_key"),
        ({"authorization": "Bearer "}, "missing_api_key"),
        ({"authorization": KEY}, "missing_api_key"),
        ({"authorization": f"Basic {KEY}"}, "missing_api_key"),
        ({"authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"authorization": "Bearer é"}, "invalid_api_key"),
    ],
)
def test_a_missing_or_wrong_key_is_refused(header: dict[str, str], code: str, log: Log) -> None:
    answer = ask("/v1/models", {"api_keys": ("first", KEY)}, **header)
    assert answer.status == 401
    assert (answer.error["type"], answer.error["code"]) == ("authentication_error", code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert log()[0]["status"] == 401
    assert KEY not in json.dumps(log())


def test_any_of_the_keys_is_accepted_and_logged_as_a_digest(log: Log) -> None:
    settings = {"api_keys": ("first", KEY)}
    for key in ("first", KEY):
        assert ask("/v1/models", settings, authorization=f"bearer {key}").status == 200
    names = {line["key"] for line in log()}
    assert len(names) == 2
    assert not names & {"first", KEY}


def test_public_paths_need_no_key() -> None:
    settings = {"api_keys": (KEY,)}
    for path in ("/health", "/static/app.js"):
        assert ask(path, settings).status == 200
    assert ask("/", settings).status == 404  # there is no page here, but no key is required
    assert ask("/health", settings, method="POST").status == 401
    # A path is not public because a part of it looks like a public one.
    for path in ("/static/../v1/models", "/static", "//", "/health/", "/v1/models/../../health", "/metrics", "/openapi.json"):
        assert ask(path, settings).status in (401, 404), path
    assert ask("/v1/models/../../static/", settings).status == 401


def test_a_prefix_is_stripped_before_the_key_is_checked() -> None:
    settings = {"api_keys": (KEY,)}
    assert ask("/prefix/health", settings, root_path="/prefix").status == 200
    assert ask("/prefix/v1/models", settings, root_path="/prefix").status == 401
    assert path_of({"path": "/prefixed/health", "root_path": "/prefix"}) == "/prefixed/health"
    assert path_of({"path": "/prefix", "root_path": "/prefix"}) == ""


def test_bodies_within_the_limit_arrive_whole() -> None:
    answer = ask("/echo", {"max_body_bytes": 10}, method="POST", body=[b"12345", b"", b"67890"])
    assert json.loads(answer.body) == {"length": 10}


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_limit(declared: bool) -> None:
    headers = {"content_length": "11"} if declared else {}
    answer = ask("/echo", {"max_body_bytes": 10}, method="POST", body=[b"123456", b"78901", b"more"], **headers)
    assert answer.status == 413
    assert answer.error["type"] == "invalid_request_error"
    assert "10 bytes" in answer.error["message"]
    assert answer.headers["connection"] == "close"


def test_the_key_is_checked_before_the_body_is_read() -> None:
    answer = ask("/echo", {"api_keys": (KEY,), "max_body_bytes": 1}, method="POST", body=[b"much too long"])
    assert answer.status == 401


def test_a_body_that_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiverse.serving.middleware._LINGER", 0.01)
    answer = ask("/echo", {"body_timeout": 0.01}, method="POST", body=[b"{"], pause=True)
    assert answer.status == 408
    assert answer.error["code"] == "request_timeout"
    assert answer.headers["connection"] == "close"


def test_a_client_that_disconnects_cancels_its_request(log: Log) -> None:
    async def main() -> tuple[Answer, list[str]]:
        site = Site()
        return await site.ask("/wait", method="POST", leave=site.started), site.cancelled

    answer, cancelled = run(main())
    assert answer.status == 0
    assert cancelled == ["wait", "ended"]
    assert log()[0]["status"] == 499


def test_a_client_that_leaves_in_the_middle_of_a_stream(log: Log) -> None:
    async def main() -> tuple[Answer, list[str], float | None]:
        site = Site()
        answer = await site.ask("/stream", leave=site.started)
        labels = {"model_name": "some/model", "method": "GET", "status": "499"}
        return answer, site.cancelled, site.metrics.registry.get_sample_value("multiverse:http_requests_total", labels)

    answer, cancelled, counted = run(main())
    assert answer.body.startswith(b"word ")
    assert cancelled == ["stream"]
    assert log()[0]["status"] == 499
    assert counted == 1


def test_a_client_that_leaves_before_its_body_is_there(log: Log) -> None:
    async def main() -> None:
        leave = asyncio.Event()
        leave.set()
        await Site().ask("/echo", method="POST", body=[b"{"], pause=True, leave=leave)

    run(main())
    assert log()[0]["status"] == 499


def test_an_uncaught_exception_is_a_500_without_internals(log: Log) -> None:
    answer = ask("/broken")
    assert answer.status == 500
    assert answer.error["type"] == "server_error"
    assert b"42" not in answer.body
    assert answer.headers["x-request-id"]
    trouble, line = log()
    assert "the secret is 42" in trouble["traceback"]
    assert trouble["request_id"] == line["request_id"]
    assert line["status"] == 500


def test_a_failure_within_a_stream_is_logged_and_ends_it(log: Log) -> None:
    assert ask("/torn").body == b"word"
    assert "the secret is 42" in log()[0]["traceback"]


def test_connections_are_closed_while_draining() -> None:
    async def main() -> Answer:
        site = Site()
        site.admission.draining = True
        return await site.ask("/health")

    assert run(main()).headers["connection"] == "close"


def test_cors() -> None:
    settings = {"cors_origins": ("https://page.example",), "api_keys": (KEY,)}
    preflight = {"origin": "https://page.example", "access_control_request_method": "POST"}
    answer = ask("/echo", settings, method="OPTIONS", access_control_request_headers="authorization", **preflight)
    assert answer.status == 200  # a preflight cannot have a key
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    answer = ask("/v1/models", settings, origin="https://page.example")
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "https://page.example"  # so that the page can read the error
    answer = ask("/v1/models", settings, origin="https://evil.example", authorization=f"Bearer {KEY}")
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in ask("/v1/models", origin="https://page.example").headers


def test_errors_keep_their_headers() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    run(refuse(ApiError(429, "full", "rate_limit_error", headers={"retry-after": "3"}), send))
    assert (b"retry-after", b"3") in sent[0]["headers"]
    assert len(sent) == 2


def test_text_for_people() -> None:
    stream = io.StringIO()
    formatter = logs.TextFormatter()
    record = logging.LogRecord("x", logging.WARNING, "", 0, "it %s", ("happened",), None)
    record.fields = {"n": 3, "none": None}
    stream.write(formatter.format(record))
    assert stream.getvalue()[8:] == " WARNING it happened n=3"
