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
        ("seed", -1, "0 or more"),
        ("max_tokens", 0, "1 or more"),
        ("max_depth", -1, "0 or more (0 forbids forking)"),
        ("max_branches", -1, "0 or more (0 forbids forking)"),
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
        {"max_tokens": 1}, {"max_depth": 0}, {"max_branches": 0},
    ],
)  # fmt: skip
def test_the_edges_are_valid(edge: dict[str, Any]) -> None:
    params = SamplingParams(**edge)
    assert dataclasses.replace(params) == params


def test_parameters_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().temperature = 1.0  # type: ignore[misc]
