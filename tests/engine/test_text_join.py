"""Joins by text and by message: plain forwards of each branch's own context must give the engine's own log-probabilities."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine.events import JoinEvent
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import RequestError
from multiverse.structure import (
    MULTIVERSE,
    THREADWEAVER,
    Block,
    Document,
    Joins,
    Layout,
    Role,
    TokenDialect,
    layout,
    message,
    parse,
)
from tests.conftest import FAMILIES as MODELS
from tests.conftest import build_tokenizer, save_model
from tests.engine.steering import NESTED, PolicySampler, always_fork, run_documents, two_paths
from tests.engine.test_oracle import PARAMS, TOLERANCE, Trouble, run_scripted
from tests.strategies import documents


def contexts(ids: list[int], whole: Layout, tokens: TokenDialect) -> dict[int, tuple[list[int], dict[int, int]]]:
    """The context of each branch, and where in it each of its own tokens stands (by index into the document).

    A branch reads every earlier token that lies in no other path of a block that is open around it, in document order. With a
    join by message the paths of closed blocks are replaced by their messages.
    """
    found = {}
    for branch in range(len(whole.table)):
        own = [at for at, owner in enumerate(whole.branches) if owner == branch]
        seen = [at for at in range(own[-1] + 1) if whole.visible(own[-1], at)]
        if tokens.dialect.join == "message":
            context, places = with_messages(seen, ids, whole, tokens, branch)
        else:
            context, places = [ids[at] for at in seen], {at: place for place, at in enumerate(seen)}
        found[branch] = context, {at: places[at] for at in own}
    return found


def with_messages(
    seen: list[int], ids: list[int], whole: Layout, tokens: TokenDialect, branch: int
) -> tuple[list[int], dict[int, int]]:
    """The same tokens, with a message in place of each path that is not open around the branch."""
    around = {branch}
    while whole.table[branch].parent >= 0:
        branch = whole.table[branch].parent
        around.add(branch)
    return replaced(seen, ids, whole, tokens, around)


def replaced(
    seen: list[int], ids: list[int], whole: Layout, tokens: TokenDialect, around: set[int]
) -> tuple[list[int], dict[int, int]]:
    context: list[int] = []
    places: dict[int, int] = {}
    at = 0
    while at < len(seen):
        index = seen[at]
        path = whole.branches[index]
        if path in around:
            places[index] = len(context)
            context.append(ids[index])
            at += 1
            continue
        while whole.table[path].parent not in around:
            path = whole.table[path].parent
        run = [one for one in seen[at:] if below(whole, whole.branches[one], path)]
        context += message(replaced(run, ids, whole, tokens, {path})[0], tokens)
        at += len(run)
    return context, places


def below(whole: Layout, branch: int, path: int) -> bool:
    while branch not in (path, -1):
        branch = whole.table[branch].parent
    return branch == path


def check(model: Any, generation: Generation, tokens: TokenDialect) -> int:
    """Compare every sampled token, and every position; returns how many tokens were compared."""
    assert generation.logprobs is not None
    prompt, stop = generation.prompt_token_ids, generation.finish_reason == "stop"
    end = len(generation.token_ids) - stop
    ids = [*prompt, *generation.token_ids[:end]]
    whole = layout(ids, tokens)
    assert generation.branches[:end] == whole.labels[len(prompt) :]
    # What a limit closes by force the engine writes, too.
    assert all(ours or not grammar for ours, grammar in zip(generation.forced[:end], whole.forced[len(prompt) :], strict=True))
    assert generation.closed or stop is False or generation.forced[:end] == whole.forced[len(prompt) :]
    assert generation.usage.critical_path_tokens == whole.critical_path(len(prompt)) + stop
    compared = 0
    for context, places in contexts(ids, whole, tokens).values():
        with torch.inference_mode():
            logprobs_LV = model(input_ids=torch.tensor([context])).logits[0].float().log_softmax(-1)
        for at, place in places.items():
            number = at - len(prompt)
            if number < 0:
                continue
            assert generation.positions[number] == place
            value = generation.logprobs[number]
            if value is not None:
                assert abs(value - float(logprobs_LV[place - 1, ids[at]])) <= TOLERANCE
                compared += 1
    return compared


Pair = tuple[LLM, Any]


@pytest.fixture(scope="module")
def pair(model_folders: dict[str, Path]) -> Callable[[str, Joins], Pair]:
    """Our engine and the untouched model, by family and join."""

    @cache
    def made(family: str, join: Joins) -> Pair:
        llm = LLM(model_folders[family], dialect=replace(MULTIVERSE, join=join), kv_memory=8 << 20)
        llm.engine.sampler = ScriptedSampler()
        return llm, AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()

    return made


def tokens_of(llm: LLM) -> TokenDialect:
    assert llm.engine.tokens is not None
    return llm.engine.tokens


def agree(pair: Pair, data: st.DataObject, trouble: str, size: int) -> None:
    """Several random trees share every batch, in chunks and in waves, are preempted, and find their beginnings in the cache."""
    llm, model = pair
    docs = data.draw(st.lists(documents(depth=2, forks=True, places="thinking"), min_size=size, max_size=size))
    rng = random.Random(data.draw(st.integers(0, 1 << 30)))
    scheduler = llm.engine.scheduler
    scheduler.max_batch_branches = rng.choice([1, 3, 256])
    disturb = Trouble(rng, evict=trouble == "evicted") if trouble != "none" else None
    gaps, prompts = [rng.randrange(9) for _ in docs], [rng.choice(["Q", "Question", "Question 2"]) for _ in docs]
    try:
        generations = run_scripted(llm, docs, prompts, gaps, rng.choice([13, 40, 2048]), disturb=disturb)
    finally:
        scheduler.max_batch_branches = 256
    for document, generation in zip(docs, generations, strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens_of(llm)) > 0


@pytest.mark.parametrize(("family", "join"), [("qwen3", "text"), ("llama", "text"), ("qwen2", "message")])
@pytest.mark.parametrize("trouble", ["none", "preempted", "evicted"])
@settings(max_examples=2, phases=[Phase.generate])
@given(data=st.data())
def test_each_context_is_plain_text(
    pair: Callable[[str, Joins], Pair], family: str, join: Joins, trouble: str, data: st.DataObject
) -> None:
    agree(pair(family, join), data, trouble, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "join"), [("qwen3", "text"), ("llama", "text"), ("qwen2", "message")])
@pytest.mark.parametrize("trouble", ["none", "preempted", "evicted"])
@settings(max_examples=100)
@given(data=st.data())
def test_each_context_is_plain_text_at_length(
    pair: Callable[[str, Joins], Pair], family: str, join: Joins, trouble: str, data: st.DataObject
) -> None:
    agree(pair(family, join), data, trouble, 6)


@pytest.mark.parametrize("join", ["text", "message"])
def test_scores_of_a_text_are_those_of_its_generation(pair: Callable[[str, Joins], Pair], join: Joins) -> None:
    llm, model = pair("qwen3", join)
    (generation,) = run_scripted(llm, [NESTED], ["Q"], [0])
    assert check(model, generation, tokens_of(llm)) > 0
    ids = [*generation.prompt_token_ids, *generation.token_ids[:-1]]
    (score,) = llm.score([ids])
    start = len(generation.prompt_token_ids)
    assert score.positions[start:] == generation.positions[:-1]
    assert score.branches[start:] == generation.branches[:-1]
    assert generation.logprobs is not None
    for one, other in zip(score.logprobs[start:], generation.logprobs[:-1], strict=True):
        assert (one is None) == (other is None)
        assert one is None or abs(one - (other or 0)) <= TOLERANCE
    assert llm.engine.slots.owned == 0
    (unfinished,) = llm.score([ids[: len(ids) // 2]])
    assert unfinished.logprobs == pytest.approx(score.logprobs[: len(ids) // 2], abs=TOLERANCE)


@pytest.mark.parametrize("join", ["text", "message"])
def test_an_earlier_turn_is_read_as_it_was_generated(pair: Callable[[str, Joins], Pair], join: Joins) -> None:
    """The next turn finds all that the trunk has read in the prefix cache, and gets what a plain forward gives."""
    llm, model = pair("llama", join)
    tokens = tokens_of(llm)
    (first,) = run_scripted(llm, [NESTED], ["earlier"], [0])
    prompt = [*first.prompt_token_ids, *first.token_ids[:-1], *tokens.encode("\nnext")]
    sampler = ScriptedSampler()
    llm.engine.sampler = sampler
    request = llm.engine.submit(prompt, PARAMS)
    sampler.scripts[request.id] = Script(two_paths(), tokens, int(llm.tokenizer.eos_token_id))
    llm.engine.run([request])
    second = request.generation()
    assert check(model, second, tokens) > 0
    lost = first.usage.total_tokens + len(first.prompt_token_ids) - second.usage.cached_tokens
    if join == "text":  # the end of text and the token before it were not computed
        assert lost <= 3
    assert second.usage.cached_tokens > 0


def test_what_is_read_again_is_counted_and_nothing_else_is(pair: Callable[[str, Joins], Pair]) -> None:
    llm, _ = pair("qwen3", "text")
    (generation,) = run_scripted(llm, [NESTED], ["Q"], [0])
    by_label = dict.fromkeys(generation.branches, 0)
    for label in generation.branches:
        by_label[label] += 1
    # Inner block: the second path. Outer block: all of path 2, with what it has read. The last block has one path.
    inner = by_label["2.2"]
    assert generation.usage.reread_tokens == inner + by_label["2"] + by_label["2.1"] + by_label["2.2"]
    assert generation.usage.total_tokens == len(generation.token_ids)
    assert generation.positions[-1] == len(generation.prompt_token_ids) + len(generation.token_ids) - 1
    other = LLM(llm.model_path, kv_memory=8 << 20)
    (kv,) = run_documents(other, [NESTED])
    assert kv.usage.reread_tokens == 0
    counts = ("total_tokens", "critical_path_tokens", "critical_path_steps", "parallelism")
    assert generation.usage.to_json(*counts) == kv.usage.to_json(*counts)
    assert generation.text == kv.text


def test_the_join_says_how_much_is_read_again(pair: Callable[[str, Joins], Pair]) -> None:
    llm, _ = pair("qwen3", "text")
    tokens = tokens_of(llm)
    sampler = ScriptedSampler()
    llm.engine.sampler = sampler
    request = llm.engine.submit(tokens.encode("Q"), PARAMS, listening=True)
    sampler.scripts[request.id] = Script(two_paths("one", "two, longer"), tokens, int(llm.tokenizer.eos_token_id))
    llm.engine.run([request])
    joins = [event for event in llm.engine.drain(request) if isinstance(event, JoinEvent)]
    assert [event.reread for event in joins] == [len(tokens.encode("<Path>\n2: two, longer\n</Path>\n"))]


def test_paths_left_behind_give_their_memory_back(pair: Callable[[str, Joins], Pair]) -> None:
    """A pool with room for the text alone is enough, also after a preemption that has locked the paths in the prefix cache."""
    llm, model = pair("llama", "text")
    tokens = tokens_of(llm)
    (free,) = run_scripted(llm, [NESTED], ["Q"], [0])
    params = replace(PARAMS, max_tokens=free.usage.total_tokens + 6, reserved_tokens=1)
    size = len(free.prompt_token_ids) + params.max_tokens
    tight = LLM(llm.model_path, dialect=tokens.dialect, kv_memory=size * 256)
    assert tight.engine.slots.size == size
    for seed in (None, 1, 2, 3):
        tight.engine.sampler = ScriptedSampler()
        disturb = Trouble(random.Random(seed), evict=False) if seed is not None else None
        (generation,) = run_scripted(tight, [NESTED], ["Q"], [0], params=params, disturb=disturb)
        assert generation.token_ids == free.token_ids
        assert check(model, generation, tokens) > 0


@pytest.mark.parametrize("join", ["text", "message"])
@pytest.mark.parametrize(
    "limits",
    [{"max_tokens": 200}, {"max_tokens": 120}, {"max_critical_path_tokens": 150}, {"max_branch_tokens": 30}, {"max_depth": 2}],
    ids=str,
)
def test_limits_hold_and_what_is_closed_by_force_is_exact(
    pair: Callable[[str, Joins], Pair], join: Joins, limits: dict[str, int]
) -> None:
    llm, model = pair("qwen2", join)
    tokens = tokens_of(llm)
    llm.engine.sampler = PolicySampler(always_fork(tokens, 3, int(llm.tokenizer.eos_token_id)))
    params = replace(SamplingParams(temperature=0, logprobs=True, max_tokens=600, max_depth=3), **limits)
    try:
        (generation,) = llm.generate(["Q"], params)
    finally:
        llm.engine.sampler = ScriptedSampler()
    assert generation.usage.total_tokens <= params.max_tokens
    assert generation.usage.critical_path_tokens <= (params.max_critical_path_tokens or 1 << 20)
    assert generation.usage.reread_tokens > 0
    assert check(model, generation, tokens) > 0


def test_the_models_last_position_bounds_the_text_in_a_line(model_folders: dict[str, Path]) -> None:
    llm = LLM(model_folders["qwen2"], dialect=replace(MULTIVERSE, join="text"), kv_memory=8 << 20)
    tokens = tokens_of(llm)
    llm.engine.sampler = PolicySampler(always_fork(tokens, 3, int(llm.tokenizer.eos_token_id)))
    prompt = "w" * 1500
    (generation,) = llm.generate([prompt], SamplingParams(temperature=0, max_tokens=1500))
    assert generation.finish_reason in ("length", "stop")
    assert generation.usage.parallelism > 1
    assert max(generation.positions) < 2048
    assert 1700 < len(prompt) + generation.usage.total_tokens <= 2048


@pytest.mark.parametrize("document", [two_paths("w" * 80, "short"), NESTED], ids=["flat", "nested"])
@pytest.mark.parametrize("cut_off", ["continue", "end"])
def test_a_path_that_is_cut_off(model_folders: dict[str, Path], cut_off: Any, document: Document) -> None:
    """`end`: the block is closed and the whole answer ends there; `continue`: the parent goes on."""
    if document is NESTED:
        inner = Block(("p", "q"), (("w" * 80,), ("in q",)), "inner")
        document = Document((Block(("a", "b"), (("short",), (inner, "b2")), "sum"),), "Answer: 1")
    dialect = replace(MULTIVERSE, join="text", cut_off=cut_off)
    llm = LLM(model_folders["qwen2"], dialect=dialect, kv_memory=8 << 20)
    params = SamplingParams(temperature=0, max_tokens=900, max_branch_tokens=40 if document.depth == 1 else 60)
    (generation,) = run_documents(llm, [document], params=params)
    cut = [label for label, _ in generation.closed]
    assert generation.text.count("<Parallel>") == generation.text.count("</Parallel>")
    if cut_off == "continue":
        assert generation.finish_reason == "stop"
        assert len(cut) >= 1
        assert generation.answer
        return
    assert generation.finish_reason == "length"
    assert generation.text.endswith("<Conclusion>\n\n</Conclusion>\n</Parallel>")
    assert not generation.answer
    assert cut == (["1"] if document.depth == 1 else ["2.1", "2"])
    assert "short" in generation.text


def test_sharing_between_paths_is_refused(pair: Callable[[str, Joins], Pair]) -> None:
    llm, _ = pair("qwen3", "text")
    with pytest.raises(RequestError, match=r"share_every=4 needs join='kv', and this model joins by text"):
        llm.generate(["Q"], SamplingParams(share_every=4))


TRIP = (
    "<think>\nTwo legs of a trip.\n<Parallel>\n<Outlines>\n<Outline>1: Length of the first leg.</Outline>\n"
    "<Outline>2: Length of the second leg.</Outline>\n</Outlines>\n<Thread>\n1: 30 km.\n</Thread><Thread>\n2: 12 km.\n"
    "</Thread>\n</Parallel>\nThat is 42 km.\n</think>\n\nThe trip is \\boxed{42} km."
)


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """A random model with ThreadWeaver's tags, whose dialect may differ in some fields."""
    tokenizer = build_tokenizer(THREADWEAVER)
    torch.manual_seed(4)
    folder = save_model(tmp_path_factory.mktemp("threads"), MODELS["qwen3"](len(tokenizer)), tokenizer)

    def make(**fields: Any) -> Pair:
        llm = LLM(folder, dialect=replace(THREADWEAVER, **fields), kv_memory=2 << 20)
        llm.engine.sampler = ScriptedSampler()
        return llm, AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    return make


