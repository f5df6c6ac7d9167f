"""Errors: optional libraries, and messages on one line."""

from __future__ import annotations

import json

import pytest

from multiverse.errors import ExtraError, first_line, require


def test_an_optional_library_is_imported_or_the_extra_is_named() -> None:
    assert require("json", "eval") is json
    with pytest.raises(ExtraError, match=r"needs no-such-library, .* pip install 'multiverse-llm\[eval\]'"):
        require("no_such_library.part", "eval")


def test_first_line_of_an_exception() -> None:
    assert first_line(ValueError("\n first \n second")) == "first"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
