"""Decoding with joins that read again: what comes out, what is counted, and what the model gets to see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from multiverse.backends.cpu.backend import CpuBackend
from multiverse.engine.engine import Engine
from multiverse.engine.model import LoadedModel, prepare
from multiverse.engine.params import SamplingParams
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Document, Joins, TokenDialect, encode, render, resolve
from multiverse.tasks import generate
from multiverse.training import Featurizer
from recipes.paper.ask import answer_of, judge
from recipes.paper.joined import Answer, JoinedDecoder
from tests.engine.steering import NESTED

PROBLEMS = [p for family, n in (("worksheet", 3), ("countdown", 2)) for p in generate(family, n, seed=9)]
DEEP = generate("nested", 1, seed=9, depth=3) + generate("nested", 2, seed=9, depth=2)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    from multiverse.engine.model import embedded_model
    from recipes.mini.model import SHAPES, build_model

    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    torch.manual_seed(5)
    return prepare(build_model(SHAPES["test"], tokenizer), tokenizer, "test", CpuBackend())


@pytest.fixture(scope="module")
def tokens(loaded: LoadedModel) -> TokenDialect:
    return resolve(loaded.tokenizer)


def gold(loaded: LoadedModel, tokens: TokenDialect, documents: list[Document], join: Joins) -> list[Answer]:
    """Each document written under a join, behind a question."""
    decoder = JoinedDecoder(loaded, tokens, join, max_tokens=4000)
    end = int(loaded.tokenizer.eos_token_id)
    prompts = [tokens.encode(f"question {number}") for number in range(len(documents))]
    return decoder(prompts, [Script(document, tokens, end) for document in documents])


def kv(loaded: LoadedModel, tokens: TokenDialect, documents: list[Document]) -> list[Answer]:
    """The same by our own engine, with the join of these tokens."""
    sampler = ScriptedSampler()
    engine = Engine(loaded, tokens, sampler=sampler)
    requests = []
    for number, document in enumerate(documents):
        request = engine.submit(tokens.encode(f"question {number}"), SamplingParams(temperature=0, max_tokens=4000))
        sampler.scripts[request.id] = Script(document, tokens, int(loaded.tokenizer.eos_token_id))
        requests.append(request)
    engine.run(requests)
    return [answer_of(engine.generation(request)) for request in requests]


@pytest.mark.parametrize("join", ["text", "message"])
def test_equal_content_takes_equal_tokens_and_an_equal_critical_path(
    loaded: LoadedModel, tokens: TokenDialect, join: Joins
) -> None:
    documents = [p.structured for p in [*PROBLEMS, *DEEP]] + [NESTED, Document(("no block",), "Answer: 1")]
    ours, theirs = kv(loaded, tokens, documents), gold(loaded, tokens, documents, join)
    for document, a, b in zip(documents, ours, theirs, strict=True):
        assert a.text == b.text == render(document)
        assert a.finish_reason == b.finish_reason == "stop"
        assert (a.total_tokens, a.critical_path_tokens) == (b.total_tokens, b.critical_path_tokens)
        assert a.recomputed == 0
        assert b.recomputed > 0 or not document.depth
        assert b.stored == a.stored if join == "text" else b.stored < a.stored or not document.depth


def test_what_is_read_again_is_counted_token_by_token(loaded: LoadedModel, tokens: TokenDialect) -> None:
    """Two paths: of the joined text the cache has the first path, up to its closing tag, and nothing of the second."""
    from multiverse.structure import Block

    document = Document(("x", Block(("a", "b"), (("one two",), ("three four",)), "so")), "Answer: 1")
    (answer,) = gold(loaded, tokens, [document], "text")
    head = len(tokens.encode("<Path>\n2:"))
    goal_end = len(tokens.encode("</Goal>\n"))
    second = head + len(tokens.encode(" three four")) + len(tokens.encode("\n"))
    assert answer.recomputed == goal_end + second, "the second path reads the goal's end again; the trunk reads all of it again"
    (answer,) = gold(loaded, tokens, [document], "message")
    # A path of one clause sends all of itself: the same text, and as much to read.
    assert answer.recomputed == goal_end + second


@pytest.mark.parametrize("join", ["text", "message"])
def test_the_engines_own_join_says_what_a_client_says(loaded: LoadedModel, tokens: TokenDialect, join: Joins) -> None:
    """Two implementations of one join: tokens and counts are equal, and the engine has less to read again."""
    documents = [p.structured for p in [*PROBLEMS, *DEEP]] + [NESTED]
    theirs = gold(loaded, tokens, documents, join)
    ours = kv(loaded, resolve(loaded.tokenizer, replace(tokens.dialect, join=join)), documents)
    for a, b in zip(ours, theirs, strict=True):
        apart = {"recomputed": 0, "stored": 0, "forks": 0}
        assert a._replace(**apart) == b._replace(**apart)
        # Of a message, which is read in place of a path, the client's cache has the head.
        assert join == "message" or a.recomputed <= b.recomputed


@pytest.mark.parametrize("join", ["text", "message"])
def test_training_sees_the_contexts_that_decoding_reads(loaded: LoadedModel, tokens: TokenDialect, join: Joins) -> None:
    tokenizer = loaded.tokenizer
    for problem in [PROBLEMS[0], PROBLEMS[3], *DEEP]:
        decoder = JoinedDecoder(loaded, tokens, join, max_tokens=4000)
        seen: list[list[int]] = []
        submit = decoder.engine.submit

        def keep(prompt: list[int], *args: Any, submit: Any = submit, seen: Any = seen, **kwargs: Any) -> Any:
            seen.append(prompt)
            return submit(prompt, *args, **kwargs)

        decoder.engine.submit = keep  # type: ignore[method-assign]
        featurizer = Featurizer(tokenizer, resolve(tokenizer, replace(tokens.dialect, join=join)))
        prompt = featurizer.encode_prompt([{"role": "user", "content": problem.question}])
        decoder([prompt], [Script(problem.structured, tokens, featurizer.end)])
        features = featurizer(problem.question, problem.structured, None)
        contexts = _contexts(features)
        for context in seen:
            assert any(line[: len(context)] == context for line in contexts), tokenizer.decode(context)
        assert len(encode(problem.structured, tokens).layout.table) == len(contexts)


def _contexts(features: Any) -> list[list[int]]:
    """For each segment: all that its last token sees, itself included."""
    lines = []
    for segment in range(len(features.visibility)):
        last = max(i for i, s in enumerate(features.segments) if s == segment)
        seen = [i for i in range(last + 1) if features.visibility[segment][features.segments[i]]]
        lines.append([features.token_ids[i] for i in seen])
        assert [features.positions[i] for i in seen] == list(range(len(seen)))
    return lines


def test_a_model_that_breaks_the_grammar_or_never_ends_gets_an_answer_and_leaves_nothing_behind(
    loaded: LoadedModel, tokens: TokenDialect
) -> None:
    decoder = JoinedDecoder(loaded, tokens, "text", max_tokens=30)
    end = int(loaded.tokenizer.eos_token_id)
    good = Script(PROBLEMS[0].structured, tokens, end)
    short = Script(Document(("hm",), "Answer: 1"), tokens, end)
    broken = Script(Document(("hm",), "Answer: 1"), tokens, end)
    broken.by_path[()] = [*tokens.encode("<Think>\n<Outline>"), end]
    early = Script(Document(("hm",), "Answer: 1"), tokens, end)
    early.by_path[()] = [*tokens.encode("<Think>\nhm"), end]
    prompts = [tokens.encode(word) for word in ("a", "b", "c", "d")]
    answers = decoder(prompts, [good, short, broken, early])
    assert [a.finish_reason for a in answers] == ["length", "stop", "malformed", "malformed"]
    assert not decoder.engine.busy
    decoder.engine.check_integrity()
    assert not decoder._lines
    assert not decoder.sampler.gold
    judged = [judge(PROBLEMS[0], answer) for answer in answers]
    assert [j.malformed for j in judged] == [False, False, True, True]
    assert not any(j.right for j in judged)


def test_a_path_that_is_cut_ends_the_answer(loaded: LoadedModel, tokens: TokenDialect) -> None:
    end = int(loaded.tokenizer.eos_token_id)
    script = Script(PROBLEMS[0].structured, tokens, end)
    script.by_path[(0, 0)] = [*tokens.path_head("1"), *tokens.encode(" w" * 300)]
    decoder = JoinedDecoder(loaded, tokens, "text", max_tokens=250)
    (answer,) = decoder([tokens.encode("q")], [script])
    assert answer.finish_reason == "length"
    assert answer.total_tokens >= 250
    assert not decoder.engine.busy


def test_judging_asks_for_the_end_the_grammar_and_the_answer(loaded: LoadedModel, tokens: TokenDialect) -> None:
    problem = PROBLEMS[0]
    (answer,) = kv(loaded, tokens, [problem.structured])
    assert judge(problem, answer).right
    assert not judge(problem, answer._replace(finish_reason="length")).right
    assert not judge(PROBLEMS[1], answer).right
    cut = answer._replace(text=answer.text.replace("</Goal>", ""))
    assert judge(problem, cut)[1:] == (False, True)


def test_equal_content_is_timed_by_every_way(loaded: LoadedModel) -> None:
    from recipes.paper.timing import WAYS, Ways, compare, table

    problems = generate("worksheet", 2, seed=3, width=2)
    ticks: list[None] = []
    found = compare(Ways(loaded, kv_memory=32 << 20), {"small": problems}, 2, lambda: ticks.append(None))
    assert list(found["small"]) == list(WAYS)
    assert len(ticks) == 2 * len(WAYS)
    ours, text = found["small"]["multiverse"], found["small"]["text-join"]
    assert ours["ratio"] == 1
    assert (ours["total_tokens"], ours["critical_path_tokens"]) == (text["total_tokens"], text["critical_path_tokens"])
    assert ours["recomputed"] == 0 < text["recomputed"]
    assert all(row["seconds"] > 0 for row in found["small"].values())
    assert "message-join" in table({"shape": "s", "repeats": 2, "machine": "m", "rounds": {"alone": found}})
