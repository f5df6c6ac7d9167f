"""Answers that have to be JSON, in every dialect and whatever the model would rather write; schemas that cannot be honoured."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llguidance", reason="the extra [json] is not installed")

import jsonschema
import torch

from multiverse import LLM, SamplingParams
from multiverse.engine import grammar
from multiverse.engine.grammar import GrammarCompiler
from multiverse.engine.response_format import ResponseFormat
from multiverse.errors import ExtraError, RequestError
from multiverse.structure import DIALECTS, MULTIVERSE_ANSWER, Dialect, Role
from tests.conftest import FAMILIES, build_tokenizer, save_model

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", None]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
QUESTION = [{"role": "user", "content": "Who is it?"}]
JSON = {"type": "json_object"}


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def params(schema: Any = PERSON, **more: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, "seed": 3, "max_tokens": 400, "response_format": form(schema), **more})


@pytest.fixture(scope="module", params=[*DIALECTS, "none"])
def any_llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A tiny random model of each dialect, and one without."""
    dialect: Dialect | None = DIALECTS.get(request.param)
    tokenizer = build_tokenizer(dialect)
    torch.manual_seed(2)
    folder = save_model(tmp_path_factory.mktemp(request.param), FAMILIES["llama"](len(tokenizer) + 5), tokenizer)
    return LLM(folder, dialect=dialect, kv_memory=16 << 20)


def keen(llm: LLM) -> dict[int, float]:
    """A bias for the tags that think and fork, so that a random model does both."""
    tokens = llm.engine.tokens
    if tokens is None:
        return {}
    roles = (Role.THINK_OPEN, Role.BLOCK_OPEN, Role.GOAL_OPEN)
    return {tokens.ids[role]: 9.0 for role in roles if role in tokens.ids}


def test_the_answer_is_json_and_the_thinking_is_free(any_llm: LLM) -> None:
    tokens = any_llm.engine.tokens
    bound = params(max_tokens=1500, thinking_budget=200, max_depth=1, max_branch_tokens=30, n=6, logit_bias=keen(any_llm))
    plain = SamplingParams(temperature=1.0, seed=3, max_tokens=60)
    outs = any_llm.chat([QUESTION, QUESTION], [bound, plain])
    for out in outs[:6]:
        jsonschema.validate(json.loads(out.answer), PERSON)
        assert out.structure_error is None
        assert out.finish_reason in ("stop", "budget")  # the thinking may have been closed for its budget
        if tokens is None or tokens.dialect.think is None:
            assert out.text == out.answer
            assert set(out.branches) == {""}
        else:
            thought, _, content = out.text.rpartition(tokens.dialect.think.close)
            assert thought
            assert content.strip() == out.answer
    if tokens is not None and tokens.dialect.think is not None and tokens.dialect.forks_thinking:
        assert any(len(set(out.branches)) > 1 for out in outs[:6])
    # A request beside them is what it is alone.
    assert outs[6].token_ids == any_llm.chat(QUESTION, plain)[0].token_ids
    any_llm.engine.check_integrity()


