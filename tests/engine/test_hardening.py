"""What once went wrong, or nearly: each of these was a defect before it was a test."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from multiverse import LLM, SamplingParams
from multiverse.engine import FinishEvent, SlotPool
from multiverse.engine.scripted import Script
from multiverse.errors import RequestError
from multiverse.prompting import ask
from multiverse.structure import Block, Document, encode
from multiverse.tasks import generate
from tests.engine.steering import (
    NESTED,
    PolicySampler,
    always_fork,
    bare_request,
    prompt_ids,
    run_documents,
    two_paths,
)
from tests.engine.test_events import listen, stream
from tests.engine.test_limits import dialect_of, eager, paths_in
from tests.engine.test_sampler import chosen_for


def test_streams_of_a_family_are_all_different(llm: LLM) -> None:
    tokens = llm.engine.tokens
    request = bare_request(tokens, prompt_ids(llm, "Q"), SamplingParams(seed=3, max_tokens=4000))
    script = Script(NESTED, tokens)
    for branch in chosen_for(request):
        if len(branch.token_ids) < len(script.by_path[branch.path]):
            request.advance(branch, script.next(branch))
    assert len(request.trunk.token_ids) == len(script.by_path[()])
    draws = {branch.path: tuple(branch.rng.random(3)) for branch in request.tree.branches}
    assert len(set(draws.values())) == len(draws) == 6


@pytest.mark.parametrize("most", range(1, 14))
def test_max_branches_holds_when_siblings_fork_at_once(steered: LLM, most: int) -> None:
    eager(steered, width=3)
    (generation,) = steered.generate("Q", SamplingParams(max_branches=most, max_tokens=3000))
    assert generation.finish_reason == "stop", generation.structure_error
    assert paths_in(generation, dialect_of(steered)) <= most


def test_the_prompt_s_finished_branches_do_not_count_towards_the_limit(steered: LLM) -> None:
    tokens = dialect_of(steered)
    eager(steered, width=2)
    prompt = [*encode(two_paths(), tokens).token_ids, *tokens.encode("\nuser: and now?")]
    (generation,) = steered.generate([prompt], SamplingParams(max_branches=2, max_depth=1, max_tokens=3000))
    assert paths_in(generation, tokens) == 2


def test_a_stream_that_ends_during_another_s_steps_still_tells_everything(steered: LLM) -> None:
    word = dialect_of(steered).encode("w")[0]
    steered.engine.sampler = PolicySampler(lambda _request, _branch: word)
    params = SamplingParams(max_tokens=5)
    first, second = steered.stream("a", params), steered.stream("b", params)
    assert isinstance(list(first)[-1], FinishEvent)
    rest = list(second)
    assert rest
    assert isinstance(rest[-1], FinishEvent)


def test_the_end_of_text_token_adds_no_text(steered: LLM) -> None:
    events = stream(steered, two_paths())
    trunk, generation = listen(events, end=-1)
    assert trunk.text() == generation.text


def test_end_of_text_in_a_path_is_not_in_the_text(steered: LLM) -> None:
    tokens, end = dialect_of(steered), int(steered.tokenizer.eos_token_id)
    fork = always_fork(tokens, 2, end)
    steered.engine.sampler = PolicySampler(lambda request, branch: end if branch.label == "1" else fork(request, branch))
    (generation,) = steered.generate("Q")
    assert "<eos>" not in generation.text


def test_a_stop_string_does_not_match_the_end_of_text_token(steered: LLM) -> None:
    (generation,) = run_documents(steered, [two_paths()], params=SamplingParams(stop="eos", max_tokens=500))
    assert generation.finish_reason == "stop"
    assert generation.text.endswith("4")
    assert "<" not in generation.text[-3:]


def test_an_idle_engine_has_nothing_to_do(llm: LLM) -> None:
    assert llm.engine.step() == []


def test_an_empty_prompt_among_others_is_named(llm: LLM) -> None:
    with pytest.raises(RequestError, match=r"^prompt 1: the prompt is empty"):
        llm.generate(["a", ""])


def test_a_tilde(monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path]) -> None:
    folder = model_folders["qwen2"]
    monkeypatch.setenv("HOME", str(folder.parent))
    LLM(f"~/{folder.name}", kv_memory=1 << 20)


@pytest.mark.parametrize("guard", [True, False], ids=["guarded", "raw"])
def test_positions_end_at_the_model_s_last(steered: LLM, monkeypatch: pytest.MonkeyPatch, guard: bool) -> None:
    monkeypatch.setattr(steered.engine.loaded, "max_positions", 60)
    monkeypatch.setattr(steered.engine, "info", steered.engine.info._replace(max_positions=60))
    reasons, leads = set(), range(10, 40)
    documents = [Document(("x" * lead, Block(("a", "b"), (("p",), ("q",)), "c")), "z") for lead in leads]
    generations = run_documents(steered, documents, params=SamplingParams(max_tokens=300, guard=guard))
    for lead, generation in zip(leads, generations, strict=True):
        assert max(generation.positions) < 60, lead
        if generation.finish_reason == "length" and not guard:
            assert max(generation.positions) == 59
        reasons.add(generation.finish_reason)
    assert reasons == ({"length"} if guard else {"stop", "length"})


def test_unfinished_thinking_is_no_answer(steered: LLM) -> None:
    (generation,) = run_documents(steered, [two_paths()], params=SamplingParams(max_tokens=12, guard=False))
    assert generation.text.startswith("<Think>\nbefore")
    assert generation.answer == ""


def test_abort_of_a_finished_request(llm: LLM) -> None:
    request = llm.engine.submit([1], SamplingParams(max_tokens=2, max_depth=0))
    llm.engine.run([request])
    llm.engine.abort(request)


def test_slots_twice_in_one_return() -> None:
    pool = SlotPool(4)
    (slot, _) = pool.take(2)
    with pytest.raises(AssertionError):
        pool.give_back([slot, slot])


@pytest.mark.parametrize("kw", [{"max_batch_tokens": 0}, {"max_requests": 0}, {"max_batch_branches": 0}])
def test_engine_arguments(model_folders: dict[str, Path], kw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_"):
        LLM(model_folders["qwen2"], kv_memory=1 << 20, **kw).generate("x", SamplingParams(max_tokens=2))


def test_a_stream_that_never_began_leaves_nothing_behind(llm: LLM) -> None:
    llm.stream("hello", SamplingParams(max_tokens=5)).close()  # type: ignore[attr-defined]
    assert not llm.engine.busy


@pytest.mark.parametrize("temperature", [1e-310, float("inf"), float("nan")])
def test_temperatures_that_cannot_be_computed_with(temperature: float) -> None:
    with pytest.raises(RequestError, match="temperature"):
        SamplingParams(temperature=temperature)


def test_the_coldest_and_the_hottest_temperature(llm: LLM) -> None:
    for temperature in (1e-6, 9e5):
        (generation,) = llm.generate("Q", SamplingParams(temperature=temperature, max_tokens=3, max_depth=0))
        assert generation.usage.total_tokens >= 1


def test_a_text_where_messages_belong(llm: LLM) -> None:
    with pytest.raises(RequestError, match="chat takes messages"):
        llm.chat("hello")  # type: ignore[arg-type]


def test_a_finished_request_leaves_memory_at_once() -> None:
    llm = LLM()
    tokens = llm.engine.tokens
    assert tokens is not None
    question = generate("nested", 1, seed=3)[0].question
    prompt = llm.encode_chat(ask(question))
    gc.collect()
    gc.disable()
    try:
        for params in (SamplingParams(temperature=0), SamplingParams(temperature=0, max_tokens=150), SamplingParams(stop="+")):
            request = llm.engine.submit(prompt, params, listening=True)
            llm.engine.run([request])
            assert any(branch.blocks for branch in request.tree.branches) or params.stop
            gone = weakref.ref(request)
            branches = [weakref.ref(branch) for branch in request.tree.branches]
            del request
            assert gone() is None
            assert all(branch() is None for branch in branches)
    finally:
        gc.enable()
