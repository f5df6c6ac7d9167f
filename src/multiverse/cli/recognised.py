"""What `multiverse models NAME` says of one model: of which family it is, and how it is asked, sampled and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..families import FAMILIES, Bound, Family, Recognised, bind, read_instruction, recognise
from ..models import ENTRIES
from ..models.resolve import Named, find, looks_local, named, resolve
from .loading import quietly


def describe(name: str) -> dict[str, Any]:
    """A model's family and preset, as JSON; nothing is fetched, and no weights are read.

    Raises:
        ModelError: a folder is not there, or cannot be read.
    """
    entry = named(name)
    source = name if entry is None else _folder(entry)
    local = source is not None and (looks_local(source) or _cached(source))
    if not local or source is None:
        found = _by_name(name, entry)
        return _described(name, found, None, None, "it is not at hand, so only its name is known" if found.note is None else "")
    from ..models.weights import read_config

    with quietly(name):
        source = resolve(source)
        config, tokenizer = read_config(source, given=name)
        found = recognise(name, tokenizer, config)
        bound = bind(found.family, tokenizer, config, instruction=read_instruction(source, None))
    return _described(name, found, bound, config, "")


def _folder(model: Named) -> str | None:
    found = find(model)
    return str(found.folder) if found is not None else None


def _cached(source: str) -> bool:
    """Whether the files of a hub id are at hand."""
    from ..models import hub
    from ..models.registry import Hub

    return source.count("/") == 1 and hub.find(Hub(source)) is not None


def _by_name(name: str, model: Named | None) -> Recognised:
    """The family of a model of which nothing but the name is known: its place in the list, or what it is called."""
    if model is None and "/" not in name and not looks_local(name):
        raise ModelError(
            f"the model {name!r} is not known: give a name, a folder or a hub id (owner/name); see  multiverse models"
        )
    listed = [family for family in FAMILIES.values() if model is not None and model.entry.name in family.checkpoints]
    return Recognised(listed[0], "it is published by it") if listed else recognise(name, None, None)


def _described(name: str, found: Recognised, bound: Bound | None, config: Any, note: str) -> dict[str, Any]:
    family = found.family
    tokens = bound.tokens if bound is not None else None
    dialect = (
        tokens.dialect.name if tokens is not None else family.dialects[0] if family is not None and bound is None else None
    )
    prompting = bound.prompting if bound is not None else family.prompting_of(None) if family is not None else None
    return {
        "model": name,
        "preset": family.name if family is not None else None,
        "known_by": found.why,
        "note": found.note or note or None,
        "dialect": dialect,
        "dialects": [one for one in family.dialects if one != dialect] if family is not None else [],
        "instructions": dict(prompting.instructions) if prompting is not None else {},
        "template": dict(family.switches) if family is not None else {},
        "end_tokens": list(family.end_tokens) if family is not None else [],
        "sampling": dict(family.sampling) if family is not None else {},
        "answer": _reads(family),
        **_memory(name, family, config),
    }


def _reads(family: Family | None) -> str | None:
    """What the family's reader takes for the answer."""
    if family is None or family.read_answer is None:
        return None
    return (family.read_answer.__doc__ or family.read_answer.__name__).splitlines()[0]


def _memory(name: str, family: Family | None, config: Any) -> dict[str, int | None]:
    """Bytes of the weights, and of the keys and values of a token, in bfloat16."""
    if config is not None:
        text = config.get_text_config()
        heads = getattr(text, "num_attention_heads", 0)
        size = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
        kept = getattr(text, "num_key_value_heads", None) or heads
        return {"memory_bytes": _weights(name), "kv_bytes_per_token": 4 * text.num_hidden_layers * kept * size}
    entry = ENTRIES.get(name.partition("@")[0])
    if entry is None and family is not None and family.checkpoints:
        entry = ENTRIES[family.checkpoints[0]]
    return {
        "memory_bytes": entry.memory if entry is not None else None,
        "kv_bytes_per_token": entry.kv_memory if entry is not None else None,
    }


def _weights(name: str) -> int | None:
    """Size of a folder's weights; those of a named model in bfloat16."""
    if (model := named(name)) is not None:
        return model.entry.memory
    sizes = [file.stat().st_size for file in Path(name).expanduser().glob("*.safetensors")]
    return sum(sizes) or None
