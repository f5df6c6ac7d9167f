"""Sampling parameters: what is not valid is refused by name and value."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from multiverse import SamplingParams
from multiverse.errors import RequestError


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("temperature", -0.1, "0 or more"),
        ("temperature", float("nan"), "0 or more"),
        ("top_p", 0, "above 0 and at most 1"),
        ("top_p", 1.01, "above 0 and at most 1"),
        ("top_k", -1, "0 (off) or more"),
        ("min_p", -0.5, "from 0 to 1"),
        ("min_p", 1.5, "from 0 to 1"),
        ("repetition_penalty", 0, "above 0"),
        ("repetition_penalty", -1, "above 0"),
        ("path_repetition_penalty", 0, "above 0 (1 is off), or None"),
        ("presence_penalty", 2.1, "from -2 to 2 (0 is off)"),
        ("frequency_penalty", -3, "from -2 to 2 (0 is off)"),
        ("min_tokens", -1, "0 or more, and at most max_tokens"),
        ("min_tokens", 5000, "0 or more, and at most max_tokens"),
        ("seed", -1, "0 or more"),
        ("max_tokens", 0, "1 or more"),
        ("max_depth", -1, "0 or more (0 forbids forking)"),
        ("max_branches", -1, "0 or more (0 forbids forking)"),
        ("max_width", 0, "1 or more"),
        ("n", 0, "1 or more"),
        ("logit_bias", {3: float("nan")}, "token ids with a bias within -1e6 to 1e6 each"),
        ("logit_bias", {3: 0.0, 4: float("inf")}, "token ids with a bias within -1e6 to 1e6 each"),
        ("max_critical_path_tokens", 0, "1 or more, or None"),
        ("thinking_budget", -1, "0 or more, or None"),
        ("reserved_tokens", -1, "0 or more, or None (an eighth of the limit)"),
        ("repetition_penalty", float("inf"), "above 0"),
        ("max_tokens", 2.5, "1 or more"),
        ("max_tokens", True, "1 or more"),
        ("top_p", "0.9", "above 0 and at most 1"),
        ("temperature", 1e-7, "0 or more (0 is greedy), within 1e-6 to 1e6"),
        ("guard", 1, "true or false"),
        ("max_branch_tokens", 0, "1 or more"),
        ("max_seconds", 0, "above 0"),
        ("max_seconds", float("nan"), "above 0"),
        ("top_logprobs", -1, "from 0 to 100"),
        ("top_logprobs", 101, "from 0 to 100"),
        ("prompt_logprobs", -1, "from 0 to 100, or None"),
        ("share_every", 0, "1 or more, or None (paths stay apart)"),
    ],
)
def test_the_message_names_parameter_value_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} is not valid: it must be {allowed}")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("stop", ["", ["x", ""], [3]])
def test_stop_strings_are_non_empty_strings(stop: Any) -> None:
    with pytest.raises(RequestError, match=r"stop=.* is not valid: it must be non-empty strings"):
        SamplingParams(stop=stop)


@pytest.mark.parametrize(("stop", "strings"), [((), ()), ("ab", ("ab",)), (["a", "b"], ("a", "b")), (("c",), ("c",))])
def test_stop_is_one_string_or_several(stop: Any, strings: tuple[str, ...]) -> None:
    assert SamplingParams(stop=stop).stop_strings == strings


@pytest.mark.parametrize(
    "edge",
    [
        {"temperature": 0}, {"top_p": 1}, {"top_k": 0}, {"min_p": 0}, {"min_p": 1}, {"repetition_penalty": 0.5}, {"seed": 0},
        {"max_tokens": 1}, {"max_depth": 0}, {"max_branches": 0}, {"max_width": 1}, {"n": 1}, {"n": 9}, {"logit_bias": {}},
        {"logit_bias": {0: -100, 5: 100}}, {"max_critical_path_tokens": None}, {"max_critical_path_tokens": 1},
        {"thinking_budget": None}, {"thinking_budget": 0}, {"reserved_tokens": None}, {"reserved_tokens": 0},
        {"max_branch_tokens": 1}, {"max_tokens": 0, "prompt_logprobs": 0},
        {"max_seconds": 1e-9}, {"max_seconds": float("inf")}, {"top_logprobs": 0}, {"top_logprobs": 100}, {"share_every": None},
        {"share_every": 1}, {"guard": False},
    ],
)  # fmt: skip
def test_the_edges_are_valid(edge: dict[str, Any]) -> None:
    params = SamplingParams(**edge)
    assert dataclasses.replace(params) == params


def test_nothing_but_the_bounds_is_on_by_default() -> None:
    params = SamplingParams()
    assert (params.guard, params.n, params.logprobs, params.top_logprobs) == (True, 1, False, 0)
    assert (params.logit_bias, params.repetition_penalty, params.share_every) == ({}, 1.0, None)
    assert (params.max_critical_path_tokens, params.thinking_budget, params.reserved_tokens) == (None, None, None)


def test_parameters_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().temperature = 1.0  # type: ignore[misc]


def test_a_former_name_is_refused_with_the_present_one() -> None:
    with pytest.raises(RequestError, match="tail_tokens is now called reserved_tokens"):
        SamplingParams(**{"tail_tokens": 3})  # type: ignore[arg-type]
