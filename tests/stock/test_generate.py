"""`StockLLM` over the loopback server: documents of any shape, through every shape of server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from multiverse import LLM, AsyncLLM, Generation, SamplingParams
from multiverse.engine import Event, FinishEvent, TokenEvent
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import RequestError
from multiverse.structure import Document, encode, render
from tests.engine.steering import NESTED, two_paths
from tests.stock.conftest import PROMPT, Serve
from tests.stock.loopback import Kind

GREEDY = SamplingParams(temperature=0, max_tokens=2000)
DOCUMENTS = {"flat": two_paths(), "nested": NESTED, "sequential": Document((), "plain")}


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_through_each_server(serve: Serve, kind: Kind, name: str) -> None:
    llm, up = serve(DOCUMENTS[name], kind)
    assert llm.exact
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.finish_reason == "stop", out.structure_error
    assert out.text == render(DOCUMENTS[name])
    assert out.tree == DOCUMENTS[name]
    up.settled()
    if kind != "llamacpp":  # which has no stops, and writes on until it hears of the fork
        assert up.brain.lost == []  # type: ignore[attr-defined]
        assert up.ended.keys() == {"done"}


@pytest.mark.parametrize("kind", ["openai", "vllm", "llamacpp"])
@pytest.mark.parametrize("name", ["flat", "nested"])
@pytest.mark.parametrize("chunk", [1, 7])
def test_a_document_by_text(serve: Serve, kind: Kind, name: str, chunk: int) -> None:
    llm, up = serve(DOCUMENTS[name], kind, by_text=True, chunk=chunk)
    assert not llm.exact
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.finish_reason == "stop", out.structure_error
    assert out.text == render(DOCUMENTS[name])
    assert out.tree == DOCUMENTS[name]
    assert all(isinstance(body["prompt"], str) for body in up.bodies)
    assert llm.decode(list(out.token_ids)).startswith(out.text)
    up.settled()


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_server_that_leaves_out_the_stop_token(serve: Serve, kind: Kind) -> None:
    llm, up = serve(NESTED, kind, trims=True)
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.text == render(NESTED)
    up.settled()


def test_several_tokens_at_once_are_taken_one_by_one(serve: Serve) -> None:
    llm, up = serve(NESTED, chunk=5)
    (out,) = llm.generate(PROMPT, GREEDY)
    assert out.text == render(NESTED)
    up.settled()


def own(llm: LLM, document: Document) -> tuple[Generation, list[Event]]:
    """What the engine of this package makes of the same document."""
    sampler = ScriptedSampler()
    llm.engine.sampler = sampler
    request = llm.engine.submit(llm.tokenizer.encode(PROMPT), GREEDY, listening=True)
    sampler.scripts[request.id] = Script(document, llm.engine.tokens, llm.tokenizer.eos_token_id)
    llm.engine.run([request])
    events = llm.engine.drain(request)
    last = events[-1]
    assert isinstance(last, FinishEvent)
    return last.generation, events


def shown(events: list[Event]) -> dict[str, list[object]]:
    """Events of each branch; the order of siblings is the network's."""
    found: dict[str, list[object]] = {}
    for event in events:
        if not isinstance(event, FinishEvent):
            found.setdefault(event.branch, []).append(event)  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_gives_the_events_and_the_result_of_the_engine(serve: Serve, model_folders: dict[str, Path], name: str) -> None:
    llm, up = serve(DOCUMENTS[name])
    events = list(llm.stream(PROMPT, GREEDY))
    assert isinstance(events[-1], FinishEvent)
    out = events[-1].generation
    expected, theirs = own(LLM(model_folders["llama"], join="text", kv_memory=2 << 20), DOCUMENTS[name])
    fields = ("text", "answer", "tree", "finish_reason", "token_ids", "positions", "branches", "forced", "prompt_token_ids")
    for field in fields:
        assert getattr(out, field) == getattr(expected, field), field
    usage, known = out.usage, expected.usage
    for field in ("prompt_tokens", "total_tokens", "critical_path_tokens", "critical_path_steps", "reread_tokens"):
        assert getattr(usage, field) == getattr(known, field), field
    assert shown(events) == shown(theirs)
    up.settled()


