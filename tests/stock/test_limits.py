"""Guard, limits and sampling parameters over a server that masks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from multiverse import SamplingParams, StockLLM
from multiverse.errors import RequestError
from multiverse.structure import Role, TokenDialect, render
from tests.conftest import build_tokenizer
from tests.engine.steering import NESTED, two_paths
from tests.stock.brains import Scripted
from tests.stock.conftest import PROMPT, Serve
from tests.stock.loopback import Loopback, Score, running

GREEDY = SamplingParams(temperature=0, max_tokens=2000)


class Endless:
    """Opens a thinking and a block with two paths, whose texts never end; closes nothing by itself."""

    def __init__(self, tokens: TokenDialect, prompt: int) -> None:
        text = render(two_paths())
        closing = text.index("one")
        self.start, self.tokens, self.prompt = tokens.encode(text[:closing]), tokens, prompt

    def __call__(self, context: Sequence[int]) -> Score:
        own = list(context[self.prompt :])
        if own == self.start[: len(own)] and len(own) < len(self.start):
            return {self.start[len(own)]: 10.0, ord("y"): 1.0}
        if context[-1:] == self.tokens.encode(":"):  # after a label
            return {self.tokens.encode(" ")[0]: 1.0}
        return {self.tokens.encode(text)[0]: score for text, score in (("x", 10.0), (" ", 5.0), ("\n", 2.0))}


@pytest.fixture
def endless(tokens: TokenDialect, tokenizer: Any) -> Endless:
    return Endless(tokens, len(tokenizer.encode(PROMPT)))


@pytest.mark.parametrize("by_text", [False, True], ids=["ids", "text"])
def test_no_budget_is_exceeded_and_everything_is_closed(serve: Serve, endless: Endless, by_text: bool) -> None:
    llm, up = serve(endless, by_text=by_text)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=300))
    assert out.finish_reason == "length"
    assert out.usage.total_tokens <= 300
    assert out.tree is not None
    assert out.tree.branches == 2
    assert {label for label, _ in out.closed} == {"1", "2"}
    up.settled()


def test_a_path_has_a_limit_of_its_own(serve: Serve, endless: Endless) -> None:
    llm, up = serve(endless)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=300, max_branch_tokens=30))
    assert out.closed == (("1", "length"), ("2", "length")) or out.closed == (("2", "length"), ("1", "length"))
    for label in ("1", "2"):
        assert sum(branch == label for branch in out.branches) <= 30
    up.settled()


def test_the_deadline_holds_though_nothing_comes(serve: Serve, endless: Endless) -> None:
    llm, up = serve(endless, pause=0.01)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, max_seconds=0.6, reserved_tokens=16))
    assert out.finish_reason == "deadline"
    assert out.usage.total_tokens < 200
    assert out.tree is not None
    up.settled()


def test_the_context_of_the_server_is_not_exceeded(serve: Serve, endless: Endless) -> None:
    llm, up = serve(endless, max_len=160)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000))
    assert out.finish_reason == "length"
    assert all(len(context) + body["max_tokens"] <= 160 for context, body in zip(up.contexts, up.bodies, strict=True))
    with pytest.raises(RequestError, match="the server takes at most 159"):
        llm.generate([[1] * 160])
    up.settled()


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize("by_text", [False, True], ids=["ids", "text"])
def test_a_tag_beyond_a_limit_is_asked_for_again(
    serve: Serve, tokens: TokenDialect, tokenizer: Any, kind: Any, by_text: bool
) -> None:
    if by_text and kind != "llamacpp":
        return  # which cannot be told to avoid a text
    brain = Scripted(NESTED, tokens, tokenizer.eos_token_id, more={ord("y"): 1.0}, prompt=len(tokenizer.encode(PROMPT)))
    llm, up = serve(brain, kind, by_text=by_text)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=60, max_depth=0))
    assert out.tree is None or out.tree.branches == 0
    assert tokens.tag(Role.BLOCK_OPEN) not in out.text
    told = [body for body in up.bodies if body.get("logit_bias")]
    assert told
    assert all(body["max_tokens"] == 1 for body in told)
    up.settled()


def test_what_a_server_cannot_be_told_ends_the_answer_as_malformed(serve: Serve) -> None:
    llm, up = serve(two_paths(), "openai", by_text=True)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=200, max_depth=0))
    assert out.finish_reason == "malformed"
    assert "which a limit of this request forbids" in str(out.structure_error)
    up.settled()


@pytest.mark.parametrize("guard", [True, False])
def test_the_guard_over_a_server(serve: Serve, tokens: TokenDialect, tokenizer: Any, guard: bool) -> None:
    """The model closes the thinking inside of a path."""
    brain = Scripted(two_paths(), tokens, tokenizer.eos_token_id, prompt=len(tokenizer.encode(PROMPT)))
    wrong, place = tokens.ids[Role.THINK_CLOSE], tokens.encode("<Path>\n1: o")

    def misled(context: Sequence[int]) -> Score:
        score = dict(brain(context))
        return {**score, wrong: 20.0} if list(context[-len(place) :]) == place else score

    llm, up = serve(misled)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, guard=guard))
    assert out.finish_reason == ("stop" if guard else "malformed")
    if guard:
        assert out.tree == two_paths()
        (told,) = (body for body in up.bodies if body.get("logit_bias"))
        assert told["logit_bias"][str(wrong)] == -100
    else:
        assert "found </Think>" in str(out.structure_error)
    up.settled()


def test_parameters_go_to_the_server(serve: Serve) -> None:
    params = SamplingParams(
        temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.02, seed=3, max_tokens=600, logit_bias={65: -1.5}
    )
    llm, up = serve(two_paths())
    (out,) = llm.generate(PROMPT, params)
    assert out.finish_reason == "stop"
    for body in up.bodies:
        assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.5, 0.9, 7, 0.1)
        assert body["repetition_penalty"] == 1.02
        assert body["logit_bias"] == {"65": -1.5}
        assert body["n" if "n" in body else "stream"] in (1, True)
    seeds = [body["seed"] for body in up.bodies]
    assert len(set(seeds)) == len(seeds) == 4  # trunk, two paths, trunk
    first = list(up.bodies)
    llm.generate(PROMPT, params)
    again = [body["seed"] for body in up.bodies[len(first) :]]
    assert sorted(again) == sorted(seeds)


@pytest.mark.parametrize(
    ("kind", "params", "name"),
    [
        ("openai", {"top_k": 5}, "top_k=5 cannot be honoured by a server of OpenAI"),
        ("openai", {"min_p": 0.1}, "min_p=0.1"),
        ("openai", {"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ("openai", {"path_repetition_penalty": 1.02}, "path_repetition_penalty=1.02"),
        ("openai", {"ignore_eos": True}, "ignore_eos=True"),
        ("openai", {"top_logprobs": 9}, "top_logprobs=9"),
        ("openai", {"logit_bias": {5: 1.0}}, "logit_bias needs token ids"),
        ("openai", {"stop_token_ids": [5]}, "stop_token_ids needs token ids"),
        ("openai", {"min_tokens": 5}, "min_tokens=5"),
        ("vllm", {"prompt_logprobs": 1}, "prompt_logprobs cannot be honoured"),
        ("vllm", {"share_every": 4}, "share_every cannot be honoured"),
        ("vllm", {"supports": True}, "supports=True cannot be honoured"),
        ("vllm", {"logprobs": True, "logprobs_mode": "processed_logprobs"}, "logprobs_mode='processed_logprobs' cannot be"),
        ("vllm", {"response_format": {"type": "json_object"}}, "response_format cannot be honoured"),
        ("vllm", {"logit_bias": {10**6: 1.0}}, "logit_bias names token id 1000000"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(serve: Serve, kind: Any, params: dict[str, Any], name: str) -> None:
    llm, up = serve(two_paths(), kind, by_text=kind == "openai")
    with pytest.raises(RequestError, match=name):
        llm.generate(PROMPT, SamplingParams(**params))
    with pytest.raises(RequestError, match=name):
        llm.stream(PROMPT, SamplingParams(**params))
    assert up.bodies == []


@pytest.mark.parametrize(("kind", "name"), [("vllm", "repetition_penalty"), ("llamacpp", "repeat_penalty")])
def test_the_penalty_of_paths_is_set_back_at_the_join(serve: Serve, kind: Any, name: str) -> None:
    llm, up = serve(two_paths(), kind)
    llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, repetition_penalty=1.1, path_repetition_penalty=1.02))
    assert [body[name] for body in up.bodies] == [1.1, 1.02, 1.02, 1.1]


@pytest.mark.parametrize("kind", ["vllm", "llamacpp"])
def test_log_probabilities(serve: Serve, kind: Any) -> None:
    llm, up = serve(two_paths(), kind)
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, logprobs=True, top_logprobs=2))
    assert out.logprobs is not None
    assert out.top_logprobs is not None
    for token, forced, value, top in zip(out.token_ids, out.forced, out.logprobs, out.top_logprobs, strict=True):
        assert (value is None) == forced
        assert value is None or (value == 10.0 and top == ((token, 10.0),))
    up.settled()


def test_stop_strings_end_what_runs_upstream(serve: Serve) -> None:
    llm, up = serve(two_paths())
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, stop="long"))
    assert (out.finish_reason, out.stop_reason) == ("stop", "long")
    assert "long" not in out.text
    up.settled()


def test_the_end_of_text_may_not_come_too_early(serve: Serve, tokens: TokenDialect, tokenizer: Any) -> None:
    brain = Scripted(two_paths(), tokens, tokenizer.eos_token_id, more={ord("y"): 1.0}, prompt=len(tokenizer.encode(PROMPT)))
    llm, up = serve(brain)
    shortest = llm.generate(PROMPT, GREEDY)[0].usage.total_tokens
    (out,) = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=2000, min_tokens=shortest + 3))
    assert out.usage.total_tokens >= shortest + 3
    up.settled()


def test_a_plain_model_runs_too(tmp_path: Path) -> None:
    plain = build_tokenizer(None)
    plain.save_pretrained(tmp_path)
    text = plain.encode("hello there")

    def brain(context: Sequence[int]) -> Score:
        at = len(context) - len(plain.encode(PROMPT))
        return {text[at]: 1.0} if at < len(text) else {plain.eos_token_id: 1.0}

    with running(Loopback(brain, plain)) as up, StockLLM(up.url, tokenizer=tmp_path) as llm:
        assert llm.tokens is None
        (out,) = llm.generate(PROMPT, GREEDY)
        assert (out.text, out.finish_reason) == ("hello there", "stop")
        up.settled()
