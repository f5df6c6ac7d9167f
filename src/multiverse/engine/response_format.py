"""The form that an answer has to have, as a request names it: checked, but not compiled yet. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..errors import RequestError

MOST_BYTES = 128 << 10
"""Largest schema, as JSON text."""
MOST_DEPTH = 64
"""Deepest nesting of a schema."""
MOST_PROPERTIES = 1000
"""Most properties of one object. The work grows with their square, since further ones must have other names."""
MOST_MULTIPLE = 1 << 16
"""Largest sum of the `multipleOf` of a schema: each is compiled to an automaton with a state for every remainder."""
_TYPES = ("text", "json_object", "json_schema")


@dataclass(frozen=True)
class ResponseFormat:
    """The form of an answer, checked: what is made of a `response_format`.

    Attributes:
        schema: the JSON schema, as text.
    """

    schema: str

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ResponseFormat | None:
        """Read OpenAI's `response_format`; `None` for a plain text.

        Raises:
            RequestError: it does not have that form, or its schema is too large. Whether the schema can be honoured is known
                when it is compiled.
        """
        kind = given.get("type")
        if kind not in _TYPES:
            raise refused(f"has type {kind!r}: use one of {', '.join(_TYPES)}")
        allowed = {"type", "json_schema"} if kind == "json_schema" else {"type"}
        if unknown := sorted(str(name) for name in given if name not in allowed):
            raise refused(f"has {unknown[0]!r}, which is not known for type {kind!r}: leave it out")
        if kind == "text":
            return None
        return cls(_text({"type": "object"} if kind == "json_object" else _schema(given.get("json_schema"))))


def _schema(inner: Any) -> Mapping[str, Any]:
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise refused('needs a schema: {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}')
    return schema


def _text(schema: Mapping[str, Any]) -> str:
    """A schema as JSON; the order of its properties is the order in which they are written."""
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise impossible(f"it is not valid JSON ({error})") from None
    if size > MOST_BYTES:
        raise impossible(f"it has {size} bytes, and may have {MOST_BYTES} at most")
    _check_size(schema)
    return text


def refused(why: str) -> RequestError:
    """The error for a `response_format`."""
    return RequestError(f"response_format {why}")


def impossible(why: str) -> RequestError:
    """The error for its schema."""
    return refused(f"names a schema that cannot be honoured: {why}")


def _check_size(schema: Any) -> None:
    """Refuse what would take long to compile, or much memory."""
    multiples = 0
    for value, depth in _walk(schema):
        if depth > MOST_DEPTH:
            raise impossible(f"it nests deeper than {MOST_DEPTH} levels")
        if not isinstance(value, Mapping):
            continue
        properties, multiple = value.get("properties"), value.get("multipleOf")
        if isinstance(properties, Mapping) and len(properties) > MOST_PROPERTIES:
            raise impossible(f"an object has {len(properties)} properties, and may have {MOST_PROPERTIES} at most")
        if isinstance(multiple, int | float) and not isinstance(multiple, bool):
            multiples += _remainders(multiple)
            if multiples > MOST_MULTIPLE:
                raise impossible(f"multipleOf {multiple} is too large: all of a schema may come to {MOST_MULTIPLE} at most")


def _remainders(multiple: float) -> int:
    """Number of remainders of division by a number, which decimals scale up."""
    number = Decimal(repr(multiple))
    if not number.is_finite():
        return 0
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if abs(exponent) > 400:
        return MOST_MULTIPLE + 1
    return int(abs(number.scaleb(-exponent) if exponent < 0 else number))


def _walk(schema: Any) -> Iterator[tuple[Any, int]]:
    """All values of a schema, with their depth."""
    left = [(schema, 1)]
    while left:
        value, depth = left.pop()
        yield value, depth
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        left += [(one, depth + 1) for one in inner]
