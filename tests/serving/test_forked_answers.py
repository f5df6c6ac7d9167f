"""Answers that fork: Markdown for ordinary clients, streamed or whole, and branches for those who watch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import FinishEvent
from multiverse.serving.choice import Choice, text_of
from multiverse.streaming import DocumentOrder, WireEvent
from multiverse.structure import MULTIVERSE, MULTIVERSE_ANSWER, Block, Document, encode, markdown, render
from tests.cli.scripted import FORKED, FORKED_MARKDOWN, scripted_llm
from tests.serving.conftest import Site, choices, chunks, joined, serving
from tests.strategies import documents

TEXT = render(FORKED, MULTIVERSE_ANSWER)
THOUGHT = Document(("Hm.",), FORKED.answer)


def write(prompt: str) -> Document | str:
    answers: dict[str, Document | str] = {"forked": FORKED, "thought": THOUGHT, "plain": "Just text.\n"}
    return answers[max(answers, key=prompt.rfind)]


@pytest.fixture(scope="module")
def forking(model_folders: dict[str, Path]) -> Iterator[Site]:
    """Writes `FORKED`, the same after a thinking, or a plain text."""
    with serving(scripted_llm(model_folders["qwen3"], write, MULTIVERSE_ANSWER)) as site:
        yield site


def test_a_forked_answer_is_markdown(forking: Site) -> None:
    body = forking.chat("forked").json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == FORKED_MARKDOWN
    assert choice["message"]["reasoning"] is None
    assert choice["multiverse"]["answer"] == FORKED_MARKDOWN
    assert choice["multiverse"]["answer_text"] == TEXT
    assert (choice["multiverse"]["forks"], choice["finish_reason"]) == (3, "stop")
    assert body["usage"]["completion_tokens"] > body["usage"]["multiverse"]["critical_path_tokens"]
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


def test_after_a_thinking_too_and_a_plain_answer_is_itself(forking: Site) -> None:
    (choice,) = forking.chat("thought").json()["choices"]
    assert (choice["message"]["reasoning"].strip(), choice["message"]["content"]) == ("Hm.", FORKED_MARKDOWN)
    (plain,) = forking.chat("plain").json()["choices"]
    assert (plain["message"]["content"], plain["multiverse"]["answer_text"]) == ("Just text.", None)


@pytest.mark.parametrize("extension", [{}, {"branches": True}], ids=["ordinary", "branches"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"stop": ["Grou"]}, {"stop": ["e sky"]}, {"stop": ["\n\nis"]}, *({"max_tokens": most} for most in (20, 90, 170, 230))],
    ids=str,
)
def test_deltas_add_up_to_the_whole_content(forking: Site, fields: dict[str, Any], extension: dict[str, Any]) -> None:
    for question in ("forked", "thought"):
        (whole,) = forking.chat(question, **fields).json()["choices"]
        stream = chunks(forking.chat(question, stream=True, multiverse=extension, **fields))
        assert joined(stream) == whole["message"]["content"]
        assert joined(stream, "reasoning") == (whole["message"]["reasoning"] or "")
        assert choices(stream)[-1]["multiverse"]["answer"] == whole["multiverse"]["answer"]
        assert not any(tag in whole["message"]["content"] for tag in MULTIVERSE.tags)


def test_it_is_streamed_in_the_order_of_the_document(forking: Site) -> None:
    stream = chunks(forking.chat("forked", stream=True, multiverse={"branches": True}))
    moments = [WireEvent.from_json(chunk["multiverse"]) for chunk in stream if "multiverse" in chunk]
    goals = [(moment.branch, moment.role) for moment in moments if moment.event == "goal"]
    assert goals == [("", "answer"), ("1", None), ("", "answer")]
    told, at = "", {}
    for chunk in stream:
        told += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        assert FORKED_MARKDOWN.startswith(told)
        event = chunk.get("multiverse", {})
        at.setdefault((event.get("event"), event.get("branch")), told)
    # The first path is read as it is written, and its sibling, which has come as far, once the first has closed.
    assert at["fork", "1"].endswith("### Bread\n\nIt is baked.")
    assert at["branch_end", "2"].endswith("### Bread\n\nIt is baked.") or "### The sky" not in at["branch_end", "2"]
    assert "### The sky" in at["join", ""]


def test_log_probabilities_have_every_token_of_the_answer(forking: Site) -> None:
    (choice,) = forking.chat("forked", logprobs=True).json()["choices"]
    assert "".join(entry["token"] for entry in choice["logprobs"]["content"]) == TEXT


@pytest.mark.parametrize("earlier", ["text", "markdown"])
def test_an_earlier_answer_goes_back_as_markdown_or_as_it_was_generated(forking: Site, earlier: str) -> None:
    (first,) = forking.chat("forked").json()["choices"]
    content = first["multiverse"]["answer_text"] if earlier == "text" else first["message"]["content"]
    messages = [
        {"role": "user", "content": "forked"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "plain"},
    ]
    body = forking.client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0}).json()
    assert body["choices"][0]["message"]["content"] == "Just text."
    if earlier == "text":  # found in the cache, structure and all
        assert body["usage"]["prompt_tokens_details"]["cached_tokens"] > len(encode(FORKED, tokens_of(forking.llm)).token_ids)


def tokens_of(llm: LLM) -> Any:
    assert llm.engine.tokens is not None
    return llm.engine.tokens


def test_a_document_with_a_forked_answer_is_replayed(forking: Site) -> None:
    for dialect in ({}, {"dialect": "multiverse-answer"}):
        body = forking.client.post("/parse", json={"text": TEXT, **dialect}).json()
        assert body["events"][-1]["answer"] == FORKED_MARKDOWN
        assert [event.get("role") for event in body["events"] if event["event"] == "goal"] == ["answer", None, "answer"]
        assert body["tree"]["thinking"] is None
        assert body["tree"]["answer"][1]["outlines"] == ["Bread", "The sky"]
    refused = forking.client.post("/parse", json={"text": TEXT, "dialect": "multiverse"})
    assert refused.status_code == 400


@pytest.fixture(scope="module")
def written() -> list[Document]:
    return []


@pytest.fixture(scope="module")
def anything(model_folders: dict[str, Path], written: list[Document]) -> LLM:
    """Writes the newest of `written`, whose thinking and answer may fork."""
    return scripted_llm(model_folders["qwen3"], lambda _: written[-1], replace(MULTIVERSE, blocks="both"))


@settings(max_examples=12)
@given(document=documents(depth=2, places="both"), data=st.data())
def test_any_answer_reads_the_same_however_it_comes(
    anything: LLM, written: list[Document], document: Document, data: st.DataObject
) -> None:
    reads_the_same(anything, written, document, data)


@pytest.mark.slow
@settings(max_examples=2000)
@given(document=documents(depth=2, places="both"), data=st.data())
def test_any_answer_reads_the_same_however_it_comes_at_length(
    anything: LLM, written: list[Document], document: Document, data: st.DataObject
) -> None:
    reads_the_same(anything, written, document, data)


def reads_the_same(anything: LLM, written: list[Document], document: Document, data: st.DataObject) -> None:
    """Streamed or whole, whichever text ends it, be that in a label or a tag."""
    written.append(document)
    text = render(document, replace(MULTIVERSE, blocks="both")) or "x"
    rng = random.Random(data.draw(st.integers(0, 1 << 30)))
    at = rng.randrange(len(text))
    stop = text[at : at + rng.randrange(1, 5)]
    stops = (stop,) if data.draw(st.booleans()) else ()
    content, generation = both_ways(anything, stops)
    assert content.removeprefix("Answer:").strip() == generation.content
    if not stops:
        assert generation.tree == document
        assert content == markdown(document.answer)


def both_ways(llm: LLM, stops: tuple[str, ...]) -> tuple[str, Generation]:
    """The content as it is streamed, and the whole generation."""
    params = SamplingParams(temperature=0, max_tokens=4000, max_branches=1000, stop=stops)
    choice, content, order, told = Choice(0, llm.engine.tokens), "", DocumentOrder(), ""
    for event in llm.stream("Q", params):
        told += order.feed_text(event)
        content += text_of(choice.feed(event), "content")
        if isinstance(event, FinishEvent):
            generation = event.generation
    assert generation.text == told
    return content, generation


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        # In the outlines of a nested block, while the second path is written, which has its own heading and no label.
        ("lour", "Two questions.\n\n### Bread\n\nIt is baked.\n\n### The sky\n\nBlue light\n\nis sca"),
        (".1: F", "Two questions.\n\n### Bread\n\nIt is baked.\n\n### The sky\n\nBlue light\n\nis"),
        # In a tag: one that has not come whole is none, neither its text nor what it does.
        ("arallel>", "Two questions."),
        ("th>", "Two questions."),
        (
            "et.\n</Pa",
            "Two questions.\n\n### Bread\n\nIt is baked.\n\n#### Flour\n\nGround\n\n#### Water\n\nW\n\n### The sky\n\n"
            "Blue light\n\nis scattered more.",
        ),
    ],
)
def test_what_a_stop_cuts_into_takes_nothing_else_with_it(
    anything: LLM, written: list[Document], stop: str, expected: str
) -> None:
    written.append(FORKED)
    content, generation = both_ways(anything, (stop,))
    assert generation.stop_reason == stop
    assert content == generation.content
    assert content == expected


def test_a_block_may_begin_the_answer_and_end_it(model_folders: dict[str, Path]) -> None:
    bare = Document(None, (Block(("a", "b"), (("x",), ("y",)), "c"),))
    llm = scripted_llm(model_folders["qwen3"], lambda _: bare, MULTIVERSE_ANSWER)
    (generation,) = llm.generate("Q", SamplingParams(temperature=0))
    assert (generation.tree, generation.answer, generation.finish_reason) == (bare, "### a\n\nx\n\n### b\n\ny\n\nc", "stop")
