"""Weights in 8, 4 or other few bits, as libraries beside transformers save and read them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quantisation(config: Any) -> str | None:
    """How a model's weights are quantised, by transformers' name of the method (``torchao``, ``bitsandbytes``, ``gptq``, ...).

    `None` if they are plain numbers.
    """
    given = getattr(config, "quantization_config", None)
    if given is None:
        return None
    settings = given if isinstance(given, Mapping) else given.to_dict()
    method = settings.get("quant_method")
    return str(getattr(method, "value", method) or "a method that its configuration does not name")
