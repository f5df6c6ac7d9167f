"""Options dataclasses with sections, from and to YAML, read strictly. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from ..errors import ConfigError
from ..options import alternatives, renamed, types

WithoutEffect = Callable[[Any], Mapping[str, tuple[str, str]]]
"""Settings that a configuration does not use, by dotted name: the setting that decides it, and what they need."""


def load_settings(kind: type[Any], path: Path, overrides: Mapping[str, Any], without_effect: WithoutEffect) -> Any:
    """A dataclass of options from a YAML file.

    Args:
        overrides: values that replace the file's, by dotted name such as ``optimizer.lr``.

    Raises:
        ConfigError: the file cannot be read, or a key or value is unknown, missing, not valid or without effect.
    """
    values = read_yaml(path, [item.name for item in fields(kind) if _default(item) is MISSING])
    for name, value in overrides.items():
        *sections, last = name.split(".")
        place = values
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[last] = value
    try:
        config = build(kind, values)
        given = dict(flatten(values))
        for name, (decider, needs) in without_effect(config).items():
            # An override may leave settings of the file without effect; they cannot be removed on the command line.
            if name in given and (name in overrides or decider not in overrides):
                raise ConfigError(f"{name}={given[name]!r} has no effect: it needs {needs}")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def dump_settings(config: Any, without_effect: WithoutEffect) -> str:
    """A dataclass of options as YAML with every value written out, except those without effect."""
    import yaml

    values = asdict(config)
    for name in without_effect(config):
        section, _, last = name.rpartition(".")
        (values[section] if section else values).pop(last)
    return str(yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested sections by dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_yaml(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        needed: what has to be in it, for the message.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"the configuration {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        *names, last = needed or ["its settings"]
        wanted = f"{', '.join(names)} and {last}" if names else last
        raise ConfigError(f"{path} holds no settings: write at least {wanted}")
    return values


def current_names(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under the present names of fields that were renamed."""
    return {renamed(kind, name) or name: value for name, value in values.items()}


def build(kind: type[Any], values: Mapping[str, Any], section: str = "", start: Any = None) -> Any:
    """A dataclass of options from a mapping; every message names the setting with its section.

    Args:
        section: prefix of the names, such as ``optimizer.``.
        start: has the values that the mapping does not give; `None` takes the defaults of the dataclass.
    """
    known = {item.name: item for item in fields(kind)}
    for name in values:
        if (now := renamed(kind, name)) is not None:
            raise ConfigError(f"{section}{name} is now called {section}{now}")
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown setting {section}{name}: {hint}")
    for name, item in known.items():
        if name not in values and start is None and _default(item) is MISSING:
            raise ConfigError(f"{section}{name} is missing")
    hints = types(kind)
    converted = {
        name: _convert(hints[name], value, f"{section}{name}.", _default(known[name])) for name, value in values.items()
    }
    try:
        return kind(**converted) if start is None else replace(start, **converted)
    except ConfigError as error:
        raise ConfigError(f"{section}{error}") from None


def _plainly(kind: type[Any]) -> Any:
    """A dataclass with all its defaults; `None` if it has some without."""
    return kind() if all(_default(item) is not MISSING for item in fields(kind)) else None


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def _convert(hint: Any, value: Any, section: str, default: Any = MISSING) -> Any:
    """The value as its type wants it: mappings become sections, lists tuples, and texts numbers where YAML has 1e-5 as text."""
    for one in alternatives(hint):
        origin = get_origin(one)
        if is_dataclass(one) and isinstance(one, type) and isinstance(value, Mapping):
            return build(one, value, section, default if isinstance(default, one) and default != _plainly(one) else None)
        if origin in (list, tuple) and isinstance(value, list):
            places = (f"{section[:-1]}[{index}]." for index in range(len(value)))
            return origin(_convert(get_args(one)[0], item, place) for item, place in zip(value, places, strict=True))
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
            return {name: _convert(get_args(one)[1], item, f"{section}{name}.") for name, item in value.items()}
        if one is float and isinstance(value, int | str) and not isinstance(value, bool):
            try:
                return float(value)
            except (ValueError, OverflowError):
                continue
    return value


def _plain(value: Any) -> Any:
    """Values with lists for tuples, which YAML has no plain form of."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
