"""`LLM`: what a user holds."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

import multiverse
from multiverse import LLM, AsyncLLM, Generation, SamplingParams
from multiverse.engine import FinishEvent, TokenEvent
from multiverse.engine.sampler import Sampler
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import DialectError, RequestError
from multiverse.llm import Score
from multiverse.prompting import INSTRUCTIONS
from multiverse.structure import MULTIVERSE, NPR, Document, encode, render
from tests.conftest import FAMILIES, build_tokenizer, save_model
from tests.engine.steering import NESTED, two_paths

SHORT = SamplingParams(temperature=0, max_tokens=6, max_depth=0, ignore_eos=True)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A model without tags, so that random text is never malformed."""
    tokenizer = build_tokenizer(None)
    return LLM(save_model(tmp_path_factory.mktemp("plain"), FAMILIES["qwen2"](len(tokenizer)), tokenizer), kv_memory=2 << 20)


@pytest.fixture
def llm(loaded: LLM) -> Iterator[LLM]:
    yield loaded
    assert not loaded.engine.busy
    assert loaded.engine.slots.owned == 0


@pytest.fixture
def tagged(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["llama"], kv_memory=2 << 20)


def same(a: Generation, b: Generation) -> bool:
    return (a.text, a.token_ids, a.finish_reason) == (b.text, b.token_ids, b.finish_reason)


def test_the_package_exports_what_it_names() -> None:
    assert set(multiverse.__all__) >= {"LLM", "SamplingParams", "Generation"}
    assert all(hasattr(multiverse, name) for name in multiverse.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = multiverse.nonsense


def test_prompts_as_text_lists_and_token_ids(llm: LLM) -> None:
    ids = llm.tokenizer.encode("hello")
    results = [
        *llm.generate("hello", SHORT),
        *llm.generate(["hello"], SHORT),
        *llm.generate(ids, SHORT),
        *llm.generate([ids], SHORT),
        *llm.generate([tuple(ids), "hello"], SHORT),
    ]
    assert len(results) == 6
    assert all(same(result, results[0]) for result in results)
    assert results[0].prompt_token_ids == tuple(ids)
    assert results[0].usage.prompt_tokens == len(ids)
    assert results[0].usage.total_tokens == results[0].usage.critical_path_tokens == 6
    assert results[0].usage.seconds > 0


def test_nothing_in_nothing_out(llm: LLM) -> None:
    assert llm.generate([], SHORT) == []
    assert llm.chat([], SHORT) == []


def test_parameters_have_defaults(llm: LLM) -> None:
    (result,) = llm.generate("hello", SamplingParams(max_tokens=2, ignore_eos=True))
    assert result.usage.total_tokens == 2
    assert SamplingParams().max_tokens == 2048


def test_results_are_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = ["a", "bb", "ccc", "dddd"]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (9, 1, 5, 3)]
    finished: list[int] = []
    results: dict[int, Generation] = {}

    def on_finish(index: int, generation: Generation) -> None:
        finished.append(index)
        results[index] = generation

    generations = llm.generate(prompts, params, on_finish=on_finish)
    assert [generation.usage.total_tokens for generation in generations] == [9, 1, 5, 3]
    assert [len(generation.prompt_token_ids) for generation in generations] == [1, 2, 3, 4]
    assert finished == [1, 3, 2, 0]
    assert all(results[index] is generation for index, generation in enumerate(generations))


def test_more_prompts_than_run_at_once(model_folders: dict[str, Path]) -> None:
    llm = LLM(model_folders["qwen2"], kv_memory=1 << 20, max_requests=2, max_batch_tokens=8)
    prompts = [f"question {i}" for i in range(7)]
    one_by_one = [llm.generate(prompt, SHORT)[0] for prompt in prompts]
    assert all(same(a, b) for a, b in zip(llm.generate(prompts, SHORT), one_by_one, strict=True))


