"""Rotary embeddings whose frequencies change with the length of the text. No torch.

Longrope (Phi-3, Phi-3.5 and Phi-4-mini with 128k positions) has two lists of factors: a text of at most
``original_max_position_embeddings`` positions is rotated with the short ones, and all of a longer text with the long ones
(arXiv 2402.13753; `modeling_rope_utils.py` of transformers). Dynamic NTK has other frequencies for every length beyond
``max_position_embeddings``, so nothing that was computed could be kept there: texts end where it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ModelError

LONG = 1 << 30
"""Added to a position that is rotated with the long factors, in the input of the model and in the keys of the prefix cache."""


def short_positions(config: Any, name: str) -> int | None:
    """Number of positions of the texts that are rotated with short factors; `None` if all texts are rotated alike.

    Args:
        name: of the model, in messages.

    Raises:
        ModelError: its layers change at different lengths.
    """
    found = {int(values["original_max_position_embeddings"]) for values in _parameters(config) if _kind(values) == "longrope"}
    if len(found) > 1:
        raise ModelError(
            f"{name!r} has layers whose rotary embeddings change at different lengths ({', '.join(map(str, sorted(found)))}), "
            f"which is not supported: choose another model"
        )
    return found.pop() if found else None


def has_dynamic_rope(config: Any) -> bool:
    """Whether the frequencies change with every token beyond ``max_position_embeddings``."""
    return any("dynamic" in _kind(values) for values in _parameters(config))


def _kind(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type", parameters.get("type", "default")))


def _parameters(config: Any) -> Iterator[Mapping[str, Any]]:
    """The parameters of the rotary embedding, or of each kind of layer's."""
    given = getattr(config.get_text_config(), "rope_parameters", None) or {}
    parts = [values for values in given.values() if isinstance(values, Mapping)]
    yield from parts if parts else [given]
