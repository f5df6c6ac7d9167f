"""What a run was made with: written when it begins, compared when it goes on, completed when it ends.

No time stands in it, nor anything else that differs between a run that was interrupted and one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from ..data.write import whole
from .errors import RunError
from .prompting import prompt_hashes

MANIFEST = "manifest.json"

_COMPARED = ("settings", "prompts", "program")
_LIBRARIES = ("openai", "pyarrow", "rapidfuzz", "jinja2")


def plan(settings: Mapping[str, Any], *, endpoint: str, source: str, rows: int) -> dict[str, Any]:
    """The manifest of a run that begins.

    Args:
        settings: whatever outcomes depend on.
        endpoint: address of the endpoint, without secrets; a run may go on with another.
        source, rows: what is read, and how much; a run may go on with more.
    """
    return {
        "program": _version("multiverse-llm"),
        "settings": dict(settings),
        "prompts": prompt_hashes(),
        "endpoint": endpoint,
        "input": {"source": source, "rows": rows},
        "versions": {"python": python_version(), **{name: _version(name) for name in _LIBRARIES}},
    }


def check(out: Path, planned: Mapping[str, Any]) -> None:
    """Raise `RunError` if the folder holds a run that was made with something else."""
    path = out / MANIFEST
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read ({error}): begin anew with --fresh") from error
    now = json.loads(json.dumps(planned))
    differences = [line for name in _COMPARED for line in _differences(name, there.get(name), now[name])]
    if differences:
        few = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if len(differences) > 4 else "")
        raise RunError(
            f"{str(out)!r} holds a run with other settings ({few}): use its settings, or another folder, or begin anew with "
            "--fresh, which keeps the stored answers"
        )


def write(out: Path, planned: Mapping[str, Any], ended: Mapping[str, Any] | None = None) -> None:
    """Write the manifest; `ended` says what came of the run, once that is known."""
    value = {**planned, "complete": False, **(ended or {})}
    with whole(out / MANIFEST) as part:
        part.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", errors="backslashreplace")


def _differences(name: str, there: Any, here: Any) -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        return [line for key in keys for line in _differences(f"{name}.{key}", there.get(key), here.get(key))]
    short = name.removeprefix("settings.")
    return [] if there == here else [f"{short} {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}..."


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
