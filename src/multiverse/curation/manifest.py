"""`manifest.json`: what a run was made with. Written when it begins, compared when it is resumed, completed when it ends.

It holds no times, nor anything else that differs between a run that was interrupted and one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from ..data.write import whole
from .config import CurationConfig, EndpointConfig
from .errors import RunError
from .prompting import prompt_hashes

MANIFEST = "manifest.json"

_COMPARED = ("settings", "prompts", "program")
_LIBRARIES = ("openai", "pyarrow", "rapidfuzz", "jinja2")


def create(config: CurationConfig, endpoint: EndpointConfig, source: str, rows: int) -> dict[str, Any]:
    """The manifest of a run that begins.

    Args:
        config: `settings` holds it, with the sampling parameters.
        endpoint: a run may be resumed with another address.
        source, rows: the input and its number of rows; a run may be resumed with more rows.
    """
    return {
        "program": _version("multiverse-llm"),
        "settings": {**endpoint.sampling, **config.recorded()},
        "prompts": prompt_hashes(),
        "endpoint": endpoint.address,
        "input": {"source": source, "rows": rows},
        "versions": {"python": python_version(), **{name: _version(name) for name in _LIBRARIES}},
    }


def check(out: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `RunError` if the folder holds a run with other settings, prompts or program version."""
    path = out / MANIFEST
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read ({error}): restart with --fresh") from error
    now = json.loads(json.dumps(manifest))
    differences = [line for name in _COMPARED for line in _differences(name, there.get(name), now[name])]
    if differences:
        few = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if len(differences) > 4 else "")
        raise RunError(
            f"{str(out)!r} holds a run with other settings ({few}): use its settings, or another folder, or restart with "
            "--fresh, which keeps the stored completions"
        )


def write(out: Path, manifest: Mapping[str, Any], totals: Mapping[str, Any] | None = None, *, complete: bool = False) -> None:
    """Write the manifest, with the totals of the run if it has ended."""
    value = {**manifest, "complete": complete, **({} if totals is None else {"totals": totals})}
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