def test_threadweaver_reads_its_threads_as_its_orchestrator_sends_them(threads: Callable[..., Pair]) -> None:
    """The first header with its line end, the second without, a line end behind the last: one line, at plain positions."""
    llm, model = threads()
    tokens = tokens_of(llm)
    assert tokens.dialect.join == "text"
    (generation,) = run_scripted(llm, [parse(TRIP, tokens.dialect)], ["Q"], [0])
    assert generation.text == TRIP
    assert check(model, generation, tokens) > 0
    goal, second = TRIP.index("</Outlines>\n"), "<Thread>\n2: 12 km.\n</Thread>"
    assert generation.usage.reread_tokens == len(tokens.encode(second))
    # At the fork both threads stand behind the same line end; after the join the block's end stands behind both.
    start = len(generation.prompt_token_ids) + len(tokens.encode(TRIP[:goal])) + 2
    first = [position for position, branch in zip(generation.positions, generation.branches, strict=True) if branch == "1"]
    other = [position for position, branch in zip(generation.positions, generation.branches, strict=True) if branch == "2"]
    assert (first[0], other[0]) == (start, start)
    join = [*generation.token_ids].index(tokens.ids[Role.BLOCK_CLOSE])
    assert generation.positions[join] == len(generation.prompt_token_ids) + len(
        tokens.encode(TRIP[: TRIP.index("</Parallel>")])
    )
    assert not generation.forced[join]
    assert generation.forced[join - 1]


@pytest.mark.parametrize("cut_off", ["continue", "end"])
def test_a_thread_that_is_cut_off(threads: Callable[..., Pair], cut_off: str) -> None:
    llm, _ = threads(cut_off=cut_off)
    tokens = tokens_of(llm)
    document = parse(TRIP.replace("12 km.", "12 km" + "." * 60), tokens.dialect)
    params = SamplingParams(temperature=0, max_tokens=500, max_branch_tokens=30)
    (generation,) = run_documents(llm, [document], params=params)
    assert generation.closed == (("2", "length"),)
    if cut_off == "end":
        assert generation.text.endswith("</Thread>\n</Parallel>")
        assert "<Thread>\n1: 30 km.\n</Thread><Thread>\n2: 12 km." in generation.text
        assert (generation.finish_reason, generation.answer) == ("length", "")
    else:
        assert generation.finish_reason == "stop"
        assert "boxed" in generation.text
