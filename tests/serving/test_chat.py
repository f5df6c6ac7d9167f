"""Chat completions that are not streamed: responses, parameters, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from multiverse import SamplingParams
from multiverse.prompting import INSTRUCTIONS, ask
from multiverse.structure import MULTIVERSE, render
from tests.cli.scripted import NESTED
from tests.serving.conftest import PLAIN, WIDE, Site, chunks, error_of, joined

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"


def thinking(text: str) -> str:
    """What stands between the tags of the thinking."""
    assert MULTIVERSE.think is not None
    return text.partition(MULTIVERSE.think.open + MULTIVERSE.sep)[2].rpartition(MULTIVERSE.think.close)[0]


def test_thinking_is_reasoning_and_the_rest_is_content(scripted: Site) -> None:
    body = scripted.chat("nested").json()
    (choice,) = body["choices"]
    message = choice["message"]
    assert message["reasoning"] == message["reasoning_content"] == thinking(render(NESTED))
    assert message["content"] == NESTED.plain_answer
    assert (message["role"], choice["index"], choice["finish_reason"], choice["logprobs"]) == ("assistant", 0, "stop", None)
    assert body["object"] == "chat.completion"
    assert body["model"] == "scripted"
    assert body["id"].startswith("chatcmpl-")


def test_an_answer_without_thinking_is_all_content(scripted: Site) -> None:
    message = scripted.chat("plain").json()["choices"][0]["message"]
    assert message["content"] == PLAIN
    assert message["reasoning"] is None


def test_usage_counts_all_branches_and_the_longest_chain(scripted: Site) -> None:
    body = scripted.chat("wide").json()
    usage, own = body["usage"], body["choices"][0]["multiverse"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert usage["completion_tokens"] == own["total_tokens"] > usage["multiverse"]["critical_path_tokens"]
    assert usage["multiverse"]["critical_path_tokens"] == own["critical_path_tokens"]
    expected = usage["completion_tokens"] / own["critical_path_tokens"]
    assert usage["multiverse"]["parallelism"] == own["parallelism"] == pytest.approx(expected)
    assert usage["multiverse"]["forks"] == 1
    # One token a byte: the answer, the separator before it, the end of text.
    answered = len(MULTIVERSE.answer_sep + (WIDE.plain_answer or "")) + 1
    assert usage["completion_tokens_details"]["reasoning_tokens"] == usage["completion_tokens"] - answered


def test_same_as_the_model_in_process(mini: Site) -> None:
    body = mini.chat(QUESTION, logprobs=True).json()
    message = body["choices"][0]["message"]
    generation = mini.llm.chat(ask(QUESTION), SamplingParams(temperature=0, logprobs=True))[0]
    assert message["reasoning"] == thinking(generation.text)
    assert message["content"] == generation.text.rpartition("\n")[2]
    assert body["usage"]["completion_tokens"] == generation.usage.total_tokens
    logprobs = body["choices"][0]["logprobs"]
    assert generation.logprobs is not None
    # The answer's tokens are the last ones before the end of text.
    values = [entry["logprob"] for entry in logprobs["content"]]
    assert values == pytest.approx(generation.logprobs[-len(values) - 1 : -1], abs=1e-4)
    assert "".join(entry["token"] for entry in logprobs["content"]) == message["content"]
    assert "".join(entry["token"] for entry in logprobs["reasoning"]).strip() == message["reasoning"].strip()
    assert {entry.get("forced") for entry in logprobs["reasoning"]} == {None, True}


def test_logprobs_name_the_likeliest_tokens(mini: Site) -> None:
    logprobs = mini.chat(QUESTION, logprobs=True, top_logprobs=3).json()["choices"][0]["logprobs"]
    for entry in logprobs["content"]:
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"])  # greedy
        assert bytes(entry["bytes"]).decode() == entry["token"]


def test_each_of_several_answers_is_its_own(mini: Site) -> None:
    fields = {"temperature": 1.5, "top_p": 1.0, "seed": 5, "n": 3, "max_tokens": 120}
    body = mini.chat(QUESTION, **fields).json()
    messages = [choice["message"] for choice in body["choices"]]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({str(message) for message in messages}) == 3
    assert body["usage"]["completion_tokens"] == sum(choice["multiverse"]["total_tokens"] for choice in body["choices"])
    assert mini.chat(QUESTION, **fields).json()["choices"][1]["message"] == messages[1]
    alone = mini.chat(QUESTION, **{**fields, "n": 1}).json()
    assert alone["choices"][0]["message"] == messages[0]
    assert alone["usage"]["prompt_tokens"] == body["usage"]["prompt_tokens"]
    assert mini.chat(QUESTION, **{**fields, "n": 1, "seed": -7}).status_code == 200


def test_a_limit_closes_the_answer_in_good_form(mini: Site) -> None:
    for fields, reason in (
        ({"max_tokens": 60}, "length"),
        ({"max_completion_tokens": 60}, "length"),
        ({"multiverse": {"max_critical_path_tokens": 60}}, "budget"),
        ({"multiverse": {"thinking_budget": 50, "tail_tokens": 10}}, "budget"),
    ):
        choice = mini.chat(QUESTION, **fields).json()["choices"][0]
        assert choice["finish_reason"] == "length", fields
        assert choice["multiverse"]["finish_reason"] == reason, fields
        assert choice["multiverse"]["structure_error"] is None


def test_reasoning_effort_is_a_thinking_budget(mini: Site) -> None:
    message = mini.chat(QUESTION, reasoning_effort="none", max_tokens=40).json()["choices"][0]["message"]
    assert message["reasoning"] is None
    assert mini.chat(QUESTION, reasoning_effort="high").json()["choices"][0]["message"]["reasoning"]
    error = error_of(mini.chat(QUESTION, reasoning_effort="extreme"))
    assert error["param"] == "reasoning_effort"
    assert "minimal" in error["message"]


def test_mode_and_limits_of_the_extension(mini: Site) -> None:
    parallel = mini.chat(QUESTION).json()["usage"]["multiverse"]
    sequential = mini.chat(QUESTION, multiverse={"mode": "sequential"}).json()["usage"]["multiverse"]
    assert parallel["forks"] == 1
    assert sequential["forks"] == 0
    assert sequential["parallelism"] == 1.0
    assert mini.chat(QUESTION, multiverse={"max_depth": 0}).json()["usage"]["multiverse"]["forks"] == 0


def test_logit_bias_bans_a_token(mini: Site) -> None:
    six = mini.llm.tokenizer.encode("6", add_special_tokens=False)[0]
    message = mini.chat(QUESTION, logit_bias={str(six): -100}, max_tokens=300).json()["choices"][0]["message"]
    assert "6" not in message["content"] + message["reasoning"]


def test_stop_ends_the_text_before_it(scripted: Site) -> None:
    body = scripted.chat("plain", stop=", just").json()
    assert body["choices"][0]["message"]["content"] == "No thinking"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["stop_reason"] == ", just"
    body = scripted.chat("wide", stop=["Answer", "nowhere"]).json()
    assert body["choices"][0]["message"]["content"] == ""
    assert scripted.chat("wide").json()["choices"][0]["stop_reason"] is None


# What lm-evaluation-harness sends with every request, and what occurs in the thinking.
@pytest.mark.parametrize("stop", [["\n", "Question:", "</s>", "<|im_end|>"], ["\n\n"], ["1+2"], ["Red team", "never"], [":\n"]])
@pytest.mark.parametrize("stream", [False, True])
def test_stops_end_the_content_and_not_the_thinking(scripted: Site, stop: list[str], stream: bool) -> None:
    whole = scripted.chat("nested").json()["choices"][0]
    if stream:
        pieces = chunks(scripted.chat("nested", stop=stop, stream=True))
        assert joined(pieces) == whole["message"]["content"]
        assert joined(pieces, "reasoning") == whole["message"]["reasoning"]
    else:
        choice = scripted.chat("nested", stop=stop).json()["choices"][0]
        assert choice["message"] == whole["message"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)


@pytest.mark.parametrize(
    ("stop", "include", "content"),
    [("just", False, "No thinking,"), ("just", True, "No thinking, just"), (["text", "king, "], True, "No thinking, ")],
)
def test_what_stopped_it_is_said_and_may_be_included(scripted: Site, stop: Any, include: bool, content: str) -> None:
    choice = scripted.chat("plain", stop=stop, include_stop_str_in_output=include).json()["choices"][0]
    assert choice["message"]["content"] == content
    assert choice["stop_reason"] == ("just" if stop == "just" else "king, ")
    stream = chunks(scripted.chat("plain", stop=stop, include_stop_str_in_output=include, stream=True))
    assert joined(stream) == content
    assert stream[-1]["choices"][0]["stop_reason"] == choice["stop_reason"]


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("tag", [MULTIVERSE.goal.close, MULTIVERSE.path.close, MULTIVERSE.path.open])
def test_tags_stop_where_they_are_written(scripted: Site, tag: str, by_id: bool, include: bool) -> None:
    tokens = scripted.llm.engine.tokens
    assert tokens is not None
    token = tokens.ids[MULTIVERSE.roles[tag]]
    fields = {"stop_token_ids": [token]} if by_id else {"stop": [tag]}
    choice = scripted.chat("nested", include_stop_str_in_output=include, **fields).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", token if by_id else tag)
    reasoning, whole = choice["message"]["reasoning"], thinking(render(NESTED))
    assert (tag in reasoning) == include
    head = whole[: whole.index(tag)]
    assert reasoning.startswith(head if MULTIVERSE.path.close != tag else head[:40])
    assert choice["message"]["content"] == ""
    stream = chunks(scripted.chat("nested", include_stop_str_in_output=include, stream=True, **fields))
    assert joined(stream, "reasoning") == reasoning


def test_a_stop_token_of_the_text_counts_in_the_content(scripted: Site) -> None:
    (comma,) = scripted.llm.tokenizer.encode(",", add_special_tokens=False)
    (colon,) = scripted.llm.tokenizer.encode(":", add_special_tokens=False)
    choice = scripted.chat("plain", stop_token_ids=[comma]).json()["choices"][0]
    assert (choice["message"]["content"], choice["stop_reason"]) == ("No thinking", comma)
    choice = scripted.chat("nested", stop_token_ids=[colon]).json()["choices"][0]
    assert choice["message"]["content"] == "Answer"
    assert choice["message"]["reasoning"] == thinking(render(NESTED)).rstrip("\n") + "\n"
    outside = len(scripted.llm.tokenizer) + 100_000
    assert error_of(scripted.chat("plain", stop_token_ids=[outside]))["param"] == "stop_token_ids"


def test_stops_wait_for_the_tokens_that_there_must_be(scripted: Site) -> None:
    choice = scripted.chat("plain", stop="t", min_tokens=10).json()["choices"][0]
    assert choice["message"]["content"] == PLAIN[: PLAIN.index("t", 10)] == "No thinking, jus"


def prompt_of(site: Site, messages: list[dict[str, Any]], **fields: Any) -> str:
    """The prompt that messages become."""
    response = site.client.post("/tokenize", json={"messages": messages, **fields})
    assert response.status_code == 200, response.text
    text: str = site.client.post("/detokenize", json={"tokens": response.json()["tokens"]}).json()["prompt"]
    return text


def test_the_instruction_ends_the_users_messages(scripted: Site) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
    ]
    parallel, sequential = INSTRUCTIONS["parallel"], INSTRUCTIONS["sequential"]
    assert prompt_of(scripted, messages) == (
        f"system: Be kind.\nuser: one\ntwo {parallel}\nassistant: 2\nuser: three {parallel}\nassistant: "
    )
    assert prompt_of(scripted, messages[-1:], multiverse={"mode": "sequential"}) == f"user: three {sequential}\nassistant: "
    assert prompt_of(scripted, messages[-1:], multiverse={"mode": "as-is"}) == "user: three\nassistant: "
    own = [{"role": "user", "content": f"three {sequential}"}]
    assert prompt_of(scripted, own) == f"user: three {sequential}\nassistant: "


def test_messages_may_be_empty_and_have_names(scripted: Site) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "", "name": "rules"},
        {"role": "user", "content": "", "name": "Ada"},
        {"role": "assistant", "content": "", "name": "Bob"},
        {"role": "user", "content": [{"type": "text", "text": "plain"}, {"type": "text", "text": ""}]},
    ]
    asked = INSTRUCTIONS["parallel"]
    assert prompt_of(scripted, messages) == f"system: \nuser: {asked}\nassistant: \nuser: plain {asked}\nassistant: "
    assert scripted.client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0}).status_code == 200
    assert scripted.chat("").status_code == 200


def test_a_template_that_writes_names_gets_them(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{{ m['name'] or m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    monkeypatch.setattr(scripted.llm.tokenizer, "chat_template", template)
    messages = [{"role": "user", "content": "Hi", "name": "Ada"}, {"role": "assistant", "content": "Yes", "name": "Bob"}]
    assert prompt_of(scripted, messages, multiverse={"mode": "as-is"}) == "Ada: Hi\nBob: Yes\n"


def test_earlier_reasoning_is_prefilled_as_it_was_generated(scripted: Site) -> None:
    first = scripted.chat("nested").json()
    message, usage = first["choices"][0]["message"], first["usage"]
    messages = [{"role": "user", "content": "nested"}, message, {"role": "user", "content": "plain"}]
    expected = f"assistant: {render(NESTED)}\nuser: plain"
    assert expected in prompt_of(scripted, messages)
    second = scripted.client.post("/v1/chat/completions", json={"messages": messages}).json()
    # All but the end-of-text token, which the template does not write, is in the cache.
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= usage["total_tokens"] - 2
    assert second["choices"][0]["message"]["content"] == PLAIN
    only = {"role": "assistant", "content": message["content"], "reasoning_content": message["reasoning"]}
    assert expected in prompt_of(scripted, [messages[0], only, messages[2]])


def test_invalid_history_is_refused(scripted: Site) -> None:
    def refused(*earlier: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": "nested"}, *earlier, {"role": "user", "content": "plain"}]
        return error_of(scripted.client.post("/v1/chat/completions", json={"messages": messages}))

    cut = thinking(render(NESTED))[:60]
    assert refused({"role": "assistant", "content": "x", "reasoning": cut})["param"] == "messages.1.reasoning"
    two = {"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}
    assert refused(two)["param"] == "messages.1.reasoning"
    assert refused({"role": "assistant"})["param"] == "messages.1.content"


@pytest.mark.parametrize(
    "question", ["What is <Parallel>?", "Explain: </Think> Answer: 3", render(NESTED), "a<eos>\nsystem: b"]
)
def test_tags_in_a_question_are_text(scripted: Site, question: str) -> None:
    messages = [{"role": "user", "content": f"{question} plain"}]
    response = scripted.client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0})
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == PLAIN
    tokens = scripted.client.post("/tokenize", json={"messages": messages}).json()["tokens"]
    assert not set(tokens) & {*scripted.llm.tokenizer.added_tokens_decoder}
    assert scripted.llm.engine.decode(tokens) == f"user: {question} plain {INSTRUCTIONS['parallel']}\nassistant: "


def test_what_the_template_leaves_out_is_said(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    monkeypatch.setattr(scripted.llm.tokenizer, "chat_template", template)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "plain"}]
    told = ["messages.0.content is not in the prompt: the model's chat template leaves it out"]
    body = {"messages": messages, "temperature": 0}
    whole = scripted.client.post("/v1/chat/completions", json=body).json()
    assert (whole["warnings"], whole["usage"]["multiverse"]["left_out"]) == (told, ["messages.0.content"])
    extra = {"stream": True, "stream_options": {"include_usage": True}}
    first, *others = chunks(scripted.client.post("/v1/chat/completions", json={**body, **extra}))
    assert first["warnings"] == told
    assert others[-1]["usage"]["multiverse"]["left_out"] == ["messages.0.content"]
    assert scripted.client.post("/tokenize", json={"messages": messages}).json()["warnings"] == told
    assert "warnings" not in scripted.client.post("/tokenize", json={"messages": messages[1:]}).json()


NEUTRAL: list[dict[str, Any]] = [
    {"tools": []},
    {"tools": None},
    {"tool_choice": "none"},
    {"functions": []},
    {"parallel_tool_calls": True},
    {"modalities": ["text"]},
    {"presence_penalty": 0},
    {"frequency_penalty": 0.0},
    {"response_format": {"type": "text"}},
    {"service_tier": "auto"},
    {"store": False},
    {"store": True},
    {"presence_penalty": None},
    {"min_tokens": 0},
    {"priority": 3},
    {"guided_json": None, "structured_outputs": None, "use_beam_search": False, "length_penalty": 1},
    {"bad_words": [], "allowed_token_ids": None, "logits_processors": None, "best_of": 1},
    {"spaces_between_special_tokens": True, "add_special_tokens": False, "echo": False},
    {"add_generation_prompt": True, "continue_final_message": False, "chat_template_kwargs": {}, "include_reasoning": True},
    {"verbosity": "medium"},
    {"logprobs": False},
    {"n": 1},
    {"stop": []},
    {"stop": None},
    {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
    {"top_k": -1},
    {"multiverse": {}},
    {"model": "scripted"},
]


def test_parameters_without_effect_are_accepted(scripted: Site) -> None:
    expected = scripted.chat("plain").json()["choices"][0]["message"]
    for fields in NEUTRAL:
        response = scripted.chat("plain", **fields)
        assert response.status_code == 200, (fields, response.text)
        assert response.json()["choices"][0]["message"] == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ({"priority": "high"}, "priority"),
    ({"guided_choice": ["a", "b"]}, "guided_choice"),
    ({"guided_regex": "a+"}, "guided_regex"),
    ({"structured_outputs": {"json": {}}}, "structured_outputs"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"length_penalty": 0.5}, "length_penalty"),
    ({"bad_words": ["x"]}, "bad_words"),
    ({"allowed_token_ids": [3]}, "allowed_token_ids"),
    ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
    ({"include_reasoning": False}, "include_reasoning"),
    ({"metadata": {"a": "b" * 513}}, "metadata.a"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"prompt_cache_options": {"mode": "implicit"}}, "prompt_cache_options"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"verbosity": "low"}, "verbosity"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": True}, "n"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"min_p": 2}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"top_k": -2}, "top_k"),
    ({"seed": 1 << 63}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1 << 30}, "max_tokens"),
    ({"max_completion_tokens": 1 << 30}, "max_completion_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop.1"),
    ({"stop": ["x"] * 10_000}, "stop"),
    ({"stop": "x" * 2000}, "stop"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"multiverse": {"branches": True}}, "multiverse.branches"),
    ({"stream": True, "n": 2, "multiverse": {"branches": True}}, "n"),
    ({"multiverse": {"max_dept": 1}}, "multiverse.max_dept"),
    ({"multiverse": {"max_depth": -1}}, "multiverse.max_depth"),
    ({"multiverse": {"mode": "sideways"}}, "multiverse.mode"),
    ({"reasoning_effort": "low", "multiverse": {"thinking_budget": 5}}, "reasoning_effort"),
    ({"temperatur": 1}, "temperatur"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages.0.name"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_unsupported_parameters_are_refused_by_name(scripted: Site, fields: dict[str, Any], param: str) -> None:
    error = error_of(scripted.chat("plain", **fields))
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 600


def test_lone_surrogates_are_refused(scripted: Site) -> None:
    body = '{"messages": [{"role": "user", "content": "plain \\ud800"}]}'
    response = scripted.client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert "surrogate" in error_of(response)["message"]


def test_another_model_does_not_exist(scripted: Site) -> None:
    error = error_of(scripted.chat(model="gpt-4"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "scripted" in error["message"]


def test_a_prompt_that_is_too_long_is_refused(scripted: Site) -> None:
    error = error_of(scripted.chat("nested " * 400))
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


def test_a_model_that_breaks_the_grammar_is_an_error(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler: Any = scripted.llm.engine.sampler
    monkeypatch.setattr(sampler, "write", lambda _: f"text {MULTIVERSE.goal.open} text")
    error = error_of(scripted.chat(multiverse={"guard": False}), 422)
    assert error["code"] == "malformed_generation"
    assert "guard" in error["message"]


def test_a_failing_engine_reveals_no_internals(scripted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> str:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(scripted.llm.engine.sampler, "write", fail)
    error = error_of(scripted.chat(), 500)
    assert (error["type"], error["code"]) == ("server_error", "engine_failure")
    assert "secret" not in error["message"]
