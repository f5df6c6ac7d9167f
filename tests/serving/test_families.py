"""A server of a family's model: what it says of the preset, and requests that leave sampling or the instruction to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiverse.cli.chat import Conversation
from multiverse.cli.remote import Remote
from multiverse.engine.params import SamplingParams
from multiverse.families import FAMILIES
from tests.cli.scripted import scripted_llm
from tests.serving.conftest import Site, error_of, serving
from tests.standins import stand_in
from tests.test_families import NPR_TEXT

CHAT = {"messages": [{"role": "user", "content": "How many?"}]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    llm = scripted_llm(stand_in(tmp_path_factory.mktemp("family") / "tiny", "npr"), lambda _: NPR_TEXT)
    with serving(llm, served_model_name="tiny") as site:
        yield site


@pytest.fixture
def seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, SamplingParams]]:
    """Prompt and parameters of every request."""
    engine, found = site.service.llm.engine, list[tuple[str, SamplingParams]]()
    check = engine.check

    def noted(prompt: list[int], params: SamplingParams) -> None:
        found.append((engine.decode(prompt), params))
        check(prompt, params)

    monkeypatch.setattr(engine, "check", noted)
    return found


def test_the_model_says_how_it_is_asked_and_sampled(site: Site) -> None:
    (entry,) = site.client.get("/v1/models").json()["data"]
    prompting = site.service.llm.prompting
    assert entry["preset"] == "npr"
    assert (entry["instructions"], entry["instruction_separator"]) == (dict(prompting.instructions), "\n\n")
    info = site.client.get("/get_model_info").json()
    assert (info["preset"], info["preset_reason"]) == ("npr", "its tokenizer has the tags of npr")
    assert info["preset_sampling"] == dict(FAMILIES["npr"].sampling)


def test_a_request_leaves_to_the_preset_what_it_does_not_say(site: Site, seen: list[tuple[str, SamplingParams]]) -> None:
    answer = site.client.post("/v1/chat/completions", json=CHAT).json()
    assert answer["choices"][0]["multiverse"]["answer"] == "4"
    prompt, params = seen[0]
    assert f"How many?\n\n{site.service.llm.prompting.instructions['parallel']}<|im_end|>" in prompt
    assert (params.temperature, params.top_p, params.path_repetition_penalty) == (1.0, 0.7, 1.02)
    assert params.max_tokens == site.service.llm.sampling().max_tokens
    given: dict[str, Any] = {"temperature": 0, "multiverse": {"path_repetition_penalty": 1.5}}
    assert site.client.post("/v1/chat/completions", json={**CHAT, **given}).is_success
    params = seen[-1][1]
    assert (params.temperature, params.top_p, params.path_repetition_penalty) == (0, 0.7, 1.5)
    wrong = site.client.post("/v1/chat/completions", json={**CHAT, "multiverse": {"path_repetition_penalty": 0}})
    assert wrong.status_code == 400
    assert "path_repetition_penalty" in error_of(wrong)["param"]


def test_a_chat_with_the_server_has_the_family_s_instruction_in_every_turn(
    site: Site, seen: list[tuple[str, SamplingParams]]
) -> None:
    remote = Remote(f"{site.url}/v1", "tiny", None, {"temperature": 0}, {})
    assert (remote.family, remote.prompting) == (FAMILIES["npr"], site.service.llm.prompting)
    talk = Conversation(remote, "parallel")
    for question in ("How many?", "Sure?"):
        list(talk.ask(question))
    instruction = site.service.llm.prompting.instructions["parallel"]
    assert seen[-1][0].count(instruction) == 2
    tags = site.service.llm.engine.tokens
    assert tags is not None
    assert seen[-1][0].count(tags.dialect.goal.open) == 3, "of two instructions and of the answer"
