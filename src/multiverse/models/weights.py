"""Read the weights of a model; the one place that calls transformers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..errors import ModelError, first_line
from .adapter import Adapter, apply, check_base, read_adapter
from .quantised import is_known, quantisation
from .resolve import looks_local, resolve_base, suggestion


def parse_dtype(name: str) -> torch.dtype | str:
    """A torch dtype by name, or ``auto``.

    Raises:
        ModelError: torch has no such dtype.
    """
    dtype = "auto" if name == "auto" else getattr(torch, name, None)
    if dtype != "auto" and not isinstance(dtype, torch.dtype):
        raise ModelError(f"dtype={name!r} is not a type of torch: use 'auto', 'float32', 'bfloat16' or 'float16'")
    return dtype


def read_config(source: str, *, given: str | None = None) -> tuple[Any, Any]:
    """Configuration and tokenizer; of an adapter that lacks one, its base's.

    Args:
        source: what `resolve` returned.
        given: the name to use in messages.

    Raises:
        ModelError: they cannot be found or read.
    """
    given = given if given is not None else source
    local = looks_local(source)
    folder = Path(source)
    if local and folder.suffix == ".gguf" and not folder.exists():
        raise ModelError(f"the GGUF file {given!r} does not exist: give the path of a file that is there")
    if local and not folder.is_dir():
        raise ModelError(f"the model folder {given!r} does not exist: give a folder with config.json and weights, or a hub id")
    adapter = read_adapter(folder) if local else None
    own_config = adapter is None or (folder / "config.json").is_file()
    own_tokenizer = adapter is None or (folder / "tokenizer_config.json").is_file()
    if local and adapter is None and not (folder / "config.json").is_file():
        raise ModelError(f"the folder {given!r} holds no config.json: give the folder that save_pretrained() wrote")
    base = None if own_config and own_tokenizer else read_config(_base_of(adapter))
    try:
        config = AutoConfig.from_pretrained(source) if base is None or own_config else base[0]
        tokenizer = AutoTokenizer.from_pretrained(source) if base is None or own_tokenizer else base[1]
    except (OSError, ValueError, KeyError) as error:
        reason = (
            "it is not a local folder, and the hub did not return it: check the id and the network, or see  multiverse models"
        )
        hint = "" if local else f" ({reason}{suggestion(given)})"
        raise ModelError(f"the model {given!r} could not be read{hint}: {first_line(error)}") from error
    return config, tokenizer


def load_weights(source: str, dtype: str, **options: Any) -> Any:
    """A transformers model from a folder, an adapter's folder, or the hub. Adapters are merged into the weights of their base.

    Args:
        source: what `resolve` returned.
        dtype: of the weights; ``auto`` is the one they were saved in.
        options: further arguments of `from_pretrained`.

    Raises:
        ModelError: the weights cannot be read, or an adapter does not fit its base.
    """
    wanted = parse_dtype(dtype)
    adapter = read_adapter(Path(source)) if looks_local(source) else None
    if adapter is not None:
        return _load_adapted(adapter, wanted, options)
    method = _checked_quantisation(source)
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=wanted, **options)
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError, ImportError, AttributeError) as error:
        if method is None and isinstance(error, RuntimeError | ImportError | AttributeError):
            raise
        kind = "" if method is None else f" are quantised ({method}), and"
        way_out = "" if method is None else "; install what this method needs, or choose a model that is not quantised, or GGUF"
        raise ModelError(f"the weights of {source!r}{kind} could not be loaded: {first_line(error)}{way_out}") from error


def _checked_quantisation(source: str) -> str | None:
    """The method of quantised weights, as the configuration states it; `None` if they are plain.

    Raises:
        ModelError: transformers does not know it.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError):  # said where the weights are read
        return None
    method = quantisation(config)
    if method is not None and not is_known(config):
        raise ModelError(
            f"the weights of {source!r} are quantised ({method}), which transformers does not know: choose a model that is not "
            f"quantised, or GGUF"
        )
    return method


def _load_adapted(adapter: Adapter, dtype: torch.dtype | str, options: dict[str, Any]) -> Any:
    """The base with the adapter merged into it.

    Each changed weight is computed in fp32 from the base's saved values and rounded once.
    """
    if options:
        raise ModelError(
            f"{str(adapter.folder)!r} is an adapter, and tensor parallelism reads whole models: merge it first with  "
            f"{adapter.merge_command}"
        )
    source = _base_of(adapter)
    check_base(adapter, source)
    base = load_weights(source, "auto")
    if method := quantisation(base.config):
        raise ModelError(
            f"the adapter {str(adapter.folder)!r} cannot be merged into {adapter.base!r}, whose weights are quantised "
            f"({method}): set base_model_name_or_path to the same model without quantisation"
        )
    target = adapter.dtype or base.dtype if dtype == "auto" else dtype
    assert isinstance(target, torch.dtype)
    return apply(adapter, base, target)


def _base_of(adapter: Adapter | None) -> str:
    """Where the base's files are."""
    assert adapter is not None
    source = resolve_base(adapter.folder, adapter.base)
    if looks_local(source) and (not Path(source).is_dir() or Path(source).samefile(adapter.folder)):
        raise ModelError(
            f"the adapter {str(adapter.folder)!r} needs its base model {adapter.base!r}, which is not there: put it there, or "
            f"change base_model_name_or_path in the adapter's adapter_config.json"
        )
    return source
