"""LoRA adapters in peft's format, merged into their base without peft.

The folder of an adapter that `multiverse train` wrote is complete: beside peft's two files it holds the configuration of the
merged model, with the dialect and what `BASE` names, the tokenizer and the generation configuration.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, first_line
from .fingerprint import fingerprint
from .resolve import BASE
from .rows import Rows, fill_unused

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B, _ROWS = ".lora_A.weight", ".lora_B.weight", ".token_adapter.trainable_tokens_delta"
# Settings of peft that change what is computed, and their values without effect.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
}
# Keys of config.json that describe how it was saved, not the model.
_NOT_COPIED = {"dtype", "torch_dtype", "transformers_version", "architectures", "model_type", BASE}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapter:
    """The folder of an adapter.

    Attributes:
        base: name, folder or hub id of the model that it was trained on.
        settings: peft's, from adapter_config.json.
        config: config.json of the merged model; empty if the folder has none.
    """

    folder: Path
    base: str
    settings: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def dtype(self) -> torch.dtype | None:
        """The type in which the merged model was meant to run; `None` if nothing says so."""
        name = self.config.get("dtype", self.config.get("torch_dtype"))
        found = getattr(torch, str(name), None)
        return found if isinstance(found, torch.dtype) else None

    @property
    def merge_command(self) -> str:
        """The command that writes the merged model."""
        return f"multiverse merge {shlex.quote(str(self.folder))} --out FOLDER"


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter in this folder; `None` if it holds none.

    Raises:
        ModelError: its settings cannot be read, or are not those of LoRA alone.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text())
        own = folder / "config.json"
        config = json.loads(own.read_text()) if own.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{path} names no base model: set base_model_name_or_path to the model that it was trained on")
    if settings.get("peft_type") != "LORA":
        raise ModelError(f"{path} is of type {settings.get('peft_type')!r}: only LORA can be merged here; merge it with peft")
    for name, harmless in _UNSUPPORTED.items():
        if name in settings and settings[name] not in harmless:
            raise ModelError(f"{path} has {name}={settings[name]!r}, which is not supported: merge it with peft")
    return Adapter(folder, str(base), settings, config)


@torch.no_grad()
def apply(adapter: Adapter, model: Any, dtype: torch.dtype) -> Any:
    """Merge an adapter into its base, in place; the result has this dtype.

    Each changed matrix is ``W + scale * B @ A``, each trained row of the vocabulary the adapter's, both computed in fp32 as
    `peft.PeftModel.merge_and_unload` computes them and rounded once.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    _grow_vocabulary(adapter, model)
    parameters = dict(model.named_parameters())
    base_dtype = model.dtype
    for name, new in _merged(adapter, {name: p.data for name, p in parameters.items()}, _transposed(model)):
        parameters[name].data = new.to(dtype)
    for parameter in parameters.values():  # not model.to(dtype), which would round the frequencies of the positions, too
        if parameter.dtype == base_dtype:
            parameter.data = parameter.data.to(dtype)
    for key, value in adapter.config.items():
        if key not in _NOT_COPIED:
            setattr(model.config, key, value)
    model.config.dtype = dtype
    if (adapter.folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(adapter.folder)
    return model


def _merged(adapter: Adapter, weights: Mapping[str, Tensor], transposed: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Name and new value, in fp32, of every weight that the adapter changes."""
    tensors = read_tensors(adapter)
    left = set(tensors)
    for key in sorted(tensors):
        name = key.removeprefix(_PREFIX)
        if key.endswith(_B):
            module = name.removesuffix(_B)
            partner = key.removesuffix(_B) + _A
            if partner not in tensors or f"{module}.weight" not in weights:
                continue
            left -= {key, partner}
            weight, a_RI, b_OR = weights[f"{module}.weight"], tensors[partner].float(), tensors[key].float()
            change_OI = (b_OR @ a_RI) * _scale(adapter.settings, module, a_RI.shape[0])
            change = change_OI.T if module in transposed else change_OI
            _check_shape(adapter, module, weight, change)
            yield f"{module}.weight", weight.float() + change
        elif key.endswith(_ROWS):
            module = name.removesuffix(_ROWS)
            if f"{module}.weight" not in weights:
                continue
            left.discard(key)
            weight, rows_KD = weights[f"{module}.weight"], tensors[key].float()
            ids = _row_ids(adapter, module)
            if len(ids) != len(rows_KD) or max(ids, default=0) >= len(weight) or rows_KD.shape[1] != weight.shape[1]:
                raise ModelError(
                    f"{str(adapter.folder)!r} holds {tuple(rows_KD.shape)} rows of {module} for {len(ids)} tokens, and its "
                    f"base {adapter.base!r} has {tuple(weight.shape)}: it was trained on another model"
                )
            new_VD = weight.float().clone()
            new_VD[torch.tensor(ids)] = rows_KD
            yield f"{module}.weight", new_VD
    if left:
        raise ModelError(
            f"{str(adapter.folder)!r} holds tensors for which its base {adapter.base!r} has no place, such as "
            f"{min(left)}: it was trained on another model, or is not plain LoRA (merge it with peft)"
        )


def read_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """The weights of an adapter under their names in peft's file.

    Raises:
        ModelError: they are missing or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = adapter.folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{str(adapter.folder)!r} holds {SETTINGS} and no {WEIGHTS}: copy the whole folder")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """Factor of the adapter of one layer; patterns are matched at the end of the layer's name, as in peft."""
    patterns: Mapping[str, float] = settings.get("alpha_pattern") or {}
    alpha = next((value for end, value in patterns.items() if module == end or module.endswith(f".{end}")), None)
    alpha = settings["lora_alpha"] if alpha is None else alpha
    return float(alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank)


def _row_ids(adapter: Adapter, module: str) -> list[int]:
    """Token ids of the trained rows of a table, such as ``model.embed_tokens``."""
    given = adapter.settings.get("trainable_token_indices") or {}
    if isinstance(given, list):
        return given
    return next((ids for end, ids in given.items() if module == end or module.endswith(f".{end}")), [])


def _transposed(model: Any) -> set[str]:
    """Layers that store their weight as inputs x outputs."""
    from transformers.pytorch_utils import Conv1D

    return {name for name, module in model.named_modules() if isinstance(module, Conv1D)}


def _check_shape(adapter: Adapter, module: str, weight: Tensor, change: Tensor) -> None:
    if weight.shape != change.shape:
        raise ModelError(
            f"{str(adapter.folder)!r} changes {module} by {tuple(change.shape)}, and its base {adapter.base!r} has "
            f"{tuple(weight.shape)} there: it was trained on another model"
        )


def check_base(adapter: Adapter, source: str) -> None:
    """Log a warning if the base's weights are not those that the adapter was trained on."""
    trained_on = (adapter.config.get(BASE) or {}).get("fingerprint")
    if trained_on is not None and (found := fingerprint(source)) not in (None, trained_on):
        _log.warning(
            "%s was trained on other weights of %s (%s, here %s): its answers may differ from those that were measured",
            adapter.folder,
            adapter.base,
            trained_on,
            found,
        )


def _grow_vocabulary(adapter: Adapter, model: Any) -> None:
    size = adapter.config.get("vocab_size")
    if size is not None and size != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(size, mean_resizing=False)
    rows = (adapter.config.get(BASE) or {}).get("rows")
    if rows is not None:
        fill_unused(model, Rows(*rows))
