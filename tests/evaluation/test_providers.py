"""Providers: settings are passed on or refused by name, and responses have the same measurements from either."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")

from inspect_ai.model import ChatMessageUser, GenerateConfig, ModelAPI, ModelOutput

from multiverse.errors import RequestError
from multiverse.evaluation.inspecting import response_of
from multiverse.evaluation.providers import EngineAPI, in_process
from multiverse.evaluation.response import Response
from multiverse.evaluation.server import ServerAPI, ServerError
from multiverse.structure import MULTIVERSE, Document, render
from tests.cli.scripted import NESTED, scripted_llm
from tests.evaluation.endpoint import Endpoint
from tests.evaluation.endpoint import serving as serving_theirs
from tests.serving.conftest import Site, serving, write


def asked(api: ModelAPI, question: str = "nested", **settings: Any) -> Response:
    """The response to one question; the provider is closed."""

    async def ask() -> ModelOutput:
        try:
            output = await api.generate([ChatMessageUser(content=question)], [], "none", GenerateConfig(**settings))
        finally:
            await api.aclose()
        assert isinstance(output, ModelOutput)
        return output

    return response_of(asyncio.run(ask()))


def writing(prompt: str) -> Document | str:
    """As the server's tests have it, and a generation that breaks the grammar."""
    think = MULTIVERSE.think
    assert think is not None
    return f"{think.open}\nWell.{MULTIVERSE.outline.open}" if "broken" in prompt else write(prompt)


@pytest.fixture(scope="module")
def ours(model_folders: dict[str, Path]) -> Iterator[Site]:
    with serving(scripted_llm(model_folders["qwen3"], writing), served_model_name="scripted") as site:
        yield site


@pytest.fixture
def theirs() -> Iterator[Endpoint]:
    with serving_theirs(Endpoint()) as endpoint:
        yield endpoint


def test_in_process_and_server_give_the_same_responses(model_folders: dict[str, Path], ours: Site) -> None:
    local = in_process("scripted", scripted_llm(model_folders["qwen3"], write))
    for question, forks in (("nested", 3), ("plain", 0)):
        here = asked(local, question, temperature=0.0, max_tokens=1500)
        there = asked(ServerAPI("scripted", f"{ours.url}/v1"), question, temperature=0.0, max_tokens=1500)
        assert here.forks == forks
        assert (here.finish_reason, here.malformed) == ("stop", False)
        assert Response(**{**asdict(here), "seconds": 0.0}) == Response(**{**asdict(there), "seconds": 0.0})
        if question == "nested":
            assert (here.text, here.answer) == (render(NESTED), "34")
            assert here.total_tokens / here.critical_path_tokens > 1


def test_a_broken_grammar_is_an_answer_too(model_folders: dict[str, Path], ours: Site) -> None:
    for api in (
        in_process("scripted", scripted_llm(model_folders["qwen3"], writing)),
        ServerAPI("scripted", f"{ours.url}/v1"),
    ):
        answer = asked(api, "broken", temperature=0.0, max_tokens=200, extra_body={"multiverse": {"guard": False}})
        assert (answer.finish_reason, answer.malformed) == ("malformed", True)


def test_limits_are_applied(model_folders: dict[str, Path], ours: Site) -> None:
    local = in_process("scripted", scripted_llm(model_folders["qwen3"], write))
    for api in (local, ServerAPI("scripted", f"{ours.url}/v1")):
        short = asked(api, "nested", temperature=0.0, max_tokens=30)
        assert short.finish_reason == "length"
        assert not short.malformed
        assert 0 < short.total_tokens <= 30
    for api in (local, ServerAPI("scripted", f"{ours.url}/v1")):
        extra = {"multiverse": {"max_critical_path_tokens": 60}}
        short = asked(api, "nested", temperature=0.0, max_tokens=1500, extra_body=extra)
        assert short.finish_reason == "budget"
        assert short.critical_path_tokens <= 60


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"extra_body": {"guided": 1}}, "extra_body.guided"),
        ({"extra_body": {"multiverse": {"depth": 1}}}, "depth"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_unsupported_settings_are_refused(settings: dict[str, Any], named: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(RequestError, match=named):
        asked(in_process("scripted", scripted_llm(model_folders["qwen3"], write)), **settings)


def test_addresses() -> None:
    with pytest.raises(RequestError, match="multiverse-server"):
        EngineAPI("mini", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(RequestError, match="needs its address"):
        ServerAPI("model")


def test_another_server(theirs: Endpoint) -> None:
    theirs.answer = lambda _: "<think>\nsix times seven\n</think>\n\nAnswer: 42"
    answer = asked(ServerAPI("their-model", f"{theirs.url}/v1"), "6*7", temperature=0.5, seed=3, max_tokens=99)
    assert (answer.answer, answer.finish_reason, answer.malformed, answer.forks) == ("42", "stop", False, 0)
    assert answer.critical_path_tokens == answer.total_tokens == len("<think>\nsix times seven\n</think>\n\nAnswer: 42")
    assert answer.seconds > 0
    (body,) = theirs.bodies
    assert {name: body[name] for name in ("model", "temperature", "seed", "max_tokens", "stream")} == {
        **{"model": "their-model", "temperature": 0.5, "seed": 3, "max_tokens": 99, "stream": True},
    }
    assert "multiverse" not in body


def test_other_servers_are_refused_multiverse_limits(theirs: Endpoint) -> None:
    with pytest.raises(RequestError, match="max_critical_path_tokens"):
        asked(
            ServerAPI("their-model", f"{theirs.url}/v1"),
            extra_body={"multiverse": {"max_critical_path_tokens": 9}},
        )


def test_a_server_refuses(theirs: Endpoint) -> None:
    with pytest.raises(ServerError, match="no model 'other': it offers their-model"):
        asked(ServerAPI("other", f"{theirs.url}/v1"))
    theirs.refuse = (429, 401)
    api = ServerAPI("their-model", f"{theirs.url}/v1")
    for status, again in ((429, True), (401, False)):
        with pytest.raises(ServerError, match="not now") as caught:
            asked(api)
        assert caught.value.status == status
        assert api.should_retry(caught.value) is again


def test_the_key_is_sent(theirs: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    for given, wanted in ((None, "from the environment"), ("given", "given")):
        api = ServerAPI("their-model", f"{theirs.url}/v1", given)
        asked(api)
        assert theirs.keys[-1] == f"Bearer {wanted}"


def test_an_evaluation_begins_with_few_questions_at_once(model_folders: dict[str, Path]) -> None:
    api = EngineAPI("scripted", llm=scripted_llm(model_folders["qwen3"], write))
    inside: list[int] = []

    async def one(busy: set[int], number: int) -> None:
        async with api._admitted(32):
            busy.add(number)
            inside.append(len(busy))
            await asyncio.sleep(0)
            busy.discard(number)

    async def all_at_once() -> None:
        busy: set[int] = set()
        await asyncio.gather(*(one(busy, number) for number in range(200)))
        await api.aclose()

    asyncio.run(all_at_once())
    assert len(inside) == 200
    assert max(inside[:8]) == 8
    assert 8 < max(inside) <= 32
