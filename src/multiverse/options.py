"""Options declared once, as dataclass fields with default, help, limits and choices.

The command line (`cli/declared.py`), YAML files, the HTTP API and the reference documentation are derived from these
declarations, and every value is checked here. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError

_KEY = "option"
_SHOWN = 200  # characters of a value in an error
# Both are needed whenever an object is made.
_declared: dict[type[Any], Mapping[str, Option]] = {}
_types: dict[type[Any], Mapping[str, Any]] = {}


@dataclass(frozen=True)
class Option:
    """What is declared beside a field.

    Attributes:
        help: one sentence for `--help`, the API's description and the reference.
        ge, gt, le, lt: bounds of a number, or of each number in a list; the names are pydantic's.
        finite: whether infinity is refused.
        allowed: what a value has to be, in words; `None` derives it from type and bounds.
        metavar: how `--help` writes the value, such as ``N``.
        flag: name on the command line, such as ``-t``, in addition to the long one that the field's name gives.
        group: heading under which `--help` lists it.
        name: long name on the command line, if another than the field's, such as ``--api-key`` of `api_keys`.
        env: environment variable that the command line reads in its absence.
        show_default: how `--help` and the reference write a default that the value does not tell, such as ``by device``.
        was: an earlier name of the field, which is refused with the new one in the message.
    """

    help: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    finite: bool = True
    allowed: str | None = None
    metavar: str | None = None
    flag: str | None = None
    group: str | None = None
    name: str | None = None
    env: str | None = None
    show_default: str | None = None
    was: str | None = None


def option(
    default: Any = MISSING,
    help: str = "",  # noqa: A002
    *,
    factory: Callable[[], Any] | None = None,
    repr: bool = True,  # noqa: A002
    **declared: Any,
) -> Any:
    """A dataclass field with an `Option`: ``temperature: float = option(0.6, "0 is greedy.", ge=0, metavar="T")``.

    Args:
        default: the default value; without one the field is required.
        help: see `Option`.
        factory: makes the default value, in place of `default`.
        repr: whether the value stands in the dataclass's repr; not for secrets.
        declared: the other attributes of `Option`.
    """
    metadata = {_KEY: Option(help, **declared)}
    if factory is not None:
        return field(default_factory=factory, repr=repr, metadata=metadata)
    return field(default=default, repr=repr, metadata=metadata)


def like(kind: type[Any], name: str, default: Any = MISSING, *, required: bool = False, **changes: Any) -> Any:
    """A dataclass field declared as one of another dataclass is: ``seed: int | None = like(SamplingParams, "seed")``.

    Args:
        kind: the other dataclass.
        name: of its field.
        default: the default value; without one it is the other field's.
        required: there is no default value.
        changes: attributes of `Option` that differ.
    """
    other = next(item for item in fields(kind) if item.name == name)
    metadata = {_KEY: replace(other.metadata[_KEY], **changes)}
    if required:
        return field(repr=other.repr, metadata=metadata)
    if default is MISSING and other.default_factory is not MISSING:
        return field(default_factory=other.default_factory, repr=other.repr, metadata=metadata)
    return field(default=other.default if default is MISSING else default, repr=other.repr, metadata=metadata)


def declared(kind: type[Any]) -> Mapping[str, Option]:
    """The options of a dataclass by field name, in order; fields declared otherwise are left out."""
    if kind not in _declared:
        _declared[kind] = {item.name: item.metadata[_KEY] for item in fields(kind) if _KEY in item.metadata}
    return _declared[kind]


def types(kind: type[Any]) -> Mapping[str, Any]:
    """Type of each field of a dataclass, annotations resolved."""
    if kind not in _types:
        _types[kind] = get_type_hints(kind)
    return _types[kind]


class Options:
    """Base of dataclasses whose fields are declared with `option`; checks every value when one is made.

    Subclasses with checks of their own across fields call ``super().__post_init__()`` first.

    Attributes:
        error: class of the exception that a bad value raises.
    """

    error: ClassVar[type[Exception]] = ConfigError

    def __new__(cls, *_args: object, **values: object) -> Self:
        names = {item.name for item in fields(cls)} if values and is_dataclass(cls) else set(values)
        for name in values:
            if (new := renamed(cls, name)) is not None:
                raise cls.error(f"{name} is now called {new}")
            if name not in names:
                near = get_close_matches(name, names, n=1)
                raise cls.error(f"{cls.__name__} has no {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        hints = types(type(self))
        for name, own in declared(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, hints[name], own):
                raise self.invalid(name)

    def invalid(self, name: str) -> Exception:
        """The error for the value of this field."""
        own, hint = declared(type(self))[name], types(type(self))[name]
        value = repr(getattr(self, name))
        shown = value if len(value) <= _SHOWN else f"{value[: _SHOWN - 3]}..."
        return self.error(f"{name}={shown} is not valid: it must be {own.allowed or describe(hint, own)}")


def renamed(kind: type[Any], name: str) -> str | None:
    """The present name of a field that was called `name`; `None` if none was."""
    return next((new for new, own in declared(kind).items() if own.was == name), None)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union type, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any, own: Option) -> bool:
    return any(_fits_one(value, one, own) for one in alternatives(hint))


def _fits_one(value: Any, hint: Any, own: Option) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if hint in (None, type(None)):
        return value is None
    if origin is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        number = not isinstance(value, bool) and isinstance(value, Integral if hint is int else Real)
        return number and _within(int(value) if isinstance(value, Integral) else float(value), own)
    if origin in (list, tuple):
        item = get_args(hint)[0]
        return isinstance(value, origin) and all(_fits(part, item, own) for part in value)
    if isinstance(origin, type):  # a mapping or another container: its contents are its owner's to check
        return isinstance(value, origin)
    return isinstance(value, hint)


def _within(value: float, own: Option) -> bool:
    return (
        (isinstance(value, int) or (math.isfinite(value) if own.finite else not math.isnan(value)))
        and (own.ge is None or value >= own.ge)
        and (own.gt is None or value > own.gt)
        and (own.le is None or value <= own.le)
        and (own.lt is None or value < own.lt)
    )


def describe(hint: Any, own: Option | None = None) -> str:
    """What a value of this type, within these bounds, has to be: ``a whole number from 1 to 8, or None``."""
    named = [_describe_one(one, own) for one in alternatives(hint) if one not in (None, type(None))]
    optional = ", or None" if len(named) < len(alternatives(hint)) else ""
    return " or ".join(dict.fromkeys(named)) + optional


def _describe_one(hint: Any, own: Option | None) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return ", ".join(map(repr, get_args(hint)))
    if origin in (list, tuple):
        return f"a list, each {describe(get_args(hint)[0], own)}"
    if is_dataclass(hint) and isinstance(hint, type):
        return f"a section with {', '.join(item.name for item in fields(hint))}"
    name = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )
    return f"{name}{_bounds(own)}" if hint in (int, float) and own is not None else name


def _bounds(own: Option) -> str:
    low = f"of {own.ge:g} or more" if own.ge is not None else f"above {own.gt:g}" if own.gt is not None else ""
    if own.ge is not None and own.le is not None:
        return f" from {own.ge:g} to {own.le:g}"
    high = f"at most {own.le:g}" if own.le is not None else f"below {own.lt:g}" if own.lt is not None else ""
    return "".join(f" {part}" for part in (low, "and" if low and high else "", high) if part)