def test_chat_goes_through_the_template(llm: LLM) -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "go"}]
    text = "user: hi\nassistant: yes?\nuser: go\nassistant: "
    (expected,) = llm.generate([llm.tokenizer.encode(text, add_special_tokens=False)], SHORT)
    (one,) = llm.chat(talk, SHORT)
    two, three = llm.chat([talk, talk], [SHORT, SHORT])
    assert all(same(result, expected) for result in (one, two, three))
    assert llm.tokenizer.decode(one.prompt_token_ids) == text


def test_what_the_template_leaves_out_is_said(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    monkeypatch.setattr(llm.tokenizer, "chat_template", template)
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    found = llm.chat([talk, talk[1:]], [replace(SHORT, n=2, temperature=1.0), SHORT])
    assert [generation.left_out for generation in found] == [("messages.0.content",), ("messages.0.content",), ()]

    async def awaited() -> list[Generation]:
        async with AsyncLLM(llm) as model:
            return await model.chat([talk, talk[1:]], [replace(SHORT, n=2, temperature=1.0), SHORT])

    assert [generation.left_out for generation in asyncio.run(awaited())] == [generation.left_out for generation in found]


@pytest.mark.parametrize("conversation", [[], [{"role": "user", "content": "  "}], [{"role": "user"}]])
def test_an_empty_conversation(llm: LLM, conversation: list[dict[str, Any]]) -> None:
    with pytest.raises(RequestError, match="the conversation is empty: its last message needs some content"):
        llm.chat([conversation], SHORT)


def test_a_model_without_a_chat_template(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm.tokenizer, "chat_template", None)
    with pytest.raises(RequestError, match=r"has no chat template: use generate\(\) with a raw prompt"):
        llm.chat([{"role": "user", "content": "hi"}], SHORT)
    assert llm.generate("hi", SHORT)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_parameters_must_fit_the_prompts(llm: LLM, count: int) -> None:
    with pytest.raises(RequestError, match=f"{count} sampling parameters for 2 prompts: give one for all, or one per prompt"):
        llm.generate(["a", "b"], [SHORT] * count)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt(llm: LLM, prompt: str) -> None:
    with pytest.raises(RequestError, match="the prompt is empty"):
        llm.generate(prompt, SHORT)


@pytest.mark.parametrize("token", [-1, 100_000])
def test_a_token_outside_the_vocabulary(llm: LLM, token: int) -> None:
    with pytest.raises(RequestError, match=rf"token id {token} is outside the vocabulary \(0 to \d+\)"):
        llm.generate([[1, token]], SHORT)


def test_the_prompt_that_cannot_run_is_named_and_none_is_run(llm: LLM) -> None:
    ran: list[int] = []
    with pytest.raises(RequestError, match=r"^prompt 2: the prompt has 5000 tokens"):
        llm.generate(["a", "b", [1] * 5000, "d"], SHORT, on_finish=lambda index, _: ran.append(index))
    assert not ran
    with pytest.raises(RequestError, match=r"^the prompt has 5000 tokens"):
        llm.generate([[1] * 5000], SHORT)
    with pytest.raises(RequestError, match=r"^prompt 1: the prompt is empty"):
        llm.generate(["a", []], SHORT)


def test_an_error_in_on_finish_frees_the_rest(llm: LLM) -> None:
    def fail(_index: int, _generation: Generation) -> None:
        raise RuntimeError("disk full")

    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (2, 50)]
    with pytest.raises(RuntimeError, match="disk full"):
        llm.generate(["a", "b"], params, on_finish=fail)


def test_stream_yields_every_token_and_the_end(llm: LLM) -> None:
    (expected,) = llm.generate("hello", SHORT)
    events = list(llm.stream("hello", SHORT))
    assert [type(event) for event in events] == [TokenEvent] * 6 + [FinishEvent]
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    assert same(finish.generation, expected)
    assert tuple(event.token_id for event in events if isinstance(event, TokenEvent)) == expected.token_ids


def test_stream_takes_text_token_ids_and_conversations(llm: LLM) -> None:
    def last(prompt: Any) -> Generation:
        *_, finish = llm.stream(prompt, SHORT)
        assert isinstance(finish, FinishEvent)
        return finish.generation

    assert same(last("hello"), last(llm.tokenizer.encode("hello")))
    assert same(last([{"role": "user", "content": "hi"}]), llm.chat([{"role": "user", "content": "hi"}], SHORT)[0])


