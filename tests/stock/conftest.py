"""Fixtures of the client of other engines: a document behind a loopback server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from multiverse import StockLLM
from multiverse.structure import Document, TokenDialect
from tests.stock.brains import Scripted
from tests.stock.loopback import Brain, Kind, Loopback, running

PROMPT = "Q: how many?\n"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a tokenizer, and no model."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(path)
    return path


Serve = Callable[..., tuple[StockLLM, Loopback]]
"""Serves a document or a brain; returns the client and the server."""
OPTIONS = ("join", "concurrency", "stall_timeout", "tries", "api_key")


@pytest.fixture
def serve(tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect, folder: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def begin(
            written: Document | Brain, kind: Kind = "vllm", *, by_text: bool = False, **how: Any
        ) -> tuple[StockLLM, Loopback]:
            options: dict[str, Any] = {name: how.pop(name) for name in OPTIONS if name in how}
            options |= {"dialect": "multiverse"} if by_text else {"tokenizer": folder}
            if isinstance(written, Document):
                written = Scripted(written, tokens, tokenizer.eos_token_id, prompt=len(tokenizer.encode(PROMPT)))
            up = stack.enter_context(running(Loopback(written, tokenizer, kind, **how)))
            llm = StockLLM(up.url, backoff=0.001, **options)
            stack.callback(llm.close)
            return llm, up

        yield begin
