"""From the name of a model to the folder of its files, which are fetched or converted if need be. No torch.

resolve("smollm2")            # a name of `registry.ENTRIES`
resolve("./my-model")         # a folder, of a model or an adapter
resolve("model.Q4_1.gguf")    # a GGUF file, or a folder with one
resolve("owner/name")         # a hub id, which transformers fetches: returned as it is
"""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ExtraError, ModelError, first_line
from . import gguf, hub, package
from .places import OFFLINE, Progress, cache_folder, complete, offline
from .registry import ENTRIES, Entry, Hub, Package, Shipped, Source
from .watch import bar

BASE = "multiverse_base"
"""Key in an adapter's config.json: ``fingerprint`` of its base's weights, the kind of ``source`` that a named one was from, and
``rows`` of the vocabulary as in `rows.Rows`."""


class Named(NamedTuple):
    """A model of the registry.

    Attributes:
        only: the kind of the one source to use, as in ``smollm2@package``; `None` is any.
    """

    entry: Entry
    only: str | None


class Found(NamedTuple):
    """A model that is at hand.

    Attributes:
        folder: of its files.
        kind: ``folder`` for one that a user has put into the cache, else the kind of its source.
    """

    folder: Path
    kind: str


def looks_local(name: str) -> bool:
    """Whether this can only be a path: no hub id has this form, or something of this name exists."""
    path = Path(name).expanduser()
    return path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or name.endswith(".gguf") or path.exists()


def named(name: str | Path) -> Named | None:
    """What a registry name stands for; `None` if it is none, or if there is a model's folder of this name here."""
    if not isinstance(name, str) or complete(Path(name)):
        return None
    plain, at, kind = name.partition("@")
    entry = ENTRIES.get(plain)
    if entry is None or not at:
        return None if entry is None else Named(entry, None)
    kinds = [source.kind for source in entry.sources]
    if kind not in kinds:
        raise ModelError(f"the model {plain!r} has no source {kind!r}: use {' or '.join(f'{plain}@{one}' for one in kinds)}")
    return Named(entry, kind)


def find(model: Named) -> Found | None:
    """A named model, if it is at hand."""
    if model.only is None and complete(own := own_folder(model.entry)):
        return Found(own, "folder")
    places = ((_find(model.entry, source), source.kind) for source in _sources(model))
    return next((Found(folder, kind) for folder, kind in places if folder is not None), None)


def own_folder(entry: Entry) -> Path:
    """Where a user may put the folder of a named model."""
    return cache_folder() / "models" / entry.name


def resolve(name: str | Path, *, prefer: str | None = None, progress: Progress | None = None) -> str:
    """The folder of a model, or the hub id itself.

    Args:
        name: of the registry, with ``@hub`` or ``@package`` for that source only; or a folder, a GGUF file or a hub id.
        prefer: a kind of source (``hub``, ``package``) of a named model that is taken if it can be had.
        progress: told of downloads; by default there is a bar on a terminal's stderr.

    Raises:
        ModelError: a named model is neither at hand nor to be had, or a GGUF file cannot be converted.
    """
    if progress is None:
        with bar() as shown:
            return resolve(name, prefer=prefer, progress=shown)
    if (model := named(name)) is not None:
        return str(_obtain(model, prefer, progress))
    if (file := gguf_file(name)) is not None:
        return str(gguf.converted(file, progress))
    return os.path.expanduser(name)  # noqa: PTH111 (a Path would drop the ./ by which a name is known to be local)


def gguf_file(name: str | Path) -> Path | None:
    """The GGUF file that a name stands for: a path, or a folder with one; `None` if it stands for something else.

    Raises:
        ModelError: a folder has several.
    """
    if named(name) is not None:
        return None
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (of a Path, too)
    if path.suffix == ".gguf" and path.is_file():
        return path
    return gguf.only_file(path) if path.is_dir() else None


def pull(name: str | Path, progress: Progress | None = None) -> str:
    """`resolve`, for a hub id and for the base of an adapter, too: afterwards everything is at hand.

    Raises:
        ModelError: something cannot be had.
    """
    if progress is None:
        with bar() as shown:
            return pull(name, shown)
    source = resolve(name, progress=progress)
    if not looks_local(source):
        if source.count("/") == 1 and not offline():
            source = str(hub.find(Hub(source)) or hub.fetch(Hub(source), progress))
        return source
    if base := _read_settings(Path(source) / "adapter_config.json").get("base_model_name_or_path"):
        resolve_base(Path(source), base, progress)
    return source


def resolve_base(adapter: Path, name: str, progress: Progress | None = None) -> str:
    """`resolve` for the base of an adapter: from the source that the adapter was trained on, if that can be had."""
    noted = _read_settings(adapter / "config.json").get(BASE) or {}
    return resolve(name, prefer=noted.get("source"), progress=progress)


def _read_settings(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        values = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} cannot be read: it holds no settings")
    return values


def for_planning(name: str) -> str:
    """Where configuration and tokenizer can be read, without fetching weights: as `resolve`, or the hub id of a named model."""
    model = named(name)
    ids = [source.id for source in _sources(model) if isinstance(source, Hub)] if model is not None else []
    return ids[0] if model is not None and ids and find(model) is None else resolve(name)


def suggestion(name: str) -> str:
    """A name of the registry that this one may have been meant to be, as the end of a message."""
    near = get_close_matches(name.lower(), ENTRIES, n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def _sources(model: Named) -> list[Source]:
    return [source for source in model.entry.sources if model.only in (None, source.kind)]


def _find(entry: Entry, source: Source) -> Path | None:
    if isinstance(source, Shipped):
        folder = Path(__file__).parent / source.folder
        return folder if complete(folder) else None
    return hub.find(source) if isinstance(source, Hub) else package.find(entry)


def _obtain(model: Named, prefer: str | None, progress: Progress) -> Path:
    """A named model, fetched if it is not at hand."""
    entry, problems = model.entry, list[str]()

    def fetched(source: Source) -> Path | None:
        try:
            return _fetch(entry, source, progress)
        except (ModelError, ExtraError) as error:
            problems.append(f"{source}: {error}")
            return None

    first = [source for source in _sources(model) if source.kind == prefer]
    for source in first:
        if (folder := _find(entry, source) or fetched(source)) is not None:
            return folder
    if (found := find(model)) is not None:
        return found.folder
    for source in _sources(model):
        if source not in first and (folder := fetched(source)) is not None:
            return folder
    why = OFFLINE if all(problem.endswith(OFFLINE) for problem in problems) else "; ".join(problems)
    raise ModelError(
        f"the model {entry.name!r} is not at hand, and could not be had ({why}). Its folder may also be put at "
        f"{own_folder(entry)}"
    )


def _fetch(entry: Entry, source: Source, progress: Progress) -> Path:
    if isinstance(source, Shipped):
        raise ModelError(f"this installation lacks {Path(__file__).parent / source.folder}")
    if isinstance(source, Package):
        return package.fetch(entry, source, progress)
    if offline():
        raise ModelError(OFFLINE)
    return hub.fetch(source, progress)
