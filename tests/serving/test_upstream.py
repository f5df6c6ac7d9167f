"""The server in front of another engine's server: what clients get, and what happens when that server is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="the extra [serve] is not installed")

import httpx

from multiverse import StockLLM
from multiverse.serving import upstream
from multiverse.serving.app import create_app
from multiverse.serving.config import ServerConfig
from multiverse.serving.server import listen, make_server
from multiverse.serving.upstream import UpstreamService
from multiverse.structure import TokenDialect
from tests.cli.scripted import NESTED
from tests.serving.conftest import Site, chunks, error_of, joined
from tests.stock.brains import Scripted
from tests.stock.loopback import Fault, Loopback, running

QUESTION = [{"role": "user", "content": "How many?"}]


@contextmanager
def in_front_of(llm: StockLLM, **settings: Any) -> Iterator[Site]:
    """Our server over a model on another server."""
    config = ServerConfig(port=0, **settings)
    service = UpstreamService(llm, config)
    ready: Queue[str] = Queue()
    server = make_server(service, create_app(service), ready.put)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listen(config)]})
    thread.start()
    try:
        with httpx.Client(base_url=ready.get(timeout=60), timeout=60) as client:
            yield Site(str(client.base_url), service, client)
    finally:
        server.should_exit = True
        thread.join()
        llm.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def other(tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect, folder: Path) -> Iterator[Loopback]:
    """Another engine's server, which answers the question with `NESTED`."""
    loopback = Loopback(lambda _: {}, tokenizer)
    with running(loopback):
        llm = StockLLM(loopback.url, tokenizer=folder)
        ((prompt, _),), _ = llm.encode_conversations(QUESTION, "parallel")
        llm.close()
        loopback.brain = Scripted(NESTED, tokens, int(tokenizer.eos_token_id), prompt=len(prompt))
        yield loopback


@pytest.fixture(scope="module")
def site(other: Loopback, folder: Path) -> Iterator[Site]:
    with in_front_of(StockLLM(other.url, tokenizer=folder, tries=2, backoff=0.001), served_model_name="ours") as site:
        yield site


@pytest.fixture
def planned(other: Loopback) -> Iterator[Callable[[Fault | None], None]]:
    """Plan what goes wrong with every request."""

    def plan(fault: Fault | None) -> None:
        other.plan = lambda number, body: fault  # noqa: ARG005

    yield plan
    plan(None)


def ask(site: Site, **fields: Any) -> Any:
    return site.client.post("/v1/chat/completions", json={"messages": QUESTION, "temperature": 0, **fields})


def test_an_answer_whole_streamed_and_as_branches(site: Site, other: Loopback) -> None:
    answer = ask(site).json()
    (choice,) = answer["choices"]
    assert (answer["model"], choice["finish_reason"]) == ("ours", "stop")
    assert choice["message"]["content"] == NESTED.plain_answer
    assert choice["message"]["reasoning"].count("<Path>") == NESTED.branches
    assert answer["usage"]["multiverse"]["forks"] == len(list(NESTED.blocks()))
    assert answer["usage"]["multiverse"]["parallelism"] > 1

    stream = chunks(ask(site, stream=True))
    assert joined(stream, "reasoning") == choice["message"]["reasoning"]
    assert joined(stream) == choice["message"]["content"]

    events = [chunk["multiverse"] for chunk in chunks(ask(site, stream=True, multiverse={"branches": True}))]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("start", "finish")
    assert kinds.count("fork") == kinds.count("join") == len(list(NESTED.blocks()))
    assert kinds.count("branch_end") == NESTED.branches
    assert events[-1]["usage"]["total_tokens"] == answer["usage"]["completion_tokens"]
    other.settled()