def test_a_bad_prompt_is_refused_before_the_stream_begins(llm: LLM) -> None:
    with pytest.raises(RequestError, match="the prompt is empty"):
        llm.stream("", SHORT)


def test_a_stream_closed_early_frees_its_slots(llm: LLM) -> None:
    events = llm.stream("hello", SHORT)
    assert isinstance(next(events), TokenEvent)
    assert llm.engine.busy
    assert llm.engine.slots.free < llm.engine.slots.size
    events.close()  # type: ignore[attr-defined]
    assert not llm.engine.busy
    assert llm.engine.slots.owned == 0


def test_a_stream_that_is_dropped_frees_its_slots(llm: LLM) -> None:
    for event in llm.stream("hello", SHORT):
        assert event
        break
    gc.collect()
    assert not llm.engine.busy


def test_a_stream_goes_on_while_others_are_generated(llm: LLM) -> None:
    longer = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    (expected,) = llm.generate("hello", longer)
    events = llm.stream("hello", longer)
    seen = [next(events)]
    llm.generate(["x", "y"], SHORT)
    seen += events
    finish = seen[-1]
    assert isinstance(finish, FinishEvent)
    assert same(finish.generation, expected)
    assert len(seen) == 31


def test_what_was_loaded(llm: LLM, model_folders: dict[str, Path]) -> None:
    assert LLM(model_folders["qwen2"], kv_memory=1 << 20).model_path == str(model_folders["qwen2"])
    assert LLM(str(model_folders["qwen2"]), kv_memory=1 << 20).model_path == str(model_folders["qwen2"])
    assert isinstance(llm.tokenizer, PreTrainedTokenizerFast)
    assert llm.engine.tokens is None


def test_the_dialect_is_found_or_chosen(model_folders: dict[str, Path], tagged: LLM) -> None:
    assert tagged.engine.tokens is not None
    assert tagged.engine.tokens.dialect is MULTIVERSE
    chosen = LLM(model_folders["llama"], dialect=MULTIVERSE, kv_memory=1 << 20)
    assert chosen.engine.tokens is not None
    with pytest.raises(DialectError, match="<guideline> of dialect 'npr' is"):
        LLM(model_folders["llama"], dialect=NPR, kv_memory=1 << 20)


def test_a_generation_has_text_answer_tree_and_numbers(tagged: LLM) -> None:
    tokens, engine = tagged.engine.tokens, tagged.engine
    assert tokens is not None
    sampler = ScriptedSampler()
    engine.sampler = sampler
    requests = []
    for document in (NESTED, two_paths()):
        request = engine.submit(tokens.encode("Q"), SamplingParams(max_tokens=2000))
        sampler.scripts[request.id] = Script(document, tokens, int(tagged.tokenizer.eos_token_id))
        requests.append(request)
    engine.run(requests)
    nested, flat = (engine.generation(request) for request in requests)
    assert (nested.tree, flat.tree) == (NESTED, two_paths())
    assert (nested.answer, flat.answer) == ("é", "4")
    for generation, document in ((nested, NESTED), (flat, two_paths())):
        ids, layout = encode(document, tokens)
        assert generation.text == tagged.tokenizer.decode(ids)
        assert generation.token_ids[:-1] == ids
        assert generation.forced[:-1] == layout.forced
        assert generation.branches[:-1] == layout.labels
        assert generation.usage.total_tokens == len(ids) + 1
        assert generation.usage.critical_path_tokens == layout.critical_path() + 1
        assert generation.usage.parallelism == (len(ids) + 1) / (layout.critical_path() + 1) > 1.1
        assert generation.structure_error is None
        assert generation.logprobs is None


