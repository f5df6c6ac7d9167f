"""The engine in the layout ``released``: what it decodes, reads again, scores, streams and refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from multiverse import LLM, Generation, SamplingParams
from multiverse.attention import dense_inputs
from multiverse.engine.prefix_cache import make_keys
from multiverse.engine.sampler import Sampler
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import DialectError, RequestError
from multiverse.streaming import DocumentOrder
from multiverse.structure import (
    MULTIVERSE,
    NPR,
    Block,
    Document,
    Layout,
    Role,
    TokenDialect,
    encode,
    layout,
    resolve,
    write_dialect,
)
from tests.conftest import FAMILIES, build_tokenizer, save_model
from tests.engine.steering import GREEDY, NESTED, bare_request, prompt_ids, run_documents, two_paths
from tests.engine.test_oracle import TOLERANCE, check, predecessors
from tests.engine.test_sampler import busy

RELEASED = replace(MULTIVERSE, positions="released")
WIDE = Document(("t", Block(("a", "b", "c"), (("long enough " * 2,), ("b",), ("in between",)), "so"), "after"), "A")


@pytest.fixture(scope="module")
def released(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["qwen3"], layout="released", kv_memory=8 << 20)


@pytest.fixture(scope="module")
def untouched(model_folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], attn_implementation="sdpa").eval()


def tokens_of(llm: LLM) -> TokenDialect:
    assert llm.engine.tokens is not None
    return llm.engine.tokens


def dense(model: Any, ids: list[int], form: Layout) -> list[float | None]:
    """Log-probability of each token that is not forced, given the one before it in its own text."""
    with torch.inference_mode():
        logprobs_LV = model(**dense_inputs(ids, form)).logits[0].log_softmax(-1)
    before = predecessors(form)
    return [None if form.forced[i] or before[i] < 0 else float(logprobs_LV[before[i], token]) for i, token in enumerate(ids)]


def apart(found: tuple[float | None, ...] | list[float | None], expected: list[float | None]) -> float:
    """The largest difference; both have the same tokens without a value."""
    pairs = list(zip(found, expected, strict=True))
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a - b) for a, b in pairs if a is not None and b is not None)


@pytest.mark.parametrize("document", [NESTED, WIDE, two_paths()], ids=["nested", "wide", "two"])
def test_what_was_decoded_is_what_is_read_and_scored(released: LLM, untouched: Any, document: Document) -> None:
    tokens = tokens_of(released)
    (generation,) = run_documents(released, [document])
    assert generation.tree == document
    assert check(untouched, generation, tokens) > 0
    ids = [*generation.prompt_token_ids, *generation.token_ids[:-1]]
    (score,) = released.score([ids])
    decoded, trained = layout(ids, tokens, decoded=True), layout(ids, tokens)
    assert (score.positions, score.branches, score.forced) == (trained.positions, trained.labels, trained.forced)
    assert apart(score.logprobs, dense(untouched, ids, decoded)) < TOLERANCE
    start = len(generation.prompt_token_ids)
    assert generation.logprobs is not None
    assert apart(score.logprobs[start:], list(generation.logprobs[:-1])) < TOLERANCE
    # The form that models are trained in is another, from the second path of a block on.
    assert apart(score.logprobs, dense(untouched, ids, trained)) > 10 * TOLERANCE
    separator = generation.token_ids.index(tokens.ids[Role.PATH_CLOSE]) + 1
    assert generation.branches[separator] == trained.labels[start + separator]


def test_the_closing_of_a_path_is_its_end_and_the_join_reads_the_separators(released: LLM) -> None:
    tokens = tokens_of(released)
    (generation,) = run_documents(released, [WIDE])
    close, resume = (
        [i for i, token in enumerate(generation.token_ids) if token == tokens.ids[role]]
        for role in (Role.PATH_CLOSE, Role.CONCLUSION_OPEN)
    )
    ends = [generation.positions[i] for i in close]
    goal = generation.positions[generation.token_ids.index(tokens.ids[Role.GOAL_CLOSE])]
    opens = [generation.positions[i] for i, token in enumerate(generation.token_ids) if token == tokens.ids[Role.PATH_OPEN]]
    assert opens == [goal + 1] * 3
    assert [generation.positions[i + 1] for i in close] == [end + 1 for end in ends]
    assert [generation.branches[i + 1] for i in close] == [""] * 3
    assert [generation.positions[i] for i in resume] == [max(ends) + 1]
    assert generation.usage.critical_path_tokens == max(generation.positions) + 1 - len(generation.prompt_token_ids)


@pytest.mark.parametrize("evict", [0, 30])
def test_an_earlier_turn_is_not_read_again(released: LLM, untouched: Any, evict: int) -> None:
    tokens, engine = tokens_of(released), released.engine
    engine.cache.clear()
    (first,) = run_documents(released, [NESTED], "user: first\nassistant: ")
    known = [*first.prompt_token_ids, *first.token_ids[:-1]]
    engine.cache.evict(evict)
    prompt = [*known, *tokens.encode("\nuser: and now?")]
    engine.sampler = sampler = ScriptedSampler()
    request = engine.submit(prompt, GREEDY)
    sampler.scripts[request.id] = Script(WIDE, tokens, int(released.tokenizer.eos_token_id))
    engine.run([request])
    generation = engine.generation(request)
    assert generation.usage.cached_tokens == len(known) - evict
    assert generation.tree == WIDE
    assert check(untouched, generation, tokens) > 0


@pytest.mark.parametrize("length", [5, 2048])
def test_a_prompt_is_laid_out_as_it_would_have_been_decoded(released: LLM, untouched: Any, length: int) -> None:
    tokens = tokens_of(released)
    prompt = [*tokens.encode("user: "), *encode(NESTED, tokens).token_ids, *tokens.encode("\nuser: now")]
    request = bare_request(tokens, prompt)
    whole = layout(prompt, tokens, decoded=True)
    runs = [*request.queues.prefill, *request.queues.decode]
    read = [(run.branch.index, run.position + i) for run in runs for i in range(len(run.token_ids))]
    assert read == list(zip(whole.branches, whole.positions, strict=True))
    assert request.tree.visible.tolist() == whole.visibility()
    assert request.tree.prompt_positions == max(whole.positions) + 1
    released.engine.cache.clear()
    released.engine.scheduler.max_batch_tokens = length
    try:
        (generation,) = run_documents(released, [two_paths()], released.tokenizer.decode(prompt))
    finally:
        released.engine.scheduler.max_batch_tokens = 2048
    assert generation.prompt_token_ids == tuple(prompt)
    assert check(untouched, generation, tokens) > 0


def test_texts_of_the_other_layout_and_in_a_line_share_no_cached_token_behind_the_fork() -> None:
    tokenizer = build_tokenizer()
    forms = [resolve(tokenizer, replace(MULTIVERSE, positions=positions)) for positions in ("released", "engine")]
    ids, own = encode(WIDE, forms[0])
    goal = ids.index(forms[0].ids[Role.GOAL_CLOSE])
    keys = make_keys(np.array(ids), np.array(own.positions))
    for other in (encode(WIDE, forms[1]).layout.positions, tuple(range(len(ids)))):
        same = keys == make_keys(np.array(ids), np.array(other))
        # Up to the separator behind the goal; the radix tree parts at the first path's tag, whatever else happens to agree.
        assert same[: goal + 2].all()
        assert not same[goal + 2]


def test_events_are_in_the_order_of_the_text_and_count_right(released: LLM) -> None:
    tokens, engine = tokens_of(released), released.engine
    engine.sampler = sampler = ScriptedSampler()
    request = engine.submit(tokens.encode("Q"), GREEDY, listening=True)
    sampler.scripts[request.id] = Script(NESTED, tokens, int(released.tokenizer.eos_token_id))
    events = []
    while request.finish_reason is None:
        engine.step()
        events += engine.drain(request)
    events += engine.drain(request)
    order = DocumentOrder()
    assert "".join(order.feed_text(event) for event in events) == engine.generation(request).text
    generation = engine.generation(request)
    found = [event for event in events if hasattr(event, "token_id")]
    assert sorted((event.position, event.token_id) for event in found) == sorted(
        zip(generation.positions, generation.token_ids, strict=True)
    )
    assert found[-1].counts.critical_path == generation.usage.critical_path_tokens
    assert found[-1].counts.total == generation.usage.total_tokens


@pytest.mark.parametrize("stop", ["</Path>\n", "\n<Path>\n2"])
def test_stop_strings_are_found_as_in_the_other_layout(released: LLM, model_folders: dict[str, Path], stop: str) -> None:
    other = LLM(model_folders["qwen3"], kv_memory=8 << 20)
    params = replace(GREEDY, stop=stop)
    (one,), (two,) = (run_documents(llm, [NESTED], params=params) for llm in (released, other))
    assert (one.text, one.finish_reason, one.stop_reason) == (two.text, two.finish_reason, two.stop_reason)


@pytest.mark.parametrize("limit", [40, 90, 150])
def test_limits_hold(released: LLM, untouched: Any, limit: int) -> None:
    engine = released.engine
    engine.sampler = Sampler()
    params = SamplingParams(temperature=1, top_p=1, logprobs=True, max_width=3, logit_bias=busy(released), max_tokens=600)
    requests = [
        engine.submit(prompt_ids(released, f"{seed}<Think>"), replace(params, seed=seed, max_critical_path_tokens=limit))
        for seed in range(4)
    ]
    engine.run(requests)
    found = [engine.generation(request) for request in requests]
    assert any(set(generation.branches) - {""} for generation in found)
    for generation in found:
        assert generation.usage.critical_path_tokens <= limit
        assert generation.finish_reason in ("stop", "budget")
        check_any(untouched, generation, tokens_of(released))


def check_any(model: Any, generation: Generation, tokens: TokenDialect) -> None:
    """As `check`, also for a text that was cut off."""
    ids = [*generation.prompt_token_ids, *generation.token_ids]
    end = len(ids) - (generation.finish_reason == "stop")
    form = layout(ids[:end], tokens, decoded=True)
    start = len(generation.prompt_token_ids)
    assert generation.positions[: end - start] == form.positions[start:]
    expected = dense(model, ids[:end], form)[start:]
    assert generation.logprobs is not None
    for value, wanted in zip(generation.logprobs[: end - start], expected, strict=True):
        assert value is None or wanted is None or abs(value - wanted) <= TOLERANCE


def test_sharing_between_paths_is_refused_by_name(released: LLM) -> None:
    for call in (
        lambda: released.generate("Q", SamplingParams(share_every=2)),
        lambda: released.score("Q", share_every=2),
    ):
        with pytest.raises(RequestError, match="share_every=2 has no meaning in the layout 'released'"):
            call()


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a model that has a dialect in this layout noted, or none."""

    @cache
    def made(positions: str) -> Path:
        tokenizer = build_tokenizer(MULTIVERSE if positions else None)
        model = FAMILIES["qwen2"](len(tokenizer))
        if positions:
            write_dialect(model.config, replace(RELEASED, positions=positions))  # type: ignore[arg-type]
        return save_model(tmp_path_factory.mktemp("noted"), model, tokenizer)

    return made


