"""Routes except completions: models, tokenize, parse, health, static files, and errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multiverse import LLM
from multiverse.models.about import UNLIKE, About
from multiverse.streaming import WireEvent
from multiverse.structure import DIALECTS, MULTIVERSE, NPR, Block, Document, render
from tests.cli.scripted import NESTED
from tests.conftest import FAMILIES, build_tokenizer, save_model
from tests.serving.conftest import Site, chunks, error_of, joined, serving


def test_models(scripted: Site) -> None:
    body = scripted.client.get("/v1/models").json()
    (model,) = body["data"]
    assert (body["object"], model["object"], model["id"]) == ("list", "model", "scripted")
    assert model["dialect"] == "multiverse"
    assert scripted.client.get("/v1/models/scripted").json() == model
    assert error_of(scripted.client.get("/v1/models/other/one"), 404)["code"] == "model_not_found"


def test_a_model_says_what_it_is(scripted: Site) -> None:
    def familiarity() -> dict[str, Any]:
        found: dict[str, Any] = scripted.client.post("/familiarity", json={"question": "Who?"}).json()
        return found

    assert scripted.client.get("/v1/models").json()["data"][0]["about"] is None
    assert familiarity() == {"logprob": None, "least_logprob": None, "unlike": False, "notice": None}
    for least, unlike in ((1.0, True), (-1e9, False)):
        scripted.llm.about = About("A model of squares.", otherwise="For others there is big.", least_logprob=least)
        try:
            about = scripted.client.get("/v1/models").json()["data"][0]["about"]
            found = familiarity()
        finally:
            scripted.llm.about = None
        assert about == {
            "text": "A model of squares.",
            "example": None,
            "otherwise": "For others there is big.",
            "least_logprob": least,
        }
        assert (found["unlike"], found["least_logprob"]) == (unlike, least)
        assert found["logprob"] < 0
        assert found["notice"] == (f"{UNLIKE} For others there is big." if unlike else None)
    assert error_of(scripted.client.post("/familiarity", json={"question": ""}))["param"] == "question"
    assert error_of(scripted.client.post("/familiarity", json={"question": "x", "model": "y"}), 404)


def test_model_info_has_the_tags(scripted: Site) -> None:
    info = scripted.client.get("/get_model_info").json()
    assert info["dialect"]["goal"] == list(MULTIVERSE.goal)
    assert info["dialects"] == list(DIALECTS)
    assert info["max_model_len"] == 2048


def test_server_info_keeps_the_keys(scripted: Site) -> None:
    with serving(scripted.llm, api_keys=("sesame",)) as site:
        response = site.client.get("/get_server_info", headers={"authorization": "Bearer sesame"})
        assert response.status_code == 200
        assert "sesame" not in response.text
        assert error_of(site.client.get("/get_server_info"), 401)["type"] == "authentication_error"
        assert error_of(site.chat(), 401)["code"] == "missing_api_key"
        assert site.client.get("/").status_code == 200


def test_health_and_readiness(scripted: Site) -> None:
    assert scripted.client.get("/health").json() == {"status": "ok"}
    assert scripted.client.get("/ready").json() == {"status": "ok"}
    scripted.service.admission.draining = True
    try:
        assert scripted.client.get("/health").status_code == 200
        assert error_of(scripted.client.get("/ready"), 503)["code"] == "not_ready"
        assert error_of(scripted.chat(), 503)["type"] == "server_error"
    finally:
        scripted.service.admission.draining = False


def test_metrics(scripted: Site) -> None:
    scripted.chat("wide")
    response = scripted.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'multiverse:forks_total{model_name="scripted"}' in response.text


def test_tokenize_and_back(scripted: Site) -> None:
    text = f"Grüße, {MULTIVERSE.goal.open}"
    body = scripted.client.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert body["tokens"] == scripted.llm.tokenizer.encode(text)
    assert body["count"] == len(body["tokens"]) == len(body["token_strs"])
    assert body["token_strs"][-1] == MULTIVERSE.goal.open
    assert scripted.client.post("/detokenize", json={"tokens": body["tokens"]}).json() == {"prompt": text}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ("/tokenize", {"prompt": "x", "multiverse": {"mode": "parallel"}}, "multiverse"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}], "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"prompt": "x", "wrong": 1}, "wrong"),
        ("/detokenize", {"tokens": [1, 99999]}, "tokens.1"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {}, "tokens"),
        ("/parse", {"text": "x", "dialect": "klingon"}, "dialect"),
        ("/parse", {"text": MULTIVERSE.goal.open}, "text"),
    ],
)
def test_tools_refuse_by_name(scripted: Site, path: str, body: dict[str, Any], param: str) -> None:
    assert error_of(scripted.client.post(path, json=body))["param"] == param


# -- documents ---------------------------------------------------------------------------------------------------------


def parsed(site: Site, document: Document, dialect: str | None = None) -> tuple[list[WireEvent], dict[str, Any]]:
    text = render(document, DIALECTS[dialect or "multiverse"])
    body = site.client.post("/parse", json={"text": text, **({"dialect": dialect} if dialect else {})}).json()
    return [WireEvent.from_json(values) for values in body["events"]], body["tree"]


def test_a_document_is_replayed_as_it_would_be_written(scripted: Site) -> None:
    moments, tree = parsed(scripted, NESTED)
    streamed = chunks(scripted.chat("nested", stream=True, multiverse={"branches": True}))
    written = [WireEvent.from_json(chunk["multiverse"]) for chunk in streamed if "multiverse" in chunk]

    def shape(moments: list[WireEvent]) -> list[tuple[Any, ...]]:
        return [(m.event, m.branch, m.labels, m.reason) for m in moments if m.event in ("goal", "fork", "join")]

    def texts(moments: list[WireEvent]) -> dict[tuple[Any, ...], str]:
        found: dict[tuple[Any, ...], str] = {}
        for m in moments:
            key = (m.branch, m.role, m.outline)
            found[key] = found.get(key, "") + (m.text or "").replace(" ", "")  # one model's head may end in the space
        return found

    assert shape(moments) == shape(written)
    assert texts(moments) == texts(written)
    assert tree["answer"] == NESTED.plain_answer
    assert tree["thinking"][1]["paths"][1] == ["20+1=21."]
    start, finish = moments[0], moments[-1]
    assert (start.event, finish.event, finish.finish_reason, finish.answer) == ("start", "finish", "stop", "34")
    assert finish.tokens is not None
    assert finish.usage is not None
    assert (finish.tokens.total, finish.tokens.critical_path) == (
        finish.usage["total_tokens"],
        finish.usage["critical_path_tokens"],
    )
    assert finish.usage["parallelism"] > 1
    assert finish.tokens.steps == finish.usage["critical_path_steps"] < finish.usage["critical_path_tokens"]


def test_siblings_of_a_document_are_side_by_side(scripted: Site) -> None:
    moments, _ = parsed(scripted, NESTED)
    branches = [moment.branch for moment in moments if moment.role == "text" and moment.branch in ("1.1", "1.2", "2")]
    assert len({*branches[:3]}) > 1


def test_a_document_of_another_dialect(scripted: Site) -> None:
    document = Document((Block(("one", "two"), (("a",), ("b",)), "c"),))
    moments, _ = parsed(scripted, document, "npr")
    assert [moment.labels for moment in moments if moment.event == "fork"] == [("1", "2")]
    assert NPR.goal.open in "".join(moment.text or "" for moment in moments)


def test_plain_and_empty_documents(scripted: Site) -> None:
    for text in ("", "Just text.\n\nNo tags."):
        body = scripted.client.post("/parse", json={"text": text}).json()
        assert "".join(event.get("text", "") for event in body["events"]) == text
        assert body["tree"] == {"thinking": None, "answer": text}


def test_a_broken_document_is_refused_with_line_and_offset(scripted: Site) -> None:
    text = render(NESTED)
    at = text.index("20+1")
    error = error_of(scripted.client.post("/parse", json={"text": f"{text[:at]}{MULTIVERSE.goal.close}{text[at:]}"}))
    assert error["code"] == "structure_error"
    assert error["offset"] == at
    assert error["line"] == text.count("\n", 0, at) + 1
    assert f"line {error['line']}" in error["message"]


def test_documents_over_the_limits_are_refused(scripted: Site) -> None:
    error = error_of(scripted.client.post("/parse", json={"text": "a b " * 30_000}))
    assert "at most" in error["message"]
    assert MULTIVERSE.block is not None
    deep = "".join(f"{MULTIVERSE.goal.open}\n" for _ in range(3000))
    assert error_of(scripted.client.post("/parse", json={"text": deep}))["param"] == "text"
    body: Document = NESTED
    for _ in range(70):
        body = Document((Block(("deeper",), (body.thinking or (),), "up"),), "")
    assert "nest" in error_of(scripted.client.post("/parse", json={"text": render(body)}))["message"]


# -- errors of the framework -------------------------------------------------------------------------------------------


def test_unknown_paths_and_methods(scripted: Site) -> None:
    assert error_of(scripted.client.get("/v2/nothing"), 404)["type"] == "not_found_error"
    response = scripted.client.get("/v1/chat/completions")
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"
    assert error_of(scripted.client.get("/static/nothing.js"), 404)


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_invalid_bodies(scripted: Site, content: bytes) -> None:
    response = scripted.client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert error_of(response)["type"] == "invalid_request_error"


def test_a_body_that_does_not_say_that_it_is_json(scripted: Site) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "plain"}]}).encode()
    response = scripted.client.post("/v1/chat/completions", content=body, headers={"content-type": "text/plain"})
    assert "application/json" in error_of(response)["message"]


def test_numbers_that_json_does_not_have(scripted: Site) -> None:
    for number in ("NaN", "Infinity", "-Infinity"):
        body = f'{{"messages": [{{"role": "user", "content": "plain"}}], "temperature": {number}}}'
        response = scripted.client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert error_of(response)["param"] == "temperature"


def test_an_unexpected_failure_is_an_internal_error(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse.serving import info

    def fail(_: Any) -> dict[str, Any]:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(info, "model_info", fail)
    error = error_of(scripted.client.get("/get_model_info"), 500)
    assert error["type"] == "server_error"
    assert "secret" not in error["message"]


# -- other models ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A model without tags or chat template."""
    tokenizer = build_tokenizer(None)
    tokenizer.chat_template = None
    return LLM(save_model(tmp_path_factory.mktemp("plain"), FAMILIES["llama"](len(tokenizer)), tokenizer))


