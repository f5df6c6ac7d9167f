"""Token ids in the forms in which libraries hand them over, as lists. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any


def as_lists(given: Any) -> Any:
    """Token ids as a list of ints, or several such lists; anything else is returned as it is.

    Args:
        given: what a tokenizer returns (``BatchEncoding``, whose ``attention_mask`` leaves out padding), an array or a tensor,
            or a list of these.
    """
    if isinstance(given, Mapping):
        return _rows(given["input_ids"], given.get("attention_mask")) if "input_ids" in given else given
    if hasattr(given, "tolist"):
        return _rows(given, None)
    if isinstance(given, list | tuple) and given and _holds_ids(given[0]):
        return [as_list(item) for item in given]
    if isinstance(given, list | tuple) and given and getattr(given[0], "ndim", None) == 0:  # single numbers of an array
        return [index(item) for item in given]
    return given


def as_list(given: Any) -> Any:
    """As `as_lists`, for one text: a batch of one is taken as the one."""
    rows = as_lists(given)
    return rows[0] if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], list) else rows


def _rows(ids: Any, mask: Any) -> Any:
    ids, mask = _plain(ids), _plain(mask)
    if not ids or not isinstance(ids[0], list):
        return [token for token, real in zip(ids, mask, strict=True) if real] if mask else ids
    return [_rows(row, mask[number] if mask else None) for number, row in enumerate(ids)]


def _plain(values: Any) -> Any:
    if hasattr(values, "tolist"):
        return values.tolist()
    return [_plain(value) for value in values] if isinstance(values, list | tuple) else values


def _holds_ids(item: Any) -> bool:
    """Whether this is one text's ids in another form than a list."""
    return (isinstance(item, Mapping) and "input_ids" in item) or getattr(item, "ndim", 0) > 0