def test_an_answer_that_could_fork_does_not(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(MULTIVERSE_ANSWER)
    torch.manual_seed(4)
    llm = LLM(save_model(tmp_path, FAMILIES["qwen2"](len(tokenizer)), tokenizer), dialect=MULTIVERSE_ANSWER, kv_memory=8 << 20)
    tokens = llm.engine.tokens
    assert tokens is not None
    bias = {tokens.fork_tag: 1000.0, tokens.ids[Role.THINK_OPEN]: -1000.0}
    out = llm.chat(QUESTION, params(logit_bias=bias))[0]
    jsonschema.validate(json.loads(out.text), PERSON)
    assert not any(tag in out.text for tag in tokens.dialect.tags)


def test_any_json_object(llm: LLM) -> None:
    tokens = llm.engine.tokens
    assert tokens is not None
    brace = tokens.encode("}")[0]
    # A random model would not stop of itself.
    bias = {brace: 8.0, tokens.ids[Role.THINK_OPEN]: -1000.0}
    for seed in range(8):
        out = llm.chat(QUESTION, SamplingParams(seed=seed, max_tokens=300, logit_bias=bias, response_format=JSON))[0]
        assert isinstance(json.loads(out.text), dict)
        assert out.finish_reason == "stop"


def test_a_complete_answer_ends_without_an_end_of_text_token(llm: LLM) -> None:
    out = llm.chat(QUESTION, params({"const": 7}, temperature=0, logit_bias=no_thinking(llm)))[0]
    assert (out.text, out.finish_reason) == ("7", "stop")
    # What could go on ends with one.
    more = llm.chat(QUESTION, params({"type": "integer", "minimum": 0}, logit_bias={**no_thinking(llm), end_of(llm): 1e5}))[0]
    assert len(more.text) == 1
    assert more.token_ids[-1] == end_of(llm)
    later = params({"type": "integer", "minimum": 0}, min_tokens=4, logit_bias={**no_thinking(llm), end_of(llm): 1e5})
    assert llm.chat(QUESTION, later)[0].usage.total_tokens == 5  # or more digits, if the first is no 0
    assert llm.chat(QUESTION, params({"const": "ab"}, min_tokens=99, logit_bias=no_thinking(llm)))[0].text == '"ab"'


def no_thinking(llm: LLM) -> dict[int, float]:
    assert llm.engine.tokens is not None
    return {llm.engine.tokens.ids[Role.THINK_OPEN]: -1000.0}


def end_of(llm: LLM) -> int:
    return int(llm.tokenizer.eos_token_id)


def test_after_the_thinking_there_is_an_answer(llm: LLM) -> None:
    """The text may end behind the closing tag, but not where an answer is wanted."""
    tokens = llm.engine.tokens
    assert tokens is not None
    bias = {tokens.ids[Role.THINK_OPEN]: 1e4, tokens.ids[Role.THINK_CLOSE]: 1e4, end_of(llm): 1e5}
    out = llm.chat(QUESTION, params({"enum": [True, None]}, logit_bias=bias))[0]
    assert out.answer in ("true", "null")
    assert out.text.startswith(tokens.dialect.tags[0])


def test_a_limit_cuts_the_answer_off(llm: LLM) -> None:
    out = llm.chat(QUESTION, params({"type": "string", "minLength": 500}, max_tokens=50, logit_bias=no_thinking(llm)))[0]
    assert out.finish_reason == "length"
    assert out.usage.total_tokens == 50


def test_preempted_and_in_waves_it_is_the_same(llm: LLM) -> None:
    alone = llm.chat(QUESTION, params(logit_bias=no_thinking(llm)))[0]
    llm.engine.scheduler.max_batch_tokens = 3
    many = llm.chat([QUESTION] * 5, params(logit_bias=no_thinking(llm)))
    assert [out.token_ids for out in many] == [alone.token_ids] * 5


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "banana"}, "banana"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "look-around"),
        ({"type": "string", "format": "weird"}, "weird"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength (5) is greater than maxLength (2)"),
        ({"enum": []}, "Unsatisfiable"),
        ({"$ref": "#"}, "no answer fits it"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "https://example.com/schema.json"}, "example.com"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "Unimplemented"),
        ({"type": "integer", "multipleOf": 999983}, "multipleOf 999983"),
        ({"anyOf": [{"type": "integer", "multipleOf": 997 + n} for n in range(99)]}, "multipleOf"),
        ({"properties": {f"k{n}": {} for n in range(1001)}}, "1001 properties"),
        ({"enum": ["x" * 200_000]}, "bytes"),
        ({"minimum": float("nan")}, "not valid JSON"),
        ({"minimum": {1, 2}}, "not valid JSON"),
        ({"const": "\ud800"}, "not valid JSON"),
        ({"allOf": [{"anyOf": [{"required": [f"p{i}{j}"]} for j in range(4)]} for i in range(12)]}, "too large"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(llm: LLM, schema: Any, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(RequestError, match="response_format names a schema that cannot be honoured: ") as caught:
        llm.stream(QUESTION, params(schema))  # at once, not with the first event
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.monotonic() - began < 2
    assert not llm.engine.busy


def test_a_bad_schema_in_a_batch_is_named(llm: LLM) -> None:
    with pytest.raises(RequestError, match=r"^prompt 1: response_format names a schema"):
        llm.chat([QUESTION, QUESTION], [params(), params({"not": {}})])
    assert not llm.engine.busy


def test_nesting_without_end_is_refused(llm: LLM) -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(100_000):
        deep = {"items": deep}
    circle: dict[str, Any] = {}
    circle["items"] = circle
    for schema in (deep, circle):
        with pytest.raises(RequestError, match="cannot be honoured"):
            llm.chat(QUESTION, params(schema))
    while "items" in deep:  # else its own destructor recurses
        deep = deep.pop("items")


def test_schemas_within_the_bounds_are_taken(llm: LLM) -> None:
    """Large ones, and ones that other servers choke on, in bounded time."""
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(14):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    schemas: list[Any] = [
        deep,
        {"properties": {f"k{n}": {"type": "string"} for n in range(900)}},
        {"enum": [f"value number {n}" for n in range(5000)]},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "maxLength": 10**6},
        {"type": "string", "pattern": "^(a{1,1000}){1,1000}$"},
        {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
        {"type": "integer", "multipleOf": 9973},
        {"$ref": "#/$defs/d0", "$defs": {**doubling(24), "d24": {"type": "integer"}}},
    ]
    began = time.monotonic()
    for out in llm.chat([QUESTION] * len(schemas), [params(schema, max_tokens=25) for schema in schemas]):
        assert out.finish_reason in ("stop", "length", "budget"), out.structure_error
    assert time.monotonic() - began < 20


def doubling(count: int) -> dict[str, Any]:
    """Definitions that each name the next one twice."""
    return {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(count)}


def test_a_grammar_that_becomes_too_complex_ends_its_own_request_only(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "_MOST_STATES", 40)
    schema = {"type": "string", "pattern": "^(.*a.{20}){5}$"}
    failed, other = llm.chat(
        [QUESTION, QUESTION], [params(schema, logit_bias=no_thinking(llm)), SamplingParams(seed=1, max_tokens=40)]
    )
    assert failed.finish_reason == "error"
    assert failed.structure_error is not None
    assert "response_format" in failed.structure_error
    assert other.finish_reason in ("stop", "length", "budget")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"type": "xml"}, "has type 'xml': use one of text, json_object, json_schema"),
        ({}, "has type None"),
        ({"type": "json_object", "schema": {}}, "has 'schema'"),
        ({"type": "json_schema"}, "needs a schema"),
        ({"type": "json_schema", "json_schema": {"schema": True}}, "needs a schema"),
    ],
)
def test_forms_that_are_not_known(given: Any, words: str) -> None:
    with pytest.raises(RequestError, match=r"^response_format ") as caught:
        SamplingParams(response_format=given)
    assert words in str(caught.value)