def test_a_model_without_tags_or_template(plain_llm: LLM) -> None:
    with serving(plain_llm) as site:
        assert error_of(site.chat("x"))["param"] == "messages"
        response = site.complete("x", max_tokens=20, stream=True, multiverse={"branches": True})
        events = [chunk["multiverse"] for chunk in chunks(response)]
        assert {event["role"] for event in events if event["event"] == "token"} <= {"text", "structure"}
        plain_llm.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        messages = [{"role": "user", "content": "two words"}]
        tokens = site.client.post("/tokenize", json={"messages": messages}).json()["tokens"]
        assert site.llm.engine.decode(tokens) == "two words"  # no instruction to fork, which it could not
        message = site.chat("x", max_tokens=10).json()["choices"][0]["message"]
        assert message["reasoning"] is None
        stream = chunks(site.chat("x", max_tokens=10, stream=True))
        assert joined(stream) == message["content"]
        earlier = [*messages, {"role": "assistant", "content": "x", "reasoning": "y"}, *messages]
        error = error_of(site.client.post("/v1/chat/completions", json={"messages": earlier}))
        assert error["param"] == "messages.1.reasoning"
        plain_llm.tokenizer.chat_template = "{{ raise_exception('no such role') }}"
        assert "no such role" in error_of(site.chat("x"))["message"]


