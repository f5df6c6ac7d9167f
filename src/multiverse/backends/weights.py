"""Read the weights of a model."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from ..errors import ModelError, first_line


def parse_dtype(name: str) -> torch.dtype | str:
    """A torch dtype by name, or ``auto``.

    Raises:
        ModelError: torch has no such dtype.
    """
    dtype = "auto" if name == "auto" else getattr(torch, name, None)
    if dtype != "auto" and not isinstance(dtype, torch.dtype):
        raise ModelError(f"dtype={name!r} is not a type of torch: use 'auto', 'float32', 'bfloat16' or 'float16'")
    return dtype


def load_weights(name: str, dtype: str, **options: Any) -> Any:
    """A transformers model from a local folder or the hub.

    Args:
        options: further arguments of `from_pretrained`.

    Raises:
        ModelError: the weights cannot be read.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=parse_dtype(dtype), **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"the weights of {name!r} could not be loaded: {first_line(error)}") from error