def test_every_dialect_runs(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(NPR)
    llm = LLM(save_model(tmp_path, FAMILIES["qwen3"](len(tokenizer)), tokenizer), kv_memory=2 << 20)
    assert llm.engine.tokens is not None
    assert llm.engine.tokens.dialect is NPR
    assert isinstance(llm.engine.sampler, Sampler)
    (generation,) = llm.generate("Q", SamplingParams(temperature=0, max_tokens=5))
    assert generation.usage.total_tokens <= 5


# -- scoring ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer(model_folders: dict[str, Path]) -> LLM:
    """A tagged model; what a test leaves behind in its prefix cache is there for the next."""
    return LLM(model_folders["llama"], kv_memory=8 << 20)


def written(llm: LLM, documents: list[Document], prompt: str = "Q") -> list[Generation]:
    """Each document after the prompt, with log-probabilities."""
    tokens, engine = llm.engine.tokens, llm.engine
    assert tokens is not None
    engine.sampler = sampler = ScriptedSampler()
    params = SamplingParams(max_tokens=2000, logprobs=True)
    requests = [engine.submit(tokens.encode(prompt), params) for _ in documents]
    for request, document in zip(requests, documents, strict=True):
        sampler.scripts[request.id] = Script(document, tokens, int(llm.tokenizer.eos_token_id))
    engine.run(requests)
    engine.sampler = Sampler()
    return [engine.generation(request) for request in requests]


def assert_scored(score: Score, generation: Generation) -> None:
    """The score of a prompt with what was generated after it says what the generation said."""
    start = len(generation.prompt_token_ids)
    assert score.token_ids == (*generation.prompt_token_ids, *generation.token_ids)
    assert score.positions[start:] == generation.positions
    assert score.branches[start:] == generation.branches
    assert generation.logprobs is not None
    assert len(score.logprobs) == len(score.token_ids)
    compared = 0
    for value, expected, by_grammar in zip(score.logprobs[start:], generation.logprobs, score.forced[start:], strict=True):
        assert (value is None) == by_grammar
        if expected is not None:
            assert value == pytest.approx(expected, abs=1e-4)
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("budget", [7, 2048])
def test_a_score_agrees_with_the_generation_that_wrote_it(scorer: LLM, budget: int) -> None:
    scorer.engine.scheduler.max_batch_tokens = budget
    generations = written(scorer, [NESTED, two_paths(), Document((), "no block at all, but an answer")])
    scores = scorer.score([[*generation.prompt_token_ids, *generation.token_ids] for generation in generations])
    scorer.engine.scheduler.max_batch_tokens = 2048
    for score, generation in zip(scores, generations, strict=True):
        assert_scored(score, generation)
        assert score.logprobs[0] is None
        values = [value for value in score.logprobs if value is not None]
        assert score.total == pytest.approx(sum(values))
        assert score.total < -50
    assert not scorer.engine.busy
    scorer.engine.check_integrity()
    assert scorer.engine.slots.owned == 0


def test_a_score_agrees_with_a_sampled_generation_closed_for_a_limit(scorer: LLM) -> None:
    params = [SamplingParams(temperature=1.0, top_p=1.0, seed=i, max_tokens=200, logprobs=True) for i in range(4)]
    generations = scorer.generate(["Q<Think>\n"] * 4, params)
    scores = scorer.score([[*generation.prompt_token_ids, *generation.token_ids] for generation in generations])
    for score, generation in zip(scores, generations, strict=True):
        assert_scored(score, generation)


def test_a_score_needs_no_dialect(llm: LLM) -> None:
    (generation,) = llm.generate(
        "hello", SamplingParams(temperature=1.0, seed=1, max_tokens=40, logprobs=True, ignore_eos=True)
    )
    ids = [*generation.prompt_token_ids, *generation.token_ids]
    (score,) = llm.score(ids)
    assert_scored(score, generation)
    assert score.positions == tuple(range(len(ids)))
    assert set(score.branches) == {""}
    (text,) = llm.score("hello")
    assert text.logprobs == pytest.approx(score.logprobs[:5], abs=1e-4)
    with pytest.raises(RequestError, match="has no dialect to write a document in: score a text"):
        llm.score(two_paths())


def test_a_score_takes_texts_documents_and_token_ids(scorer: LLM) -> None:
    tokens = scorer.engine.tokens
    assert tokens is not None
    document = two_paths()
    ids = encode(document, tokens).token_ids
    results = [
        *scorer.score(document),
        *scorer.score(render(document)),
        *scorer.score(list(ids)),
        *scorer.score([document, render(document), ids]),
    ]
    assert len(results) == 6
    for result in results:
        assert result.token_ids == ids
        assert result.forced == encode(document, tokens).layout.forced
        assert result.logprobs == pytest.approx(results[0].logprobs, abs=1e-4)
    # A document behind something else is no document, but the tags mean the same.
    (behind,) = scorer.score("Q" + render(document))
    assert behind.token_ids == (*tokens.encode("Q"), *ids)
    assert behind.branches[1:] == results[0].branches
    assert set(behind.branches) == {"", "1", "2"}
    # A text may end anywhere, in the middle of a block too.
    cut = results[0].branches.index("2") - 3
    (begun,) = scorer.score(list(ids[:cut]))
    assert begun.logprobs == pytest.approx(results[0].logprobs[:cut], abs=1e-4)
    assert scorer.score([]) == []


def test_a_path_is_scored_as_if_its_siblings_were_not_there(scorer: LLM) -> None:
    (first,), (second,) = scorer.score(two_paths("the same", "one")), scorer.score(two_paths("the same", "quite another one"))

    def own(score: Score, label: str) -> list[float | None]:
        return [value for value, branch in zip(score.logprobs, score.branches, strict=True) if branch == label]

    assert own(first, "1") == pytest.approx(own(second, "1"), abs=1e-4)
    trunks = [own(score, "") for score in (first, second)]
    assert trunks[0] != pytest.approx(trunks[1], abs=1e-2)  # which has read both


def test_a_token_alone_has_no_score(llm: LLM) -> None:
    (score,) = llm.score([[5]])
    assert (score.token_ids, score.logprobs, score.total) == ((5,), (None,), 0)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("", "is empty"),
        ([], "is empty"),
        (Document(None, ""), "the text is empty"),
        ([5] * 3000, "3000 tokens, and the model takes at most 2047"),
        ([5, 100_000], "token id 100000 is outside the vocabulary"),
        ("Q</Path>", "breaks the grammar of its own tags: token 1: found </Path>"),
    ],
    ids=["no text", "no tokens", "no document", "too long", "outside", "broken"],
)
def test_what_cannot_be_scored_is_named_and_nothing_is_run(scorer: LLM, bad: Any, problem: str) -> None:
    if bad != []:
        with pytest.raises(RequestError, match=problem) as alone:
            scorer.score([bad])
        assert not str(alone.value).startswith(("text", "prompt 0"))
    with pytest.raises(RequestError, match=problem) as caught:
        scorer.score(["fine", bad, "fine too"])
    assert str(caught.value).startswith("text 1: ")
    assert "prompt 1" not in str(caught.value)
    assert not scorer.engine.busy
    assert scorer.engine.slots.owned == 0


