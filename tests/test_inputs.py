"""Whatever cannot be honoured, of any type, is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from multiverse import LLM, SamplingParams
from multiverse.errors import RequestError
from multiverse.inputs import messages_of, mode_of
from tests.conftest import FAMILIES, build_tokenizer, save_model

SHORT = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
USER = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    tokenizer = build_tokenizer()
    return LLM(save_model(tmp_path_factory.mktemp("plain"), FAMILIES["qwen2"](len(tokenizer)), tokenizer), kv_memory=2 << 20)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            lambda llm: llm.generate("x", {"temperature": 0}),
            r"0} is no SamplingParams: write SamplingParams\(temp",
        ),
        (lambda llm: llm.generate("x", "greedy"), "'greedy' is no SamplingParams"),
        (lambda llm: llm.generate(["x"], [None]), "None is no SamplingParams"),
        (lambda llm: llm.generate(None), "None is no prompt: give a text, token ids, or a list of them"),
        (lambda llm: llm.generate(5), "5 is no prompt"),
        (lambda llm: llm.generate([1.5]), "1.5 is no prompt"),
        (lambda llm: llm.generate([1, 2.5]), "2.5 is no token id"),
        (lambda llm: llm.generate([[1, True]]), "True is no token id"),
        (lambda llm: llm.generate(["a", None]), "prompt 1: None is no prompt"),
        (lambda llm: llm.generate(b"abc"), "b'abc' is no prompt"),
        (lambda llm: llm.generate({"prompt": "x"}), "is no prompt"),
        (lambda llm: llm.generate({"x"}), "is no prompt"),
        (lambda llm: llm.generate([["a", "b"]]), "'a' is no token id"),
        (lambda llm: llm.generate("a\udc80"), r"the prompt is not valid Unicode \(half a character at 1\)"),
        (lambda llm: llm.generate("x", SHORT, priority="high"), "priority='high' is not valid"),
        (lambda llm: llm.generate("x", SHORT, on_finish=5), "on_finish=5 is not valid"),
        (lambda llm: llm.chat(None), "None is no conversation: give messages"),
        (lambda llm: llm.chat(5), "5 is no conversation"),
        (lambda llm: llm.chat([1, 2]), "prompt 0: 1 is no conversation"),
        (lambda llm: llm.chat(USER), "chat takes a list of messages, not one alone"),
        (lambda llm: llm.chat([("user", "hi")]), "message 0 is 'user'"),
        (
            lambda llm: llm.chat([USER], SHORT, mode="wide"),
            "mode='wide' is not valid: it must be 'parallel', ",
        ),
        (lambda llm: llm.chat([USER], SHORT, mode=["parallel"]), "mode="),
        (lambda llm: llm.stream(None), "None is no prompt"),
        (lambda llm: llm.stream("x", {"temperature": 0}), "is no SamplingParams"),
        (
            lambda llm: llm.stream([[USER], [USER]]),
            "is not one prompt: stream takes a text, token ids, or the messages of one chat",
        ),
        (lambda llm: llm.stream(["a"]), "is not one prompt"),
        (lambda llm: llm.score(None), "None is no prompt"),
        (lambda llm: llm.score([5.5]), "5.5 is no prompt"),
        (lambda llm: llm.encode_chat(5), "5 is no conversation"),
        (lambda _: LLM(5), "model=5 is not valid"),  # type: ignore[arg-type]
        (lambda _: LLM(kv_memory="4GB"), "kv_memory='4GB' is not valid: it must be a whole number of bytes, or None"),  # type: ignore[arg-type]
        (lambda _: LLM(max_requests=0), "max_requests=0 is not valid"),
        (lambda _: LLM(tensor_parallel="2"), "tensor_parallel='2' is not valid"),  # type: ignore[arg-type]
        (lambda _: LLM(dialect="latin"), "dialect='latin' is not known: it must be a Dialect, or one of multiverse, "),
    ],
)
def test_a_wrong_argument(llm: LLM, call: Callable[[Any], Any], problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        call(llm)
    assert not llm.engine.busy


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"content": "x"}, "message 0 has no role"),
        ({"role": None, "content": "x"}, "message 0 has no role"),
        ({"role": "banana", "content": "x"}, "message 0 has the role 'banana': it must be 'system', 'developer', 'user', "),
        ({"role": 5, "content": "x"}, "message 0 has the role 5"),
        ({"role": "user", "content": 5}, "the content of message 0 is 5: it must be a text, or a list of parts"),
        ({"role": "user", "content": None}, "the conversation is empty"),
        ({"role": "user", "content": []}, "the conversation is empty"),
        ({"role": "user", "content": ["hi"]}, "part 0 of message 0 is 'hi'"),
        ({"role": "user", "content": [{"text": "hi"}]}, "part 0 of message 0 is {'text': 'hi'}"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "part 0 of message 0 is"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
            "of type 'image_url', which the model cannot",
        ),
        ({"role": "user", "content": "a\udc80"}, "the content of message 0 is not valid Unicode"),
        ({"role": "user", "content": "x", "name": 5}, "name of message 0 is 5: it must be a text"),
        ({"role": "user", "content": "x", "reasoning": ["y"]}, "reasoning of message 0 is"),
    ],
)
def test_a_wrong_message(llm: LLM, message: Any, problem: str) -> None:
    for call in (llm.chat, llm.stream):
        with pytest.raises(RequestError, match=problem):
            call([message])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "0"},
        {"temperature": 10**400},
        {"top_p": "a"},
        {"top_k": 1.5},
        {"stop": 5},
        {"stop": [None]},
        {"stop": "a\udc80"},
        {"logit_bias": [1]},
        {"logit_bias": {1: "a"}},
        {"logit_bias": {True: 1}},
        {"logit_bias": {1: float("nan")}},
        {"max_tokens": None},
        {"max_tokens": 5.0},
        {"guard": "yes"},
        {"seed": -1},
    ],
)
def test_a_wrong_parameter(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"^{next(iter(wrong))}=.* is not valid: it must be "):
        SamplingParams(**wrong)


def test_a_parameter_that_there_is_not() -> None:
    with pytest.raises(RequestError, match=r"^SamplingParams has no 'temprature': did you mean 'temperature'"):
        SamplingParams(temprature=0)  # type: ignore[call-arg]


def test_numbers_without_bounds_may_be_large(llm: LLM) -> None:
    assert llm.generate("x", SamplingParams(seed=10**400, top_k=10**30, max_tokens=2, ignore_eos=True))
    with pytest.raises(RequestError, match="need more than the"):
        llm.generate("x", SamplingParams(max_tokens=10**400))


def test_a_template_that_refuses_is_one_error_with_its_words(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}x"
    monkeypatch.setattr(llm.tokenizer, "chat_template", template)
    with pytest.raises(RequestError, match="the model's chat template refuses these messages: no system turns here"):
        llm.chat([{"role": "system", "content": "be kind"}, USER], SHORT)


def test_what_is_as_good_as_a_list(llm: LLM) -> None:
    ids = llm.tokenizer.encode("hello")
    (expected,) = llm.generate([ids], SHORT)
    given: list[Any] = [
        np.array(ids),
        torch.tensor(ids),
        torch.tensor([ids]),
        BatchEncoding({"input_ids": ids}),
        tuple(np.array(ids)),
        iter([ids]),
        [np.array(ids)],
    ]
    for prompt in given:
        (found,) = llm.generate(prompt, SHORT)
        assert found.prompt_token_ids == expected.prompt_token_ids
    assert [out.prompt_token_ids for out in llm.generate((text for text in ("a", "b")), SHORT)] == [(64,), (65,)]


def test_parts_of_type_text_are_a_line_each_and_a_template_may_name_roles() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    assert messages_of([parts]) == [{"role": "user", "content": "one\ntwo"}]
    ipython = [{"role": "ipython", "content": "4"}]
    assert messages_of(ipython, "{% if role == 'ipython' %}") == ipython
    assert mode_of("as-is") is mode_of(None) is None


def test_the_same_temperature_everywhere() -> None:
    import typer

    from multiverse.cli.app import app
    from multiverse.common import CommonOptions

    command: Any = typer.main.get_command(app)
    assert SamplingParams().temperature == CommonOptions().temperature == 0.6
    options = {parameter.name: parameter for parameter in command.commands["generate"].params}
    assert options["temperature"].show_default == "0.6, or the preset's"
    assert options["temperature"].default is None, "what is not given is the model's to say"