def test_it_counts_what_is_read_again(serve: Serve, tokenizer: PreTrainedTokenizerFast) -> None:
    llm, _ = serve(NESTED)
    (out,) = llm.generate(PROMPT, GREEDY)
    encoded = encode(NESTED, llm.tokens)  # type: ignore[arg-type]
    table = encoded.layout.table
    expected = 0
    for index, spec in enumerate(table):
        if spec.parent < 0 or spec.label.endswith(".1") or spec.label == "1":
            continue  # the first path of a block is in the cache
        inside = [
            one for one in range(len(table)) if table[one].label == spec.label or table[one].label.startswith(f"{spec.label}.")
        ]
        expected += sum(branch in inside for branch in encoded.layout.branches)
        assert index in inside
    assert out.usage.reread_tokens == expected > 0
    assert out.usage.cached_tokens == 3
    assert out.usage.prompt_tokens == len(tokenizer.encode(PROMPT))


@pytest.mark.parametrize("by_text", [False, True], ids=["ids", "text"])
def test_a_join_by_message(serve: Serve, by_text: bool) -> None:
    llm, up = serve(two_paths(), by_text=by_text, join="message")
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=100))
    assert "<Path>\n2: two, longer\n</Path>\n<Conclusion>" in out.text  # what was generated is there in full
    joined = up.tokenizer.decode(up.contexts[3])
    assert joined.endswith("<Path>\n1: one\n</Path>\n<Path>\n2: longer\n</Path>\n<Conclusion>\n")
    up.settled()


def test_chats_have_the_template_of_the_tokenizer(serve: Serve, tokenizer: PreTrainedTokenizerFast) -> None:
    llm, up = serve(two_paths())
    llm.chat([{"role": "user", "content": "how <Path> many?"}], SamplingParams(temperature=0, max_tokens=40))
    prompt = up.contexts[0]
    assert tokenizer.decode(prompt).startswith("user: how <Path> many?")
    assert llm.tokens is not None
    assert not set(prompt) & set(llm.tokens.roles)  # a tag in a message is text


def test_chats_need_a_template(serve: Serve) -> None:
    llm, _ = serve(two_paths(), by_text=True)
    with pytest.raises(RequestError, match="need its chat template: give tokenizer="):
        llm.chat([{"role": "user", "content": "hi"}])
    with pytest.raises(RequestError, match="token ids need the model's tokenizer"):
        llm.generate([[1, 2, 3]])


def test_several_prompts_and_samples(serve: Serve) -> None:
    llm, up = serve(two_paths(), concurrency=3)
    seen: list[int] = []
    out = llm.generate(
        [PROMPT] * 4, SamplingParams(temperature=0, max_tokens=2000, n=2), on_finish=lambda at, _: seen.append(at)
    )
    assert [one.text for one in out] == [render(two_paths())] * 8
    assert sorted(seen) == list(range(8))
    assert up.most_open <= 3
    up.settled()


def test_it_runs_for_tasks_of_an_event_loop(serve: Serve) -> None:
    llm, up = serve(two_paths())

    async def run() -> None:
        async with AsyncLLM(llm) as model:
            (out,), events = await asyncio.gather(model.generate(PROMPT, GREEDY), collect(model))
            assert out.text == render(two_paths())
            assert sum(isinstance(event, TokenEvent) for event in events) == out.usage.total_tokens
            two = await model.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, n=2))
            assert [one.text for one in two] == [out.text] * 2
            await model.engine.drain()
            assert (model.engine.running, model.engine.waiting, model.engine.busy) == (0, 0, False)

    async def collect(model: AsyncLLM) -> list[Event]:
        return [event async for event in model.stream(PROMPT, GREEDY)]

    asyncio.run(run())
    assert llm.generate(PROMPT, GREEDY)[0].finish_reason == "stop"  # the model itself is still open
    up.settled()