def test_scoring_and_writing_go_on_side_by_side(scorer: LLM) -> None:
    (expected,) = scorer.score(two_paths())
    events = scorer.stream("hello", SamplingParams(temperature=0, max_tokens=30, max_depth=0, ignore_eos=True))
    seen = [next(events)]
    (score,) = scorer.score(two_paths())
    seen += events
    assert score.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert isinstance(seen[-1], FinishEvent)


QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. "
    "Tom starts with 12, triples it, takes away 4 and adds 9. What is the total?"
)
GREEDY = SamplingParams(temperature=0)


def prompt_of(llm: LLM, content: str, **arguments: Any) -> str:
    events = llm.stream([{"role": "user", "content": content}], SHORT, **arguments)
    *_, finish = events
    assert isinstance(finish, FinishEvent)
    return str(llm.tokenizer.decode(finish.generation.prompt_token_ids))


def test_chat_asks_as_the_command_line_does(tagged: LLM) -> None:
    parallel, sequential = INSTRUCTIONS["parallel"], INSTRUCTIONS["sequential"]
    assert prompt_of(tagged, "hi") == prompt_of(tagged, "hi", mode="parallel") == f"user: hi {parallel}\nassistant: "
    assert prompt_of(tagged, "hi", mode="sequential") == f"user: hi {sequential}\nassistant: "
    assert prompt_of(tagged, "hi", mode=None) == prompt_of(tagged, "hi", mode="as-is") == "user: hi\nassistant: "
    # A question that asks by itself is not asked twice.
    for mode in ("parallel", "sequential"):
        assert prompt_of(tagged, f"hi {parallel}", mode=mode) == f"user: hi {parallel}\nassistant: "
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    (out,) = tagged.chat(talk, SHORT)
    assert tagged.tokenizer.decode(out.prompt_token_ids) == f"user: a {parallel}\nassistant: b\nuser: c {parallel}\nassistant: "
    assert talk[0]["content"] == "a"


