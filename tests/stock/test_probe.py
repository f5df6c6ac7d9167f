"""What a server says of itself, and what one request shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiverse import StockLLM
from multiverse.errors import DialectError, ModelError, RequestError, UpstreamError
from tests.conftest import build_tokenizer
from tests.engine.steering import two_paths
from tests.stock.conftest import Serve
from tests.stock.loopback import Kind


@pytest.mark.parametrize(("kind", "name"), [("vllm", "vLLM"), ("sglang", "SGLang"), ("llamacpp", "llama.cpp's server")])
def test_it_knows_the_kind_of_server_and_its_context(serve: Serve, kind: Kind, name: str) -> None:
    llm, _ = serve(two_paths(), kind, max_len=777)
    assert (llm.server, llm.max_positions, llm.exact, llm.model_path) == (name, 777, True, "stock")
    assert repr(llm).startswith("StockLLM('stock' at http://127.0.0.1:")


def test_a_server_without_ids_gets_texts_though_there_is_a_tokenizer(serve: Serve) -> None:
    llm, _ = serve(two_paths(), ids=False)
    assert not llm.exact
    assert llm.encode_chat([{"role": "user", "content": "hi"}])


def test_a_server_that_says_nothing_of_itself(serve: Serve) -> None:
    llm, _ = serve(two_paths(), "openai", by_text=True)
    assert (llm.server, llm.exact) == ("a server of OpenAI's completions API", False)


def test_what_cannot_be_reached_or_is_not_offered(serve: Serve, folder: Path) -> None:
    _, up = serve(two_paths())
    with pytest.raises(UpstreamError, match="has no model 'other': it offers stock"):
        StockLLM(up.url, "other", tokenizer=folder)
    with pytest.raises(UpstreamError, match="cannot be reached"):
        StockLLM("http://127.0.0.1:9/v1", tokenizer=folder)
    up.key = "secret"
    with pytest.raises(UpstreamError, match=r"401: no key.*set the right API key") as caught:
        StockLLM(up.url, tokenizer=folder)
    assert caught.value.status == 401
    with StockLLM(up.url, tokenizer=folder, api_key="secret") as llm:
        assert llm.exact
        assert "secret" not in repr(llm)


def test_a_tokenizer_of_another_model_is_refused(serve: Serve, tmp_path: Path) -> None:
    _, up = serve(two_paths())
    build_tokenizer(merges=[("t", "o")]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is not that of the model"):
        StockLLM(up.url, tokenizer=tmp_path)


def test_what_is_missing_is_named(serve: Serve, folder: Path, tmp_path: Path) -> None:
    _, up = serve(two_paths())
    with pytest.raises(
        RequestError, match="needs the model's tokenizer, which tells it: give tokenizer=, or one of multiverse"
    ):
        StockLLM(up.url)
    with pytest.raises(ModelError, match="could not be read: give a folder"):
        StockLLM(up.url, tokenizer=tmp_path)
    with pytest.raises(DialectError):
        StockLLM(up.url, tokenizer=folder, dialect="npr")
    with pytest.raises(RequestError, match="join='kv' cannot be had over a server"):
        StockLLM(up.url, tokenizer=folder, join="kv")
    for name, value in {"concurrency": 0, "tries": 0, "stall_timeout": -1.0}.items():
        options: dict[str, Any] = {name: value}
        with pytest.raises(RequestError, match=name):
            StockLLM(up.url, tokenizer=folder, **options)


def test_there_is_no_engine_and_no_score(serve: Serve) -> None:
    llm, _ = serve(two_paths())
    with pytest.raises(RequestError, match="no engine in this process"):
        _ = llm.engine
    with pytest.raises(RequestError, match="scores need a model in this process"):
        llm.score("text")
    assert not llm.is_unlike("anything")