def test_limits_of_the_settings(scripted: Site) -> None:
    with serving(scripted.llm, max_prompt_tokens=90, max_tokens_limit=100, default_max_tokens=50) as site:
        assert error_of(site.chat("plain " * 20))["code"] == "context_length_exceeded"
        assert error_of(site.chat("plain", max_tokens=101))["param"] == "max_tokens"
        assert site.chat("nested").json()["choices"][0]["finish_reason"] == "length"


def test_serving_libraries_are_imported_on_demand() -> None:
    program = (
        "import sys, multiverse, multiverse.serving, multiverse.streaming, multiverse.cli\n"
        "heavy = {'fastapi', 'uvicorn', 'prometheus_client', 'torch'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_the_error_names_it() -> None:
    program = "import sys; sys.modules['fastapi'] = None; import multiverse.serving.app"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "multiverse-llm[serve]" in done.stderr


# -- the description ---------------------------------------------------------------------------------------------------


def test_the_description_names_every_route_and_schema(scripted: Site) -> None:
    described = scripted.client.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/tokenize", "/parse", "/metrics"} <= set(
        described["paths"]
    )
    schemas = described["components"]["schemas"]
    assert {"ChatRequest", "ChatCompletion", "ChatChunk", "WireEvent", "ErrorBody"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    text = json.dumps(described)
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= set(schemas)


def test_answers_are_as_described(scripted: Site) -> None:
    from multiverse.serving import info_schema, responses

    responses.ChatCompletion.model_validate(scripted.chat("nested", logprobs=True, top_logprobs=2).json())
    responses.TextCompletion.model_validate(scripted.complete("nested", logprobs=2).json())
    about: dict[str, Any] = {"prompt_logprobs": 1, "return_token_ids": True}
    responses.TextCompletion.model_validate(scripted.complete("nested", **about).json())
    responses.ChatCompletion.model_validate(scripted.chat("nested", **about).json())
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "multiverse": {"branches": True}}
    for chunk in chunks(scripted.chat("nested", logprobs=True, **about, **options)):
        responses.ChatChunk.model_validate(chunk)
    for chunk in chunks(scripted.complete("nested", logprobs=2, **about, **options)):
        responses.TextChunk.model_validate(chunk)
    info_schema.Parsed.model_validate(scripted.client.post("/parse", json={"text": render(NESTED)}).json())
    for path, schema in (
        ("/v1/models", info_schema.ModelList),
        ("/get_model_info", info_schema.ModelInfo),
        ("/tokenizer_info", info_schema.TokenizerInfo),
    ):
        schema.model_validate(scripted.client.get(path).json())


def test_version(scripted: Site) -> None:
    import multiverse

    assert scripted.client.get("/version").json() == {"version": multiverse.__version__}


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_description_is_shown_without_the_network(scripted: Site, path: str) -> None:
    page = scripted.client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert files
    for file in files:
        assert file.startswith("static/")
        answer = scripted.client.get(f"/{file}")
        assert answer.status_code == 200, file
        assert "html" not in answer.headers["content-type"]


def test_the_static_files_stay_within_their_folder(scripted: Site) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/static/"):
        response = scripted.client.get(path)
        assert response.status_code in (404, 405), path
        assert "create_app" not in response.text
    assert Path(scripted.service.llm.model_path).name not in scripted.client.get("/").text