def test_a_model_without_tags_or_instructions_gets_none(llm: LLM, tagged: LLM) -> None:
    assert prompt_of(llm, "hi") == "user: hi\nassistant: "
    tagged.instructed = False
    assert prompt_of(tagged, "hi") == "user: hi\nassistant: "


def test_the_question_of_the_readme_works_with_and_without_its_instruction() -> None:
    with LLM() as llm:
        for content in (QUESTION, f"{QUESTION} {INSTRUCTIONS['parallel']}"):
            (out,) = llm.chat([{"role": "user", "content": content}], GREEDY)
            assert out.answer == "56"
            assert out.tree is not None
            assert out.tree.branches == 2
        (line,) = llm.chat([{"role": "user", "content": QUESTION}], GREEDY, mode="sequential")
        assert (line.answer, line.tree and line.tree.branches) == ("56", 0)
        *_, finish = llm.stream([{"role": "user", "content": QUESTION}], GREEDY)
        assert isinstance(finish, FinishEvent)
        assert finish.generation.answer == "56"


def test_close_frees_the_model_and_says_so_afterwards(model_folders: dict[str, Path]) -> None:
    with LLM(model_folders["qwen2"], kv_memory=1 << 20) as llm:
        model = weakref.ref(llm.engine.loaded.model)
        stream = llm.stream("hello", SHORT)
        next(stream)
        assert repr(llm) == f"LLM({str(model_folders['qwen2'])!r})"
    *_, last = stream
    assert isinstance(last, FinishEvent)
    assert last.generation.finish_reason == "abort"
    del stream
    gc.collect()
    assert model() is None
    llm.close()
    assert repr(llm).endswith(", closed)")
    for call in (llm.generate, llm.stream, llm.score):
        with pytest.raises(RequestError, match="is closed: make another"):
            call("hello")


@pytest.mark.parametrize(
    ("prompts", "progress", "shown"), [(3, True, True), (3, None, False), (3, False, False), (1, True, True)]
)
def test_a_bar_counts_generations(
    llm: LLM, capsys: pytest.CaptureFixture[str], prompts: int, progress: bool | None, shown: bool
) -> None:
    llm.generate(["hello"] * prompts, SHORT, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert (f"{prompts}/{prompts}" in err and "generations" in err) == shown
    assert bool(err) == shown


@pytest.mark.parametrize(("prompts", "shown"), [(3, True), (1, False)])
def test_a_bar_is_shown_where_someone_watches(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prompts: int, shown: bool
) -> None:
    monkeypatch.setattr("multiverse.progress.watched", lambda: True)
    llm.chat([[{"role": "user", "content": "hi"}]] * prompts, SHORT)
    assert ("generations" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_the_bar_of_weights_is_shown_to_those_who_watch(
    model_folders: dict[str, Path], capsys: pytest.CaptureFixture[str], progress: bool | None, shown: bool
) -> None:
    logging.enable_progress_bar()
    LLM(model_folders["qwen2"], kv_memory=1 << 20, progress=progress)
    assert ("Loading weights" in capsys.readouterr().err) == shown
    assert logging.is_progress_bar_enabled()


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom multiverse import LLM, AsyncLLM, Generation, SamplingParams, Usage\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'rich', 'safetensors', 'huggingface_hub'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
