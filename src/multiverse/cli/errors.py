"""Errors of the command line alone: files, standard input, names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ..errors import MultiverseError


class InputError(MultiverseError, ValueError):
    """A file, a question or an option's value cannot be used; the message names it and the remedy."""


def known(kind: str, value: str, allowed: Iterable[str]) -> str:
    """The value, if it is one of those allowed.

    Raises:
        InputError: with the nearest allowed value, or all of them.
    """
    names = list(allowed)
    if value in names:
        return value
    near = get_close_matches(value, names, n=1)
    raise InputError(f"unknown {kind} {value!r}: " + (f"did you mean {near[0]!r}?" if near else f"choose {', '.join(names)}"))


def check_url(base_url: str, option: str = "--base-url") -> None:
    """Raise `InputError` unless this can be an endpoint's address."""
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"{option} {base_url!r} is not valid: it begins with http:// or https://")
