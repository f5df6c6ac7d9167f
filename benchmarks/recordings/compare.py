"""Compare two recordings, byte for byte first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .streams import normalised

RENAMED: dict[str, str] = {}
"""Keys of JSON that were renamed, the earlier name first."""
SKIPPED = frozenset({"raw"})
ROUNDING = 1e-5
"""By which log-probabilities may differ: whether two samples share a forward depends on timing, and changes the rounding."""
MOST = 3
"""Differences shown of one file."""


@dataclass
class Section:
    """How the files of one part of two recordings compare.

    Attributes:
        identical: the same bytes.
        equivalent: the same after normalising.
        different: what differs, by file.
        missing: recorded on one side only.
    """

    name: str
    identical: list[str] = field(default_factory=list)
    equivalent: list[str] = field(default_factory=list)
    different: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.different or self.missing)


def compare(before: Path, after: Path, renamed: Mapping[str, str] = RENAMED) -> list[Section]:
    """Every section that either side has, its files by name."""
    names = sorted({path.name for side in (before, after) for path in side.iterdir() if path.is_dir()})
    return [_section(name, before / name, after / name, renamed) for name in names]


def _section(name: str, before: Path, after: Path, renamed: Mapping[str, str]) -> Section:
    section = Section(name)
    files = [_files(before), _files(after)]
    for file in sorted(files[0] | files[1]):
        if not (file in files[0] and file in files[1]):
            section.missing.append(f"{file} (only {'before' if file in files[0] else 'after'})")
            continue
        found = differences_between(before / file, after / file, renamed)
        if found is None:
            section.identical.append(file)
        elif found:
            section.different[file] = found
        else:
            section.equivalent.append(file)
    return section


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".error")
    names = (path.relative_to(folder) for path in paths)
    return {str(name) for name in names if name.parts[0] not in SKIPPED}


def differences_between(before: Path, after: Path, renamed: Mapping[str, str]) -> list[str] | None:
    """`None` for the same bytes, an empty list for the same after normalising, else the first differences."""
    contents = [before.read_bytes(), after.read_bytes()]
    if contents[0] == contents[1]:
        return None
    try:
        left, right = (_value(content, before.suffix) for content in contents)
    except ValueError:
        return [f"{len(contents[0])} and {len(contents[1])} bytes"]
    found = list(differences(with_names(left, renamed), with_names(right, renamed)))
    return found[:MOST] + ([f"and {len(found) - MOST} more"] if len(found) > MOST else [])


def _value(content: bytes, suffix: str) -> Any:
    if suffix == ".sse":
        return normalised(content)
    text = content.decode()
    if suffix == ".txt":
        return text.splitlines()
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def with_names(value: Any, renamed: Mapping[str, str]) -> Any:
    """The value with earlier names of keys replaced."""
    if isinstance(value, dict):
        return {renamed.get(key, key): with_names(item, renamed) for key, item in value.items()}
    return [with_names(item, renamed) for item in value] if isinstance(value, list) else value


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Where two values differ, and how."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() ^ after.keys()):
            yield f"{where}.{key}: only {'before' if key in before else 'after'}"
        for key in sorted(before.keys() & after.keys()):
            yield from differences(before[key], after[key], f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{where}: {len(before)} and {len(after)} items"
        for number, (left, right) in enumerate(zip(before, after, strict=False)):
            yield from differences(left, right, f"{where}[{number}]")
    elif before != after and not ("logprob" in where and _close(before, after)):
        yield f"{where}: {_short(before)} and {_short(after)}{_relative(before, after)}"


def _close(before: Any, after: Any) -> bool:
    numbers = isinstance(before, float | int) and isinstance(after, float | int)
    return numbers and math.isclose(before, after, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _relative(before: Any, after: Any) -> str:
    if isinstance(before, float | int) and isinstance(after, float | int) and before:
        return f" ({(after - before) / abs(before):+.2g} of it)"
    return ""


def report(sections: list[Section]) -> str:
    """A table, and below it every difference."""
    lines = [f"{'':12} {'files':>6} {'byte-identical':>15} {'same normalised':>16} {'different':>10} {'missing':>8}"]
    for one in sections:
        counts = len(one.identical), len(one.equivalent), len(one.different), len(one.missing)
        total, (identical, equivalent, different, missing) = sum(counts), counts
        lines.append(f"{one.name:12} {total:6} {identical:15} {equivalent:16} {different:10} {missing:8}")
    for one in sections:
        lines += [f"{one.name}/{name}: {found}" for name, all_found in one.different.items() for found in all_found]
        lines += [f"{one.name}/{name}" for name in one.missing]
    lines.append("the same" if all(one.same for one in sections) else "NOT the same")
    return "\n".join(lines)
