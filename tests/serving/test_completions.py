"""Text completions: raw text is continued, and returned as generated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multiverse import SamplingParams
from multiverse.structure import MULTIVERSE, render
from tests.cli.scripted import NESTED
from tests.serving.conftest import PLAIN, WIDE, Site, choices, chunks, error_of


def text_of(stream: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(choice["text"] for choice in choices(stream, index))


def test_the_text_includes_the_tags(scripted: Site) -> None:
    body = scripted.complete("nested").json()
    (choice,) = body["choices"]
    assert choice["text"] == render(NESTED)
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["usage"]["prompt_tokens"] == len("nested")


def test_same_as_the_model_in_process(mini: Site) -> None:
    prompt = "3+4="
    text = mini.complete(prompt, max_tokens=20).json()["choices"][0]["text"]
    assert text == mini.llm.generate(prompt, SamplingParams(temperature=0, max_tokens=20))[0].text


@pytest.mark.parametrize("extension", [{}, {"branches": True}], ids=["ordinary", "branches"])
@pytest.mark.parametrize("stop", [None, ["1+2"], "\n1"])
def test_streams_add_up(scripted: Site, extension: dict[str, Any], stop: Any) -> None:
    whole = scripted.complete("nested", stop=stop).json()["choices"][0]
    stream = chunks(scripted.complete("nested", stop=stop, stream=True, multiverse=extension))
    assert text_of(stream) == whole["text"]
    assert choices(stream)[-1]["finish_reason"] == "stop"
    assert [chunk["multiverse"]["event"] for chunk in stream if "multiverse" in chunk][-1:] == (["finish"] if extension else [])


def test_stops_may_come_in_any_branch(scripted: Site) -> None:
    choice = scripted.complete("nested", stop="1+2").json()["choices"][0]
    assert choice["stop_reason"] == "1+2"
    assert "1+2" not in choice["text"]
    assert "Red team" in choice["text"]
    choice = scripted.complete("nested", stop="1+2", include_stop_str_in_output=True).json()["choices"][0]
    assert choice["text"].count("1+2") == 1
    tag = MULTIVERSE.goal.close
    choice = scripted.complete("nested", stop=[tag]).json()["choices"][0]
    assert (choice["text"], choice["stop_reason"]) == (render(NESTED)[: render(NESTED).index(tag)], tag)
    assert scripted.complete("nested").json()["choices"][0]["stop_reason"] is None


def test_prompts_of_every_form(scripted: Site) -> None:
    ids = scripted.llm.tokenizer.encode("wide")
    assert scripted.complete(ids).json()["choices"][0]["text"] == render(WIDE)
    texts = [choice["text"] for choice in scripted.complete(["plain", "nested"]).json()["choices"]]
    assert texts == [PLAIN, render(NESTED)]
    body = scripted.complete([ids, ids], n=2).json()
    assert [choice["text"] for choice in body["choices"]] == [render(WIDE)] * 4
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["prompt_tokens"] == 2 * len(ids)
    stream = chunks(scripted.complete(["plain", "wide"], stream=True, echo=True))
    assert [text_of(stream, index) for index in (0, 1)] == ["plain" + PLAIN, "wide" + render(WIDE)]


def test_each_prompt_has_its_own_default_of_max_tokens(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    size = scripted.llm.engine.slots.size
    monkeypatch.setattr(scripted.service, "config", replace(scripted.service.config, default_max_tokens=size))
    sent: list[list[SamplingParams]] = []
    submit = scripted.service.submit

    def watch(prompts: Any, params: Any, param: Any, **others: Any) -> Any:
        sent.append(params)
        return submit(prompts, params, param, **others)

    monkeypatch.setattr(scripted.service, "submit", watch)
    ids = scripted.llm.tokenizer.encode("plain")
    scripted.complete([ids, ids * 2])
    assert [params.max_tokens for params in sent[0]] == [size - len(ids), size - 2 * len(ids)]


def test_echo_begins_with_the_prompt(scripted: Site) -> None:
    assert scripted.complete("plain", echo=True).json()["choices"][0]["text"] == "plain" + PLAIN


def test_logprobs_in_the_old_form(scripted: Site) -> None:
    told = scripted.complete("nested", logprobs=2).json()["choices"][0]["logprobs"]
    assert "".join(told["tokens"]) == render(NESTED)
    offsets = [0]
    for token in told["tokens"]:
        offsets.append(offsets[-1] + len(token))
    assert told["text_offset"] == offsets[:-1]
    # The two likeliest, and the token itself, which the scripted model takes whatever its odds.
    assert {len(top) for top in told["top_logprobs"] if top is not None} <= {2, 3}
    assert told["tokens"][-1] == ""  # the end of text
    assert all(name in top for name, top in zip(told["tokens"][:-1], told["top_logprobs"], strict=False) if top is not None)
    # What the engine wrote, the model has no opinion of.
    assert [top is None for top in told["top_logprobs"]] == [value is None for value in told["token_logprobs"]]
    assert None in told["token_logprobs"]
    stream = chunks(scripted.complete("nested", logprobs=2, stream=True))
    parts = [choice["logprobs"] for choice in choices(stream) if choice["logprobs"]]
    for name, values in told.items():
        streamed = [value for part in parts for value in part[name]]
        if name in ("tokens", "text_offset"):
            assert streamed == values
        assert len(streamed) == len(values)


def test_penalties_and_min_tokens_are_the_engine_s(mini: Site) -> None:
    prompt, given = "3+4=", {"presence_penalty": 1.5, "frequency_penalty": -0.5, "repetition_penalty": 1.1, "min_tokens": 30}
    text = mini.complete(prompt, max_tokens=30, **given).json()["choices"][0]["text"]
    (expected,) = mini.llm.generate(prompt, SamplingParams(temperature=0, max_tokens=30, **given))  # type: ignore[arg-type]
    assert text == expected.text
    assert len(expected.token_ids) == 30
    (plain,) = mini.llm.generate(prompt, SamplingParams(temperature=0, max_tokens=30, min_tokens=30))
    assert text != plain.text


def test_a_lower_priority_is_a_higher_one_of_the_engine(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    submit = scripted.llm.engine.submit

    def watch(*arguments: Any, **others: Any) -> Any:
        seen.append(others["priority"])
        return submit(*arguments, **others)

    monkeypatch.setattr(scripted.llm.engine, "submit", watch)
    assert scripted.complete("plain", priority=7).status_code == 200
    assert scripted.chat("plain", priority=-2).status_code == 200
    assert scripted.chat("plain").status_code == 200
    assert seen == [-7, 2, 0]


def test_special_tokens_at_the_beginning_can_be_left_out(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = scripted.llm.tokenizer
    encode = tokenizer.encode
    monkeypatch.setattr(
        tokenizer,
        "encode",
        lambda text, add_special_tokens=True: [7] * add_special_tokens + encode(text, add_special_tokens=False),
    )
    counts = [
        scripted.complete("plain", **fields).json()["usage"]["prompt_tokens"]
        for fields in ({}, {"add_special_tokens": True}, {"add_special_tokens": False})
    ]
    assert counts == [6, 6, 5]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": [""]}, "prompt.0"),
    ({"prompt": [99999]}, "prompt"),
    ({"prompt": ["plain", "nested " * 400]}, "prompt.1"),
    ({"prompt": "plain", "best_of": 2}, "best_of"),
    ({"prompt": "plain", "suffix": "x"}, "suffix"),
    ({"prompt": "plain", "logprobs": 21}, "logprobs"),
    ({"prompt": "plain", "logprobs": True}, "logprobs"),
    ({"prompt": "plain", "prompt_logprobs": -1}, "prompt_logprobs"),
    ({"prompt": "plain", "prompt_logprobs": 21}, "prompt_logprobs"),
    ({"prompt": "plain", "prompt_embeds": "x"}, "prompt_embeds"),
    ({"prompt": "plain", "messages": []}, "messages"),
    ({"prompt": "plain", "reasoning_effort": "low"}, "reasoning_effort"),
    ({"prompt": "plain", "multiverse": {"mode": "parallel"}}, "multiverse.mode"),
    ({"prompt": ["plain", "wide"], "stream": True, "multiverse": {"branches": True}}, "prompt"),
    ({"stream": False}, "prompt"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_honoured_is_refused_by_name(scripted: Site, fields: dict[str, Any], param: str) -> None:
    error = error_of(scripted.client.post("/v1/completions", json=fields))
    assert error["param"] == param, error


def test_what_changes_nothing_is_accepted(scripted: Site) -> None:
    for fields in ({"best_of": 1}, {"suffix": ""}, {"suffix": None}, {"echo": False}, {"user": "u"}):
        response = scripted.complete("plain", **fields)
        assert response.status_code == 200, (fields, response.text)
        assert response.json()["choices"][0]["text"] == PLAIN
