"""`response_format`: answers that are JSON, over HTTP."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("llguidance", reason="the extra [json] is not installed")

import jsonschema

from multiverse.structure import MULTIVERSE
from tests.serving.conftest import Site, chunks, error_of, joined

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 999}, "unit": {"enum": ["apples", None]}},
    "required": ["answer", "unit"],
    "additionalProperties": False,
}
JSON: Any = {"type": "json_schema", "json_schema": {"name": "total", "schema": SCHEMA, "strict": True}}


def test_the_content_is_json_and_the_reasoning_is_what_it_was(mini: Site) -> None:
    plain, formed = mini.chat(QUESTION).json(), mini.chat(QUESTION, response_format=JSON).json()
    message = formed["choices"][0]["message"]
    jsonschema.validate(json.loads(message["content"]), SCHEMA)
    assert message["reasoning"] == plain["choices"][0]["message"]["reasoning"]
    assert formed["choices"][0]["finish_reason"] == "stop"
    assert formed["usage"]["multiverse"]["forks"] == 1


def test_streams_samples_and_branches(mini: Site) -> None:
    whole = mini.chat(QUESTION, response_format=JSON).json()["choices"][0]["message"]["content"]
    assert joined(chunks(mini.chat(QUESTION, response_format=JSON, stream=True))) == whole
    live = mini.chat(QUESTION, response_format=JSON, stream=True, multiverse={"branches": True})
    assert joined(chunks(live)) == whole
    sampled: Any = {"n": 3, "temperature": 1, "seed": 2, "multiverse": {"thinking_budget": 60}}
    for choice in mini.chat(QUESTION, response_format=JSON, **sampled).json()["choices"]:
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_any_object(mini: Site) -> None:
    # With the brace this likely in the thinking as well, that would go on to its limit.
    brace = str(mini.llm.tokenizer.convert_tokens_to_ids("}"))
    body = mini.chat(
        QUESTION, response_format={"type": "json_object"}, logit_bias={brace: 60}, multiverse={"thinking_budget": 20}
    ).json()
    assert isinstance(json.loads(body["choices"][0]["message"]["content"]), dict)
    text = mini.chat(QUESTION, response_format={"type": "text"}).json()["choices"][0]["message"]
    assert text == mini.chat(QUESTION).json()["choices"][0]["message"]


def test_raw_completions_too(mini: Site) -> None:
    text = mini.complete(f"user: {QUESTION}\n", response_format=JSON).json()["choices"][0]["text"]
    jsonschema.validate(json.loads(text.rpartition(MULTIVERSE.tags[1])[2]), SCHEMA)  # a thinking may come first


@pytest.mark.parametrize(
    ("given", "words", "param"),
    [
        ({"type": "xml"}, "use one of 'text', 'json_object', 'json_schema'", "response_format.type"),
        ({"type": "json_schema"}, "is missing", "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "is missing", "response_format.json_schema.schema"),
        ({"type": "json_object", "schema": {}}, "is not a parameter", "response_format.schema"),
    ],
)
def test_forms_that_are_not_known(mini: Site, given: Any, words: str, param: str) -> None:
    error = error_of(mini.chat(QUESTION, response_format=given))
    assert words in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "integer", "multipleOf": 999983}, "multipleOf"),
        ({"$ref": "#"}, "no answer fits it"),
        ({"enum": ["x" * 200_000]}, "bytes"),
        ({"properties": {f"k{n}": {} for n in range(5000)}}, "5000 properties"),
    ],
)
def test_what_cannot_be_honoured_is_a_400_by_name(mini: Site, schema: Any, words: str) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = error_of(mini.chat(QUESTION, response_format=asked))
    assert error["param"] == "response_format"
    assert words in error["message"]


def test_without_the_guard_it_is_refused(mini: Site) -> None:
    error = error_of(mini.chat(QUESTION, response_format=JSON, multiverse={"guard": False}))
    assert error["param"] == "response_format"


def test_without_the_library_the_error_names_the_extra(mini: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "without"}}}
    error = error_of(mini.chat(QUESTION, response_format=asked))
    assert error["param"] == "response_format"
    assert "multiverse-llm[json]" in error["message"]


def test_bad_schemas_harm_no_other_request(mini: Site) -> None:
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "("}}}
    alone = mini.chat(QUESTION).json()["choices"][0]["message"]
    with ThreadPoolExecutor(6) as pool:
        asked = [None, bad, JSON, bad, None, JSON]
        answers = [*pool.map(lambda form: mini.chat(QUESTION, **({} if form is None else {"response_format": form})), asked)]
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400, 200, 200]
    assert answers[0].json()["choices"][0]["message"] == answers[4].json()["choices"][0]["message"] == alone
    assert answers[2].json()["choices"][0]["message"] == answers[5].json()["choices"][0]["message"]
