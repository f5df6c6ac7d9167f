"""Gradient checkpointing, LoRA adapters and compiled layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, first_line
from ..models.adapter import read_adapter, read_tensors
from .config import RunConfig
from .prepare import Prepared


def enable_training(model: Any, config: RunConfig, prepared: Prepared) -> Any:
    """The model with gradient checkpointing and LoRA adapters as configured; without adapters the same object.

    Raises:
        ConfigError: the model has no such layers for adapters, or those to be trained further do not fit.
    """
    if config.gradient_checkpointing:
        # Renamed in transformers 5; supported releases have one of the two names.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        model.config.use_cache = False
    if config.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    rows = list(prepared.trained_ids)
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = {names[id(embedding)]: rows}
    if head is not None and head.weight is not embedding.weight:
        tables[names[id(head)]] = rows
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
    adapters = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]  # annotated as int; any number works
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.targets,
        trainable_token_indices=tables,
        task_type="CAUSAL_LM",
    )
    with ignore_deprecation():
        try:
            adapted = get_peft_model(model, adapters)
        except ValueError as error:
            raise ConfigError(f"lora.targets={config.lora.targets!r} does not fit this model: {first_line(error)}") from error
    if config.lora.start is not None:
        _load(adapted, config.lora.start)
    # Of the vocabulary the trained rows only: by itself peft would save the whole embedding, because it has grown.
    adapted.save_pretrained = partial(adapted.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return adapted


def _load(adapted: Any, folder: str) -> None:
    """Give new adapters the weights of those in a folder."""
    from peft import set_peft_model_state_dict

    adapter = read_adapter(Path(folder))
    if adapter is None:
        raise ConfigError(f"lora.start={folder!r} holds no adapters: name a folder that training with lora.merge: false wrote")
    own = adapted.peft_config[adapted.active_adapter]
    if adapter.settings.get("lora_alpha") != own.lora_alpha:  # the shapes of the weights do not tell
        raise ConfigError(f"lora.start={folder!r} has alpha {adapter.settings.get('lora_alpha')}, not {own.lora_alpha:g}")
    tensors = read_tensors(adapter)
    try:
        unknown = set_peft_model_state_dict(adapted, tensors).unexpected_keys  # type: ignore[attr-defined]  # no annotation
    except (RuntimeError, KeyError) as error:
        raise ConfigError(f"lora.start={folder!r} does not fit this model and rank: {first_line(error)}") from error
    missing = len([name for name, _ in adapted.named_parameters() if ".lora_" in name or "trainable_tokens_delta" in name])
    if unknown or len(tensors) != missing:
        raise ConfigError(
            f"lora.start={folder!r} holds {len(tensors)} tensors where this run trains {missing}: "
            "use the model, dialect and lora.targets that it was trained with"
        )


def compile_layers(model: Any) -> None:
    """Compile each decoder layer for itself, in place, as torchtitan does: the layers are alike, so one compilation serves all.

    Attention is not compiled; see `attention.packed.register`.
    """
    repeated = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in repeated:
            module.compile()


@contextmanager
def ignore_deprecation() -> Iterator[None]:
    """peft uses the name for gradient checkpointing that transformers has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
