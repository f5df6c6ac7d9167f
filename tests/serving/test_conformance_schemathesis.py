"""Requests generated from the server's own OpenAPI schema: no 5xx, no invalid request accepted, every response as described."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from multiverse import LLM
from tests.serving.conftest import Site, serving

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

ANSWERS = ("POST /v1/chat/completions", "POST /v1/responses", "POST /v1/completions")


@pytest.fixture(scope="module")
def site(mini_model: LLM) -> Iterator[Site]:
    # Generations are short.
    limits = {"max_concurrent": 4, "max_queue": 0, "default_max_tokens": 12, "max_tokens_limit": 24}
    with serving(mini_model, **limits) as site:
        yield site


def hold(site: Site, mode: GenerationMode, examples: int) -> list[str]:
    """Check every operation; returns their names."""
    schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
    checked = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # there is nothing to get wrong about them

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.validate_response(case.call(timeout=300), checks=CHECKS)

        check()
        checked.append(operation.label)
    return checked


def test_generated_requests_are_answered_as_described(site: Site) -> None:
    assert set(ANSWERS) <= set(hold(site, GenerationMode.POSITIVE, 4))


def test_generated_invalid_requests_are_refused(site: Site) -> None:
    assert set(ANSWERS) <= set(hold(site, GenerationMode.NEGATIVE, 8))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_many_generated_requests(site: Site, mode: GenerationMode) -> None:
    hold(site, mode, 100)
