"""`--dialect` and `--malformed` of commands that run a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiverse.cli.errors import InputError
from multiverse.cli.loading import ModelOptions
from multiverse.structure import NPR


def test_the_dialect_is_the_models_unless_another_is_named() -> None:
    assert "dialect" not in ModelOptions().arguments()
    assert ModelOptions(dialect="npr").arguments()["dialect"] is NPR
    assert ModelOptions(dialect="npr", malformed="as-released").arguments()["dialect"] == replace(NPR, malformed="as-released")


def test_a_server_has_a_dialect_of_its_own() -> None:
    with pytest.raises(InputError, match="--dialect npr is for a model in this process: start the server with it"):
        ModelOptions(dialect="npr").check_remote()
    ModelOptions(dialect="npr", upstream="http://127.0.0.1:1").check_remote()  # which runs the model for us


def test_a_policy_needs_a_dialect() -> None:
    with pytest.raises(InputError, match="--malformed sequential is for a dialect that is named: give --dialect, too"):
        ModelOptions(malformed="sequential").arguments()
