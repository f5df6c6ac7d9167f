"""Real servers on the loopback, each with a thread of its own: one with a scripted model, one with the embedded model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from multiverse import LLM
from multiverse.structure import Block, Document
from tests.cli.scripted import NESTED, scripted_llm
from tests.needs import missing

if TYPE_CHECKING:
    import httpx
    from playwright.sync_api import Browser, Page

    from multiverse.serving.service import Service
    from tests.serving.playback import Playback

WIDE = Document(
    (Block(tuple(f"part {n}" for n in range(6)), tuple((f"{n} and {'more ' * n}é€.",) for n in range(6)), "All."),), "Answer: 6"
)
PLAIN = "No thinking, just text."


def write(prompt: str) -> Document | str:
    """What the scripted model answers: it goes by the last word that it knows."""
    answers: dict[str, Document | str] = {"wide": WIDE, "plain": PLAIN, "nested": NESTED}
    return answers[max(answers, key=prompt.rfind)]


class Site(NamedTuple):
    """A running server.

    Attributes:
        url: its address.
        service: what it runs on.
        client: asks it.
    """

    url: str
    service: Service
    client: httpx.Client

    @property
    def llm(self) -> LLM:
        return self.service.llm

    def chat(self, question: str = "nested", **fields: Any) -> httpx.Response:
        """Ask for a chat completion."""
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, **fields}
        return self.client.post("/v1/chat/completions", json=body)

    def complete(self, prompt: Any = "nested", **fields: Any) -> httpx.Response:
        """Ask for a text completion."""
        return self.client.post("/v1/completions", json={"prompt": prompt, "temperature": 0, **fields})


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The data lines of a stream, which has to end as it should."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def choices(stream: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    """The parts of one choice, in order."""
    return [choice for chunk in stream for choice in chunk["choices"] if choice["index"] == index]


def joined(stream: list[dict[str, Any]], field: str = "content", index: int = 0) -> str:
    """What a client that knows nothing of branches puts together."""
    return "".join(choice["delta"].get(field) or "" for choice in choices(stream, index))


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of a refusal, which has to have OpenAI's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@contextmanager
def occupied(site: Site, count: int) -> Iterator[None]:
    """So many places of the server are taken."""
    release = site.service.admission.admit(count)
    try:
        yield
    finally:
        release()


@contextmanager
def serving(llm: LLM, **settings: Any) -> Iterator[Site]:
    """A server for this model."""
    for library in ("fastapi", "uvicorn", "prometheus_client", "httpx"):
        pytest.importorskip(library, reason="the extra [serve] is not installed")
    import httpx

    from multiverse.serving.app import create_app
    from multiverse.serving.config import ServerConfig
    from multiverse.serving.server import listen, make_server
    from multiverse.serving.service import Service

    config = ServerConfig(port=0, **settings)
    most = llm.engine.scheduler.max_requests
    service = Service(llm, config)
    ready: Queue[str] = Queue()
    server = make_server(service, create_app(service), ready.put)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listen(config)]})
    thread.start()
    try:
        url = ready.get(timeout=60)
        with httpx.Client(base_url=url, timeout=300) as client:
            yield Site(url, service, client)
    finally:
        server.should_exit = True
        thread.join()
        llm.engine.scheduler.max_requests = most  # tests share the model
    llm.engine.check_integrity()
    assert llm.engine.slots.owned == 0


# Servers live as long as a module's tests: other tests want no threads of theirs. Models are loaded once.


@pytest.fixture(scope="session")
def scripted_model(model_folders: dict[str, Path]) -> LLM:
    return scripted_llm(model_folders["qwen3"], write)


@pytest.fixture(scope="session")
def mini_model() -> LLM:
    return LLM(kv_memory=64 << 20)


@pytest.fixture(scope="module")
def scripted(scripted_model: LLM) -> Iterator[Site]:
    """Writes `NESTED`, `WIDE` or `PLAIN`, as the question names it."""
    with serving(scripted_model, served_model_name="scripted") as site:
        yield site


@pytest.fixture(scope="module")
def mini(mini_model: LLM) -> Iterator[Site]:
    """multiverse-mini, which answers."""
    with serving(mini_model) as site:
        yield site


# The page in a browser, before a server that plays recorded generations back.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="playwright is not installed")
    from tests.serving.browser import chromium, find_chromium

    path = find_chromium()
    if path is None:
        missing("Chromium is not installed (apt-get install chromium)")
    with chromium(path) as browser:
        yield browser


@pytest.fixture(scope="module")
def played() -> Iterator[Playback]:
    from tests.serving.playback import Playback

    with Playback() as playback:
        yield playback


@pytest.fixture
def server(played: Playback) -> Iterator[Playback]:
    from tests.serving.pages import LINE, NESTED

    played.answer = lambda body: LINE if body.get("multiverse", {}).get("mode") == "sequential" else NESTED
    played.refusal = played.key = played.about = played.notice = None
    played.hold(None)
    played.requests.clear()
    played.hung_up.clear()
    yield played
    played.go()


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """Errors of the page so far; a test that expects some clears the list."""
    errors: list[str] = []
    yield errors
    assert errors == []


@pytest.fixture
def page(browser: Browser, server: Playback, errors: list[str]) -> Iterator[Page]:
    """The page on a desktop, with empty storage."""
    from tests.serving.browser import new_page
    from tests.serving.pages import visit

    with new_page(browser, errors) as page:
        yield visit(page, server)


@pytest.fixture
def phone(browser: Browser, server: Playback, errors: list[str]) -> Iterator[Page]:
    """The page on a phone, with its animations."""
    from tests.serving.browser import new_page
    from tests.serving.pages import visit

    with new_page(browser, errors, 390, 844, phone=True, still=False) as page:
        yield visit(page, server)
