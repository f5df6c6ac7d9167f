"""Instructions at the end of questions: added, taken off again, and left out for a model that was trained without them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.cli.chat import Conversation
from multiverse.cli.partner import Local
from multiverse.cli.remote import Remote
from multiverse.engine import Branch, Request
from multiverse.engine.sampler import Choice
from multiverse.prompting import (
    INSTRUCTIONS,
    Instruction,
    Mode,
    ask,
    instruct,
    read_instructed,
    without_instruction,
    write_instructed,
)
from multiverse.serving.config import ServerConfig
from multiverse.serving.prompts import mode_of
from tests.cli.scripted import NESTED, Writer
from tests.conftest import build_tokenizer
from tests.serving.conftest import serving


@pytest.mark.parametrize("mode", get_args(Mode))
def test_the_instruction_ends_the_last_message_and_comes_off_again(mode: Mode) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c?"}]
    asked = instruct(chat, mode)
    assert asked[:2] == chat[:2]
    assert asked[2]["content"] == f"c? {INSTRUCTIONS[mode]}"
    assert without_instruction(asked) == (chat, mode)
    assert without_instruction(chat) == (chat, None)


def test_as_is_adds_nothing() -> None:
    assert ask(" why? ", "as-is") == [{"role": "user", "content": " why? "}]


def test_a_configuration_says_whether_the_training_had_instructions() -> None:
    config = SimpleNamespace()
    assert read_instructed(config), "the models of the paper had"
    write_instructed(config, False)
    assert not read_instructed(config)


@pytest.fixture(scope="module")
def without(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A model whose folder says that its training had no instructions."""
    folder = tmp_path_factory.mktemp("without") / "model"
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], dtype=torch.float32)
    write_instructed(model.config, False)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return LLM(folder, kv_memory=8 << 20)


@pytest.mark.parametrize("given", [None, *get_args(Instruction)])
def test_such_a_model_gets_none_in_any_mode(without: LLM, given: Instruction | None) -> None:
    assert not without.instructed
    assert mode_of(given, without, ServerConfig(mode="parallel")) == "as-is"


def test_others_get_the_one_of_the_request_or_of_the_server(model_folders: dict[str, Path]) -> None:
    llm = LLM(model_folders["qwen3"], kv_memory=8 << 20)
    assert llm.instructed
    assert mode_of(None, llm, ServerConfig(mode="sequential")) == "sequential"
    assert mode_of("as-is", llm, ServerConfig()) == "as-is"


class Asked(Writer):
    """Answers every prompt alike, and keeps the prompts with the depth to which each may fork."""

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm, lambda _: NESTED)
        self.asked: dict[int, tuple[str, int | None]] = {}

    def sample(self, logits_BV: Tensor, rows: list[tuple[Request, Branch]], *rest: Any) -> Choice:
        for request, _ in rows:
            self.asked[request.id] = (self.llm.engine.decode(request.prompt), request.params.max_depth)
        return super().sample(logits_BV, rows, *rest)

    def check(self, count: int, mode: Instruction) -> None:
        """The prompts so far had no instruction, and forks were forbidden in this mode alone."""
        assert len(self.asked) == count
        for prompt, depth in self.asked.values():
            assert "How many wheels?" in prompt
            assert "step by step" not in prompt
            assert depth == (0 if mode == "sequential" else SamplingParams().max_depth)


@pytest.mark.parametrize("mode", get_args(Instruction))
def test_chat_and_server_leave_it_out(without: LLM, mode: Instruction) -> None:
    without.engine.sampler = sampler = Asked(without)
    list(Conversation(Local(without, SamplingParams(temperature=0), "tiny"), mode).ask("How many wheels?"))
    with serving(without, served_model_name="tiny") as site:
        remote = Remote(f"{site.url}/v1", "tiny", None, {"temperature": 0}, {})
        assert not remote.instructed
        list(Conversation(remote, mode).ask("How many wheels?"))
        body = {"messages": [{"role": "user", "content": "How many wheels?"}], "temperature": 0, "multiverse": {"mode": mode}}
        assert site.client.post("/v1/chat/completions", json=body).is_success
    sampler.check(3, mode)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_an_evaluation_leaves_it_out(without: LLM, mode: Mode) -> None:
    pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
    from multiverse.evaluation.providers import in_process
    from multiverse.evaluation.server import ServerAPI
    from tests.evaluation.test_providers import asked

    without.engine.sampler = sampler = Asked(without)
    with serving(without, served_model_name="tiny") as site:
        question = ask("How many wheels?", mode)[0]["content"]
        for api in (in_process("tiny", without), ServerAPI("tiny", f"{site.url}/v1")):
            asked(api, question, temperature=0.0, max_tokens=1500)
    sampler.check(2, mode)