@pytest.mark.parametrize(
    ("saved", "given", "expected"),
    [("released", None, "released"), ("released", "engine", "engine"), ("engine", "released", "released")],
)
def test_the_layout_is_what_the_model_says_unless_it_is_given(
    noted: Callable[[str], Path], saved: str, given: str | None, expected: str
) -> None:
    assert tokens_of(LLM(noted(saved), layout=given, kv_memory=1 << 20)).dialect.positions == expected


def test_a_separator_that_the_model_writes_is_computed_at_the_join(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(NPR)
    torch.manual_seed(3)
    folder = save_model(tmp_path, FAMILIES["qwen3"](len(tokenizer)), tokenizer)
    llm = LLM(folder, dialect="npr", layout="released", kv_memory=4 << 20)
    tokens = tokens_of(llm)
    document = Document(("t", Block(("a", "b"), (("longer than b",), ("b",)), "so"), "after", Block(("c",), (("d",),), "e")))
    (generation,) = run_documents(llm, [document])
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    assert check(model, generation, tokens) > 0
    behind = [i + 1 for i, token in enumerate(generation.token_ids) if token == tokens.ids[Role.PATH_CLOSE]]
    assert len(behind) == 3
    assert generation.logprobs is not None
    assert not any(generation.forced[i] for i in behind)
    # Scored from the path's own end, as it was sampled.
    (score,) = llm.score([[*generation.prompt_token_ids, *generation.token_ids[:-1]]])
    start = len(generation.prompt_token_ids)
    assert apart(score.logprobs[start:], list(generation.logprobs[:-1])) < TOLERANCE
    assert all(score.logprobs[start + i] is not None for i in behind)


def test_layouts_that_cannot_be_are_refused(noted: Callable[[str], Path]) -> None:
    with pytest.raises(RequestError, match="layout='trained' is not known: it must be one of engine, released, or None"):
        LLM(noted("engine"), layout="trained")
    with pytest.raises(DialectError, match="layout='released' is for models that fork"):
        LLM(noted(""), layout="released", kv_memory=1 << 20)
