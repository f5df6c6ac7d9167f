"""Every option of a server is checked, with a message that names it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from multiverse.errors import ConfigError
from multiverse.serving.config import ServerConfig


def test_defaults_are_valid_and_can_be_sent_to_other_processes() -> None:
    config = ServerConfig()
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.reasoning_budgets["high"] is None
    assert config.reasoning_budgets["none"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", " "),
        ("port", -1),
        ("port", 65536),
        ("served_model_name", " "),
        ("mode", "both"),
        ("max_body_bytes", 0),
        ("max_prompt_tokens", 0),
        ("default_max_tokens", 0),
        ("max_tokens_limit", 0),
        ("max_concurrent", 0),
        ("max_queue", -1),
        ("request_timeout", 0.0),
        ("request_timeout", float("nan")),
        ("header_timeout", -1.0),
        ("body_timeout", float("inf")),
        ("write_timeout", 0.0),
        ("drain_grace", -1.0),
        ("cors_origins", ("example.com",)),
        ("root_path", "prefix"),
        ("root_path", "/prefix/"),
        ("reasoning_budgets", {"low": -1}),
    ],
)
def test_invalid_values_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name) as told:
        ServerConfig(**{name: value})
    shown = value[0] if name == "cors_origins" else -1 if name == "reasoning_budgets" else value
    assert str(shown) in str(told.value)
    assert "must be" in str(told.value) or "write" in str(told.value)


def test_the_default_is_within_the_limit() -> None:
    with pytest.raises(ConfigError, match=r"default_max_tokens=200 .* max_tokens_limit \(100\)"):
        ServerConfig(max_tokens_limit=100, default_max_tokens=200)
    assert ServerConfig(max_tokens_limit=100).default_max_tokens is None, "the limit itself, where the usual is more"
    assert ServerConfig(max_tokens_limit=100, default_max_tokens=100).max_tokens_limit == 100


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "new\nline"])
def test_a_bad_key_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError) as told:
        ServerConfig(api_keys=("good", key))
    assert not key or key not in str(told.value)


def test_keys_are_not_printed() -> None:
    assert "secret" not in repr(ServerConfig(api_keys=("secret",)))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert ServerConfig(host=host).loopback is loopback
