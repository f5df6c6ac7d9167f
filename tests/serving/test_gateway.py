"""The gateway in front of scripted replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from multiverse.errors import ConfigError
from multiverse.serving.config import ScaleConfig, ServerConfig
from multiverse.serving.gateway import Gateway, PoolFullError, ReplicaLostError, Report, merge_metrics
from multiverse.serving.service import model_name

Say = list[dict[str, Any]]


def start(content_type: str = "application/json", status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type.encode())]}


def part(text: str, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}


class Replicas:
    """A pool that plays scripts, one a request: batches of messages, errors, and things to wait for."""

    def __init__(self, *scripts: list[Say | Exception | Awaitable[Any]]) -> None:
        self.scripts = list(scripts)
        self.asked: list[tuple[dict[str, Any], bytes]] = []
        self.left = 0
        self.ended = False
        self.reports = {"a": Report({"x": 1}, "# TYPE up gauge\nup 1\n", 7)}

    async def answer(self, scope: dict[str, Any], content: bytes) -> AsyncIterator[Any]:
        self.asked.append((scope, content))
        script = self.scripts.pop(0)
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, list):
                    yield step
                else:
                    await step
        except asyncio.CancelledError:
            self.left += 1
            raise

    async def replicas(self) -> dict[str, Report]:
        return self.reports

    async def close(self) -> None:
        self.ended = True


class Client:
    """A client of an application, which may disconnect."""

    def __init__(self, path: str = "/v1/chat/completions", method: str = "POST", **headers: str) -> None:
        names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"type": "http", "method": method, "path": path, "root_path": "", "query_string": b"", "headers": names}
        self.gone = asyncio.Event()
        self.got: list[dict[str, Any]] = []
        self.told = asyncio.Event()
        self._read = False

    async def receive(self) -> dict[str, Any]:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": b'{"a": 1}', "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.got.append(message)
        self.told.set()

    async def ask(self, gateway: Gateway) -> Client:
        await gateway.app()(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.got[0]["headers"])

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.got).decode()

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.text)["error"]
        return error


def gateway(pool: Replicas, limit: int = 9, **options: Any) -> Gateway:
    return Gateway(pool, ServerConfig(**options), "tiny", limit)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_request_goes_to_a_replica_whole_and_its_answer_comes_back() -> None:
    async def main() -> None:
        pool = Replicas([[start()], [part('{"b": ', more=True), part("2}", more=False)]])
        client = await Client(x_request_id="mine", authorization="Bearer k1", accept="x").ask(gateway(pool, api_keys=("k1",)))
        assert (client.status, client.text) == (200, '{"b": 2}')
        assert client.headers[b"x-request-id"] == b"mine"
        ((scope, content),) = pool.asked
        assert content == b'{"a": 1}'
        assert (scope["method"], scope["path"]) == ("POST", "/v1/chat/completions")
        # The key stays here.
        assert dict(scope["headers"]) == {b"accept": b"x", b"x-request-id": b"mine"}

    run(main)


def test_a_stream_is_passed_on_as_it_comes() -> None:
    async def main() -> None:
        hold = asyncio.Event()
        pool = Replicas([[start("text/event-stream"), part("data: 1\n\n")], hold.wait(), [part("data: 2\n\n", more=False)]])
        client = Client()
        asking = asyncio.create_task(client.ask(gateway(pool)))
        while len(client.got) < 2:
            await asyncio.sleep(0)
        assert client.text == "data: 1\n\n"
        hold.set()
        await asking
        assert client.text == "data: 1\n\ndata: 2\n\n"

    run(main)


@pytest.mark.parametrize("begun", [False, True])
def test_unanswered_requests_go_to_another_replica(begun: bool) -> None:
    async def main() -> None:
        # A response that is not a stream is sent when it is complete, so it can be repeated after a replica has died.
        first = [[start(), part('{"half": ')]] if begun else []
        pool = Replicas([*first, ReplicaLostError("died")], [[start(), part("{}", more=False)]])
        client = await Client().ask(gateway(pool))
        assert (client.status, client.text, len(pool.asked)) == (200, "{}", 2)

    run(main)


def test_a_request_that_kills_replicas_is_given_up() -> None:
    async def main() -> None:
        pool = Replicas(*([ReplicaLostError("died")] for _ in range(9)))
        client = await Client().ask(gateway(pool))
        assert (client.status, client.error["code"], client.headers[b"retry-after"]) == (503, "replica_lost", b"1")
        assert client.error["type"] == "server_error"
        assert len(pool.asked) == 3

    run(main)


@pytest.mark.parametrize("end", [ReplicaLostError("died"), None])
def test_a_stream_whose_replica_dies_ends_with_an_error(end: Exception | None) -> None:
    async def main() -> None:
        script: list[Any] = [[start("text/event-stream"), part("data: 1\n\n")]]
        pool = Replicas([*script, end] if end is not None else script, [[start(), part("never", more=False)]])
        client = await Client().ask(gateway(pool))
        lines = [line for line in client.text.splitlines() if line]
        assert (lines[0], lines[-1]) == ("data: 1", "data: [DONE]")
        assert json.loads(lines[1].removeprefix("data: "))["error"]["code"] == "replica_lost"
        assert client.got[-1]["more_body"] is False
        assert len(pool.asked) == 1

    run(main)


def test_overload_is_refused_at_once() -> None:
    async def main() -> None:
        hold = asyncio.Event()
        pool = Replicas([hold.wait(), [start(), part("{}", more=False)]], [PoolFullError()])
        door = gateway(pool, limit=1)
        first = Client()
        asking = asyncio.create_task(first.ask(door))
        while not pool.asked:
            await asyncio.sleep(0)
        second = await Client().ask(door)
        assert (second.status, second.error["type"], second.headers[b"retry-after"]) == (429, "rate_limit_error", b"1")
        hold.set()
        await asking
        assert first.status == 200
        third = await Client().ask(door)
        assert (third.status, third.error["code"]) == (429, "server_full")

    run(main)


def test_a_client_that_disconnects_cancels_its_request() -> None:
    async def main() -> None:
        pool = Replicas([[start("text/event-stream"), part("data: 1\n\n")], asyncio.Event().wait()])
        client, door = Client(), gateway(pool)
        asking = asyncio.create_task(client.ask(door))
        await client.told.wait()
        client.gone.set()
        await asking
        assert pool.left == 1
        assert await door.admission.drain(1)

    run(main)


def test_draining_finishes_running_requests_and_refuses_new_ones() -> None:
    async def main() -> None:
        hold = asyncio.Event()
        pool = Replicas([hold.wait(), [start(), part("{}", more=False)]])
        client, door = Client(), gateway(pool)
        asking = asyncio.create_task(client.ask(door))
        while not pool.asked:
            await asyncio.sleep(0)
        assert not await door.admission.drain(0)
        late = await Client().ask(door)
        assert (late.status, late.error["code"]) == (503, "shutting_down")
        assert (await Client("/ready", "GET").ask(door)).status == 503
        assert (await Client("/health", "GET").ask(door)).status == 200
        hold.set()
        assert await door.admission.drain(10)
        await asking
        assert client.status == 200
        await door.close()
        assert pool.ended

    run(main)


def test_requests_cut_off_after_the_grace_get_an_error() -> None:
    async def main() -> None:
        pool = Replicas([[start("text/event-stream"), part("data: 1\n\n")], asyncio.Event().wait()], [asyncio.Event().wait()])
        streamed, whole, door = Client(), Client(), gateway(pool)
        asking = asyncio.gather(streamed.ask(door), whole.ask(door))
        while len(pool.asked) < 2 or not streamed.got:
            await asyncio.sleep(0)
        await door.close()
        await asking
        assert '"shutting_down"' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert (whole.status, whole.error["code"]) == (503, "shutting_down")
        assert (pool.left, pool.ended) == (2, True)

    run(main)


def test_responses_of_the_gateway_itself() -> None:
    async def main() -> None:
        pool = Replicas()
        door = gateway(pool, api_keys=("k1",), cors_origins=("https://example.com",))
        assert (await Client("/ready", "GET").ask(door)).status == 200
        assert (await Client("/metrics", "GET").ask(door)).status == 401
        metrics = await Client("/metrics", "GET", authorization="Bearer k1").ask(door)
        assert 'up{replica="a"} 1' in metrics.text
        assert 'replica="gateway"' in metrics.text
        info = json.loads((await Client("/get_server_info", "GET", authorization="Bearer k1").ask(door)).text)
        assert info["replicas"] == {"a": {"pid": 7, "x": 1}}
        assert info["settings"]["api_keys"] == 1
        assert "k1" not in json.dumps(info)
        pool.reports = {}
        refused = await Client("/ready", "GET", origin="https://example.com").ask(door)
        assert (refused.status, refused.error["code"]) == (503, "not_ready")
        assert refused.headers[b"access-control-allow-origin"] == b"https://example.com"

    run(main)


def test_metrics_of_several_sources_become_one_text() -> None:
    one = '# HELP a A.\n# TYPE a counter\na_total{m="x"} 1.0\na_total{} 2.0\n# HELP b B.\n# TYPE b gauge\nb 3.0\n'
    two = '# HELP a A.\n# TYPE a counter\na_total{m="x"} 4.0\n'
    assert merge_metrics({"r1": one, "r2": two}).splitlines() == [
        "# HELP a A.",
        "# TYPE a counter",
        'a_total{replica="r1",m="x"} 1.0',
        'a_total{replica="r1"} 2.0',
        'a_total{replica="r2",m="x"} 4.0',
        "# HELP b B.",
        "# TYPE b gauge",
        'b{replica="r1"} 3.0',
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"replicas": 0}, "replicas=0"),
        ({"replicas": 3, "max_replicas": 2}, r"max_replicas=2 is not valid: it must be at least replicas \(3\)"),
        ({"target_requests": 0}, "target_requests=0"),
        ({"downscale_delay": -1}, "downscale_delay=-1"),
    ],
)
def test_invalid_scales_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ScaleConfig(**options)


def test_a_model_is_called_as_the_plain_server_calls_it(tmp_path: Any) -> None:
    assert model_name(None) == "multiverse-mini"
    assert model_name(str(tmp_path)) == tmp_path.name
    assert model_name("somebody/something") == "somebody/something"