def test_the_other_apis_and_the_page(site: Site) -> None:
    client = site.client
    assert client.get("/").status_code == 200
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["dialect"], model["max_model_len"]) == ("ours", "multiverse", 4096)
    assert client.get("/get_model_info").json()["deterministic"] is False
    assert client.get("/get_server_info").json()["upstream"]["engine"] == "vLLM"
    tokens = client.post("/tokenize", json={"prompt": "How many?"}).json()["tokens"]
    assert client.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == "How many?"
    answer = client.post("/v1/responses", json={"input": "How many?", "temperature": 0}).json()
    assert (answer["status"], answer["output"][-1]["content"][0]["text"]) == ("completed", NESTED.plain_answer)
    idle = 'multiverse:upstream_requests_running{model_name="ours"} 0.0'
    for _ in range(200):  # the connection of the last answer may still be closing
        metrics = client.get("/metrics").text
        if idle in metrics:
            break
        time.sleep(0.01)
    assert idle in metrics
    assert 'multiverse:reread_tokens_total{model_name="ours"}' in metrics
    assert "kv_cache_usage_perc" not in metrics


def test_what_the_other_server_cannot_do_is_refused_by_name(site: Site) -> None:
    for field, value in (("prompt_logprobs", 0), ("response_format", {"type": "json_object"})):
        assert error_of(ask(site, **{field: value}))["param"] == field
    assert ask(site, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]


def test_a_client_that_leaves_ends_what_runs_there(site: Site, other: Loopback) -> None:
    left = other.ended["left"]
    other.pause = 0.05
    try:
        body = {"messages": QUESTION, "temperature": 0, "stream": True}
        with site.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert any(other.open for _ in response.iter_lines())
        other.settled()
    finally:
        other.pause = 0.0
    assert other.ended["left"] > left


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault("status", status=500), 503, "upstream_unavailable"),
        (Fault("drop"), 503, "upstream_unavailable"),
        (Fault("status", status=429), 429, "upstream_full"),
        (Fault("status", status=401), 502, "upstream_refused"),
        (Fault("status", status=400, message="too long"), 400, None),
    ],
)
def test_a_fault_of_the_other_server_is_one_clear_error(
    site: Site, other: Loopback, planned: Callable[[Fault | None], None], fault: Fault, status: int, code: str | None
) -> None:
    planned(fault)
    answer = ask(site)
    error = error_of(answer, status)
    assert error["code"] == code
    assert other.url not in error["message"]  # which is nobody's business but the operator's
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    lines = ask(site, stream=True).text.strip().splitlines()
    assert any('"error"' in line for line in lines)
    other.settled()
    planned(None)
    assert ask(site).status_code == 200


def test_a_server_that_is_down_is_said_at_once(
    tokenizer: PreTrainedTokenizerFast, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_LOOK_EVERY", 0.0)
    loopback = Loopback(lambda _: {}, tokenizer)
    with running(loopback):
        llm = StockLLM(loopback.url, tokenizer=folder)
    with in_front_of(llm) as site:
        assert site.client.get("/health").status_code == 200  # this server itself is alive
        for answer in (site.client.get("/ready"), ask(site), ask(site, stream=True)):
            error = error_of(answer, 503)
            assert (error["code"], answer.headers["retry-after"]) == ("upstream_unavailable", "5")
            assert "cannot be reached" in error["message"]


def test_token_ids_mean_nothing_where_text_goes_over_the_wire(tokenizer: PreTrainedTokenizerFast) -> None:
    with (
        running(Loopback(lambda _: {int(tokenizer.eos_token_id): 1.0}, tokenizer, "openai")) as loopback,
        in_front_of(StockLLM(loopback.url, dialect="multiverse")) as site,
    ):
        complete = "/v1/completions"
        for path, body, param in (
            (complete, {"prompt": [1, 2]}, "prompt"),
            (complete, {"prompt": "a", "return_token_ids": True}, "return_token_ids"),
            ("/tokenize", {"prompt": "a"}, None),
            ("/detokenize", {"tokens": [1]}, None),
        ):
            error = error_of(site.client.post(path, json=body))
            assert error["param"] == param
            assert "--tokenizer" in error["message"]
        assert site.client.post(complete, json={"prompt": "a", "temperature": 0}).status_code == 200
