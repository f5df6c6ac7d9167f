"""What the shell offers for the value of an option, beside the options and commands that it knows by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Complete = Callable[[str], list[str]]


def among(values: Callable[[], Sequence[str]]) -> Complete:
    """Those of these values that begin as the word does. They are asked for when somebody completes, not before."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def model_names() -> list[str]:
    """Names of models; folders and files are the shell's own to offer."""
    from ..models.registry import ENTRIES

    return list(ENTRIES)


def benchmark_names() -> list[str]:
    """Names of benchmarks, families of problems included."""
    from ..evaluation.benchmarks import BENCHMARKS

    return list(BENCHMARKS)


def family_names() -> list[str]:
    """Names of families of problems."""
    from ..tasks import FAMILIES

    return list(FAMILIES)


OF_FIELD: dict[str, Complete] = {"model": among(model_names)}
"""By name of the field, where its type does not say."""
