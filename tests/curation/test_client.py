"""The client against a local endpoint that behaves well and badly."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.budget import Budget
from multiverse.curation.client import Client, _TransientError, read_completion
from multiverse.curation.config import EndpointConfig
from multiverse.curation.errors import EndpointError, RefusedError, StoppedError
from multiverse.curation.store import Store
from multiverse.curation.types import Completion, Request
from multiverse.transport.limiter import ConcurrencyLimiter
from tests.curation import endpoint as served
from tests.curation.fake import Planted

Override = Callable[[dict[str, Any], int], served.Reply | None]


def request(row: str = "1", attempt: int = 0, text: str = "", max_tokens: int = 100) -> Request:
    return Request(row, "split", attempt, (("system", "be good"), ("user", f"stage: split\nrow: {row}\n{text}")), max_tokens)


class Ask:
    """Puts requests to an endpoint, all at once, and keeps the client."""

    def __init__(self, folder: Path, up: served.Endpoint) -> None:
        self.folder, self.up = folder, up
        self.client: Client

    def __call__(self, *requests: Request, url: str | None = None, **settings: Any) -> list[Any]:
        async def ask() -> list[Any]:
            how: dict[str, Any] = {"timeout": 5.0, "backoff": 0.001, **settings}
            endpoint = EndpointConfig(url or self.up.url, **{"model": "model", **how})
            async with Client(endpoint, store, Budget(spent=store.usage())) as self.client:
                return await asyncio.gather(*map(self.client.ask, requests), return_exceptions=True)

        store = Store(self.folder / "answers.sqlite")
        try:
            return asyncio.run(ask())
        finally:
            store.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Ask]]:
    def up(override: Override | None = None, text: str = "fine", **how: Any) -> Ask:
        endpoint = served.Endpoint(lambda stage, messages, row: text, Planted(), override=override, **how)  # noqa: ARG005
        endpoint.keep_bodies = True
        return Ask(tmp_path, bring_up(endpoint))

    with served.many() as bring_up:
        yield up


def first(reply: served.Reply, until: int = 1) -> Override:
    """This reply for the first calls, then good ones."""
    return lambda body, number: reply if number <= until else None  # noqa: ARG005


def test_an_answer(serve: Callable[..., Ask]) -> None:
    ask = serve()
    (answer,) = ask(request(), temperature=0.5, seed=7)
    assert answer == Completion("fine", "stop", answer.prompt_tokens, 1)
    assert answer.prompt_tokens > 0
    (body,) = ask.up.bodies
    assert body["model"] == "model"
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.5, 7, 100)
    assert body["messages"] == [{"role": role, "content": text} for role, text in request().messages]
    assert "stream" not in body


def test_unset_options_are_not_sent(serve: Callable[..., Ask]) -> None:
    ask = serve()
    ask(request())
    assert ask.up.bodies[0].keys() == {"model", "messages", "max_tokens"}


def test_from_the_store(serve: Callable[..., Ask]) -> None:
    ask = serve()
    ask(request())
    (again,) = ask(request())
    assert again.cached
    assert ask.client.paid.calls == 0
    for changed in ({"temperature": 0.1}, {"seed": 1}, {"model": "other"}):
        assert not ask(request(), **changed)[0].cached
    for other in (request(attempt=1), request(max_tokens=7), request(text="more"), request()._replace(stage="other")):
        assert not ask(other)[0].cached
    assert ask(request(), url=ask.up.url.replace("127.0.0.1", "localhost"))[0].cached, "an endpoint may move"


def test_the_same_twice_at_once_is_one_call(serve: Callable[..., Ask]) -> None:
    ask = serve()
    answers = ask(*[request()] * 5)
    assert len(ask.up.bodies) == 1
    assert [answer.cached for answer in answers].count(False) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (served.error(429, "slow down"), "429"),
        (served.error(500, "oh"), "500"),
        (served.error(503, "oh"), "503"),
        (served.error(408, "oh"), "408"),
        (served.Reply(502, b"<html>"), "502"),
        (served.Reply(200, b"<html>"), "no completion"),
        (served.Reply(200, b""), "no completion"),
        (served.Reply(200, b'{"choices": []}'), "no completion"),
        (served.Reply(200, b'{"error": {"code": 429}}'), "no completion"),
        (served.Reply(200, b"[" * 60_000), "no completion"),
        (served.Reply(200, b"x" * 100, cut=0), "connection"),
        (served.Reply(200, b"x" * 100, cut=50), "connection"),
    ],
)
def test_transient_failures_are_retried(serve: Callable[..., Ask], reply: served.Reply, kind: str) -> None:
    ask = serve(first(reply, until=3))
    (answer,) = ask(request())
    assert answer.text == "fine"
    assert ask.client.failures == {kind: 3}
    assert ask.client.paid.calls == 1


@pytest.mark.parametrize("kind", ["hang", "dribble"])
def test_a_call_that_takes_too_long_is_given_up(serve: Callable[..., Ask], kind: str) -> None:
    ask = serve(rate=1.0, kinds=(kind,))
    (error,) = ask(request(), timeout=0.1, tries=3)
    assert isinstance(error, EndpointError)
    assert "failed 3 times on the same request, last with: time-out" in str(error)
    assert ask.client.failures == {"time-out": 3}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_permanent_failures_are_not_retried(serve: Callable[..., Ask], status: int) -> None:
    ask = serve(lambda body, number: served.error(status, "we are not amused"))  # noqa: ARG005
    (error,) = ask(request())
    assert type(error) is EndpointError
    assert f"({status}: we are not amused)" in str(error)
    assert len(ask.up.bodies) == 1


def test_spent_credit_fails_at_once(serve: Callable[..., Ask]) -> None:
    ask = serve(lambda body, number: served.error(429, "no money left", code="insufficient_quota"))  # noqa: ARG005
    (error,) = ask(request())
    assert "credit is spent" in str(error)
    assert len(ask.up.bodies) == 1


def test_one_request_refused_where_others_are_answered(serve: Callable[..., Ask]) -> None:
    ask = serve(lambda body, number: served.error(400, "too rude") if "rude" in str(body) else None)  # noqa: ARG005
    assert ask(request())[0].text == "fine"
    (error,) = ask(request(text="rude"))
    assert type(error) is RefusedError
    assert ask(request(text="rude"), request("2"))[1].text == "fine"


def test_one_request_that_always_fails_where_others_are_answered(serve: Callable[..., Ask]) -> None:
    ask = serve(lambda body, number: served.error(500, "crash") if "crash" in str(body) else None)  # noqa: ARG005
    bad, *good = ask(request(text="crash"), *(request(f"{row}") for row in range(10)), tries=4, backoff=0.1)
    assert type(bad) is RefusedError
    assert "other requests succeeded meanwhile" in str(bad)
    assert all(answer.text == "fine" for answer in good)


def test_newer_models_require_max_completion_tokens(serve: Callable[..., Ask]) -> None:
    def picky(body: dict[str, Any], number: int) -> served.Reply | None:  # noqa: ARG001
        body_texts = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return served.error(400, body_texts) if "max_tokens" in body else None

    ask = serve(picky)
    assert [answer.text for answer in ask(request(), request("2"), concurrency=1)] == ["fine", "fine"]
    assert ["max_tokens" in body for body in ask.up.bodies] == [True, False, False]


def test_an_unreachable_endpoint() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}/v1?key=secret"

        async def ask() -> None:
            async with Client(EndpointConfig(url, "model"), store, Budget()) as client:
                await client.ask(request())

        store = Store(Path(":memory:"))
        try:
            with pytest.raises(EndpointError, match=r"http://127\.0\.0\.1:\d+/v1 cannot be reached .*--base-url") as caught:
                asyncio.run(ask())
        finally:
            store.close()
    assert "secret" not in str(caught.value)


def test_a_million_characters_are_not_kept(serve: Callable[..., Ask]) -> None:
    ask = serve(text="x" * 1_000_000)
    (answer,) = ask(request())
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("", "length", 100)
    (again,) = ask(request())
    assert again == answer._replace(cached=True)


def test_a_long_answer_within_the_limit(serve: Callable[..., Ask]) -> None:
    text = "长" * 20_000  # written as six bytes a character
    ask = serve(text=text)
    assert ask(request(max_tokens=20_000))[0].text == text


@pytest.mark.parametrize("text", ["half \ud83d", "tab\t zero \0", "ünïcode 🙂"])
def test_strange_texts_come_through(serve: Callable[..., Ask], text: str) -> None:
    assert serve(text=text)(request())[0].text == text


def test_lone_surrogates_are_replaced_when_sent(serve: Callable[..., Ask]) -> None:
    ask = serve()
    assert ask(request(text="you wrote \ud83d"))[0].text == "fine"
    assert ask.up.bodies[0]["messages"][1]["content"].endswith("you wrote ?")


def test_cut_short(serve: Callable[..., Ask]) -> None:
    ask = serve(lambda body, number: served.Reply(200, served.completion(body, "fi", "length")))  # noqa: ARG005
    assert ask(request())[0][:2] == ("fi", "length")


def test_missing_token_counts_are_estimated() -> None:
    def read(message: Any, **more: Any) -> Completion:
        return read_completion(json.dumps({"choices": [{"message": message}], **more}).encode(), request())

    asked = sum(len(text) for _, text in request().messages) // 4 + 1
    assert read({"content": "x" * 40}) == Completion("x" * 40, "stop", asked, 11)
    assert read({"content": None}).text == ""
    odd = {"prompt_tokens": -1, "completion_tokens": "many"}
    assert read({"content": "x" * 40}, usage=odd) == Completion("x" * 40, "stop", asked, 11)
    assert read({"content": ""}, usage={"prompt_tokens": 3, "completion_tokens": 4})[2:4] == (3, 4)


def test_in_flight_at_most(serve: Callable[..., Ask]) -> None:
    ask = serve()
    answers = ask(*(request(f"{row}") for row in range(50)), concurrency=4)
    assert all(answer.text == "fine" for answer in answers)
    assert ask.up.most_flying <= 4


def test_retry_after_is_waited_for(serve: Callable[..., Ask]) -> None:
    waits: list[float] = []
    ask = serve(first(served.error(429, "later", ("Retry-After", "0.05"))))

    async def noted(self: ConcurrencyLimiter, seconds: float) -> None:  # noqa: ARG001
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConcurrencyLimiter, "sleep", noted)
        assert ask(request())[0].text == "fine"
    assert waits == [0.05]


def test_backoff_doubles_with_jitter_from_the_seed(serve: Callable[..., Ask]) -> None:
    ask = serve(lambda body, number: served.error(500, "oh"))  # noqa: ARG005
    waits: list[float] = []

    async def noted(self: ConcurrencyLimiter, seconds: float) -> None:  # noqa: ARG001
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConcurrencyLimiter, "sleep", noted)
        for seed in (1, 1, 2):
            ask(request(), seed=seed, backoff=1.0, tries=10)
    once, again, other = waits[:9], waits[9:18], waits[18:]
    assert once == again != other
    assert all(min(2**n, 60) / 2 <= wait <= min(2**n, 60) for n, wait in enumerate(once))


def test_a_long_retry_after_ends_the_run(serve: Callable[..., Ask]) -> None:
    ask = serve(first(served.error(429, "tomorrow", ("Retry-After", "86400"))))
    (error,) = ask(request())
    assert type(error) is EndpointError
    assert "86,400 s" in str(error)


def test_stopped(serve: Callable[..., Ask], tmp_path: Path) -> None:
    up = serve(lambda body, number: served.error(500, "oh")).up  # noqa: ARG005

    async def stop() -> list[Any]:
        async with Client(EndpointConfig(up.url, "model", backoff=60, concurrency=2), store, Budget()) as client:
            asked = [asyncio.create_task(client.ask(request(f"{row}"))) for row in range(6)]
            while len(up.bodies) < 6:  # all of them back off
                await asyncio.sleep(0.001)
            client.stop(StoppedError("enough"))
            return await asyncio.gather(*asked, return_exceptions=True)

    store = Store(tmp_path / "other.sqlite")
    try:
        assert all(type(error) is StoppedError for error in asyncio.run(stop()))
    finally:
        store.close()


def test_an_endpoint_that_broke_off_ends_the_run_though_others_were_answered_before(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def generate(asked: Request) -> Completion:
        if asked.row == "1":
            answered.set()
            return Completion("fine", "stop", 1, 1)
        await answered.wait()
        raise _TransientError("connection")

    async def ask() -> list[Any]:
        endpoint = EndpointConfig("http://127.0.0.1:9/v1", model="model", tries=4, backoff=0.001)
        store = Store(tmp_path / "answers.sqlite")
        try:
            async with Client(endpoint, store, Budget(spent=store.usage()), generate=generate) as client:
                return await asyncio.gather(client.ask(request("2")), client.ask(request("1")), return_exceptions=True)
        finally:
            store.close()

    broken, fine = asyncio.run(ask())
    assert fine.text == "fine"
    assert type(broken) is EndpointError
    assert "failed 4 times on the same request, last with: connection: check the endpoint" in str(broken)
