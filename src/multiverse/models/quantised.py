"""Weights in 8, 4 or other few bits, as libraries beside transformers save and read them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def settings(config: Any) -> Mapping[str, Any] | None:
    """The ``quantization_config`` of a model's configuration; `None` if its weights are plain numbers."""
    given = getattr(config, "quantization_config", None)
    if given is None or isinstance(given, Mapping):
        return given
    found: Mapping[str, Any] = given.to_dict()
    return found


def quantisation(config: Any) -> str | None:
    """How a model's weights are quantised, by transformers' name of the method (``torchao``, ``bitsandbytes``, ``gptq``, ...).

    `None` if they are plain numbers.
    """
    given = settings(config)
    if given is None:
        return None
    method = given.get("quant_method")
    return str(getattr(method, "value", method) or "a method that its configuration does not name")


def is_known(config: Any) -> bool:
    """Whether transformers knows how a model's weights are quantised. If not, it takes packed weights for plain ones."""
    from transformers.quantizers.auto import AutoHfQuantizer

    try:
        return bool(AutoHfQuantizer.supports_quant_method(dict(settings(config) or {})))
    except ValueError:
        return False
