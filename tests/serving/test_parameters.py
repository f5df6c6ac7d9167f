"""The table of parameters in docs/serving.md says of each of OpenAI's and vLLM's what the server does with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from multiverse.serving.neutral import NEUTRAL
from multiverse.serving.requests import ChatRequest, CompletionRequest
from tests.serving.conftest import Site, error_of

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
ENDPOINTS = {"chat": ChatRequest, "completions": CompletionRequest}

# Of vLLM's server in the autumn of 2026, and the names that earlier versions had.
VLLM_BOTH = [
    "use_beam_search",
    "top_k",
    "min_p",
    "repetition_penalty",
    "length_penalty",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "allowed_token_ids",
    "prompt_logprobs",
    "add_special_tokens",
    "echo",
    "response_format",
    "structured_outputs",
    "priority",
    "request_id",
    "logits_processors",
    "return_tokens_as_token_ids",
    "return_token_ids",
    "cache_salt",
    "kv_transfer_params",
    "vllm_xargs",
    "max_repetition_pattern_size",
    "min_repetition_pattern_size",
    "repetition_min_count",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_decoding_backend",
    "guided_whitespace_pattern",
    "best_of",
]
VLLM = {
    "chat": [
        *VLLM_BOTH,
        *["bad_words", "add_generation_prompt", "continue_final_message", "documents", "chat_template", "chat_template_kwargs"],
        *["mm_processor_kwargs", "include_reasoning", "parallel_tool_calls", "reasoning_effort", "top_logprobs"],
        "max_completion_tokens",
    ],
    "completions": [*VLLM_BOTH, "prompt_embeds", "suffix"],
}


def table() -> dict[str, dict[str, str]]:
    """What the table says of each parameter, by endpoint: yes, no, or nothing."""
    section = PAGE.read_text().partition("### Parameters")[2].partition("\n### ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    told: dict[str, dict[str, str]] = {"chat": {}, "completions": {}}
    for names, chat, completions, *_ in rows[
        : next(i for i, row in enumerate(rows) if row[1].strip() not in ("yes", "no", "–"))
    ]:
        for name in re.findall("`(\\w+)`", names):
            for endpoint, cell in (("chat", chat), ("completions", completions)):
                assert cell in ("yes", "no", "–"), (name, cell)
                assert name not in told[endpoint], name
                told[endpoint][name] = cell
    return told


def openai_names(endpoint: str) -> set[str]:
    """The parameters that the installed package sends."""
    params = pytest.importorskip(
        "openai.types.chat.completion_create_params" if endpoint == "chat" else "openai.types.completion_create_params"
    )
    return {*params.CompletionCreateParamsBase.__annotations__, "stream"}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_table_has_every_parameter(endpoint: str) -> None:
    told = {name for name, cell in table()[endpoint].items() if cell != "–"}
    fields = set(ENDPOINTS[endpoint].model_fields) - {"multiverse"}
    assert told == fields
    assert openai_names(endpoint) <= told
    assert set(VLLM[endpoint]) <= told


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_the_table_refuses_is_refused_with_its_reason_and_null_is_not(scripted: Site, endpoint: str) -> None:
    ask: Any = scripted.chat if endpoint == "chat" else scripted.complete
    for name, cell in table()[endpoint].items():
        if cell == "no":
            error = error_of(ask("plain", **{name: "something"}))
            assert error["param"] == name
            assert error["message"].endswith(NEUTRAL.get(name, "input should be False")), error
        elif cell == "–":
            assert error_of(ask("plain", **{name: None}))["code"] == "unknown_parameter"
        else:
            assert name not in NEUTRAL, name
    optional = [name for name, cell in table()[endpoint].items() if cell != "–" and name not in ("messages", "prompt")]
    assert ask("plain", **dict.fromkeys(optional)).status_code == 200