@pytest.mark.parametrize("more", [{"guard": False}, {"ignore_eos": True}])
def test_it_needs_the_guard_and_an_end(more: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="response_format cannot be combined"):
        params(**more)


def test_plain_text_needs_no_grammar(llm: LLM) -> None:
    text = SamplingParams(seed=5, max_tokens=30, response_format={"type": "text"})
    assert llm.chat(QUESTION, text)[0].token_ids == llm.chat(QUESTION, SamplingParams(seed=5, max_tokens=30))[0].token_ids


def test_without_the_extra_the_error_names_it(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ExtraError, match=r"multiverse-llm\[json\]"):
        llm.chat(QUESTION, params({"const": "without"}))


def test_a_change_of_the_given_schema_comes_too_late(llm: LLM) -> None:
    schema: dict[str, Any] = {"const": 1}
    own = params(schema, logit_bias=no_thinking(llm))
    schema["const"] = 2
    assert llm.chat(QUESTION, own)[0].text == "1"
    assert llm.chat(QUESTION, params(schema, logit_bias=no_thinking(llm)))[0].text == "2"


def test_a_schema_is_compiled_once(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(llm.tokenizer, llm.engine.loaded.vocabulary, llm.engine.loaded.stop_ids)
    compiled: list[str] = []
    compile_ = compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda schema: (compiled.append(schema), compile_(schema))[1])
    threads = [threading.Thread(target=compiler.matcher, args=(ResponseFormat(f'{{"const": {n % 2}}}'),)) for n in range(8)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(compiled) == 2
    first, second = compiler.matcher(ResponseFormat('{"const": 1}')), compiler.matcher(ResponseFormat('{"const": 1}'))
    (one,) = first.allowed.nonzero()[0]
    assert first.feed(int(one)) is None
    assert first.done
    assert not second.done
    assert list(second.allowed.nonzero()[0]) == [one]
