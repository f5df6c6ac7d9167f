"""Prompts that hold structure: finished blocks, thinking left open, broken tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import RequestError
from multiverse.structure import Block, Document, TokenDialect, encode, layout
from tests.engine.steering import GREEDY, INNER, NESTED, PolicySampler, bare_request, run_documents, two_paths
from tests.engine.test_oracle import check
from tests.strategies import documents


@pytest.fixture(scope="module")
def untouched(model_folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], attn_implementation="sdpa").eval()


def dialect_of(llm: LLM) -> TokenDialect:
    assert llm.engine.tokens is not None
    return llm.engine.tokens


def structured_prompt(tokens: TokenDialect, document: Document) -> list[int]:
    """An earlier turn with a finished document, and a new question."""
    return [*tokens.encode("user: first\nassistant: "), *encode(document, tokens).token_ids, *tokens.encode("\nuser: and now?")]


@pytest.mark.parametrize("budget", [11, 2048])
@given(data=st.data())
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_prompt_with_finished_blocks_agrees_with_one_dense_forward(
    llm: LLM, untouched: Any, budget: int, data: st.DataObject
) -> None:
    tokens, engine = dialect_of(llm), llm.engine
    sampler = ScriptedSampler()
    engine.sampler = sampler
    engine.scheduler.max_batch_tokens = budget
    before = data.draw(st.lists(documents(depth=2, forks=True), min_size=2, max_size=2))
    after = data.draw(documents(depth=2, forks=True))
    requests = []
    for document in before:
        request = engine.submit(structured_prompt(tokens, document), GREEDY)
        sampler.scripts[request.id] = Script(after, tokens, int(llm.tokenizer.eos_token_id))
        requests.append(request)
    engine.run(requests)
    for request in requests:
        generation = engine.generation(request)
        assert generation.tree == after
        assert check(untouched, generation, tokens) > 0
        whole = layout([*generation.prompt_token_ids, *generation.token_ids[:-1]], tokens)
        # The end-of-text token is one more on the trunk.
        assert generation.usage.critical_path_tokens == whole.critical_path(len(request.prompt)) + 1
        assert generation.usage.prompt_tokens == len(request.prompt)


def test_a_prompt_is_laid_out_as_the_layout_says(llm: LLM) -> None:
    tokens = dialect_of(llm)
    prompt = structured_prompt(tokens, NESTED)
    request = bare_request(tokens, prompt)
    whole = layout(prompt, tokens)
    runs = [*request.queues.prefill, *request.queues.decode]
    read = [(run.branch.index, run.position + i) for run in runs for i in range(len(run.token_ids))]
    assert read == list(zip(whole.branches, whole.positions, strict=True))
    assert [token for run in runs for token in run.token_ids] == prompt
    # All but the last token is only read; what follows the last is to be chosen.
    assert [span.branch for span in request.queues.decode] == [request.trunk]
    assert request.queues.waits(request.trunk)
    assert request.queues.decode[0].token_ids == prompt[-1:]
    assert not request.queues.pending
    assert request.queues.cacheable == len(prompt) - 1
    assert request.tree.visible.tolist() == whole.visibility()
    assert request.tree.prompt_positions == request.trunk.next_position == max(whole.positions) + 1 < len(prompt)


@pytest.mark.parametrize("evict", [0, 40])
def test_an_earlier_turn_is_not_read_again_though_it_holds_blocks(llm: LLM, untouched: Any, evict: int) -> None:
    tokens, engine = dialect_of(llm), llm.engine
    engine.cache.clear()
    (first,) = run_documents(llm, [NESTED], "user: first\nassistant: ")
    known = [*first.prompt_token_ids, *first.token_ids[:-1]]
    engine.cache.evict(evict)
    prompt = [*known, *tokens.encode("\nuser: and now?")]
    engine.sampler = sampler = ScriptedSampler()
    requests = [engine.submit(prompt, GREEDY), engine.submit(tokens.encode("user: first\n, a copy in a line"), GREEDY)]
    for request in requests:
        sampler.scripts[request.id] = Script(two_paths(), tokens, int(llm.tokenizer.eos_token_id))
    engine.run(requests)
    for request, cached in zip(requests, (len(known) - evict, len("user: first\n")), strict=True):
        generation = engine.generation(request)
        assert generation.usage.cached_tokens == cached
        assert generation.tree == two_paths()
        assert check(untouched, generation, tokens) > 0


OPEN = "Q\nassistant: <Think>\n"


@pytest.mark.parametrize("held", ["", "some words", "before a block\n"])
def test_a_prompt_that_opens_the_thinking_gets_a_tree(llm: LLM, untouched: Any, held: str) -> None:
    tokens = dialect_of(llm)
    document = two_paths()
    ids = list(encode(document, tokens).token_ids)[len(tokens.encode("<Think>\n")) :]
    script = Script(document, tokens, int(llm.tokenizer.eos_token_id))
    script.by_path[()] = script.by_path[()][len(tokens.encode("<Think>\n")) :]
    sampler = ScriptedSampler()
    llm.engine.sampler = sampler
    request = llm.engine.submit(tokens.encode(OPEN + held), GREEDY)
    sampler.scripts[request.id] = script
    llm.engine.run([request])
    generation = llm.engine.generation(request)
    assert generation.finish_reason == "stop"
    assert generation.tree == document
    assert generation.answer == "4"
    assert list(generation.token_ids[:-1]) == ids
    check(untouched, generation, tokens)


def test_a_prompt_that_opens_a_block_goes_on_from_there(llm: LLM) -> None:
    tokens = dialect_of(llm)
    document = Document((Block(("a", "b"), (("one",), ("two", INNER)), "so"),), "4")
    head = tokens.encode("<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: ")
    script = Script(document, tokens, int(llm.tokenizer.eos_token_id))
    assert script.by_path[()][: len(head)] == head
    script.by_path[()] = script.by_path[()][len(head) :]
    sampler = ScriptedSampler()
    llm.engine.sampler = sampler
    request = llm.engine.submit([*tokens.encode("Q"), *head], SamplingParams(temperature=0, max_tokens=500, max_branches=4))
    sampler.scripts[request.id] = script
    llm.engine.run([request])
    generation = llm.engine.generation(request)
    assert generation.finish_reason == "stop"
    assert set(generation.branches) == {"", "1", "2", "2.1", "2.2"}
    ids = [*generation.prompt_token_ids, *generation.token_ids[:-1]]
    assert ids[1:] == list(encode(document, tokens).token_ids)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Q</Path>", "the prompt breaks the grammar of its own tags: token 1: found </Path>"),
        ("<Think>\n<Parallel>\nx", "the prompt breaks the grammar of its own tags: token 4: found text"),
        ("<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n</Goal>", "the prompt ends inside a parallel block"),
        ("<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n</Goal>\n", "the prompt ends inside a parallel block"),
        (
            "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n</Goal>\n<Path>\n1: a",
            "the prompt ends inside a parallel block",
        ),
        (
            "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n</Goal>\n<Path>\n1: a\n</Path>\n",
            "the prompt ends inside a parallel block",
        ),
        (
            "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n</Goal>\n<Path>\n1: a\n</Path>\n<Conclusion>",
            "the prompt ends inside a parallel block",
        ),
    ],
)
def test_prompts_with_broken_or_open_blocks_are_refused(llm: LLM, text: str, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        llm.generate(text)
    assert str(caught.value).startswith(problem)


def test_a_prompt_that_ends_in_a_conclusion_goes_on(llm: LLM) -> None:
    tokens = dialect_of(llm)
    text = (
        "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n</Goal>\n<Path>\n1: a long path\n</Path>\n<Conclusion>\nso"
    )
    rest = [*tokens.encode(" it is\n</Conclusion>\n</Parallel>\n</Think>"), int(llm.tokenizer.eos_token_id)]
    llm.engine.sampler = PolicySampler(lambda _request, branch: rest[len(branch.token_ids)])
    (generation,) = llm.generate(text)
    assert generation.finish_reason == "stop"
    assert generation.positions[0] == layout(tokens.encode(text), tokens).critical_path()
