"""The finished model as a plain Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from ..structure import DIALECTS
from .config import Config
from .loading import load_model
from .lora import ignore_deprecation
from .prepare import prepare

MODEL, ADAPTER, SETTINGS = "model", "adapter", "config.yaml"


def export_model(trainer: Any, config: Config, tokenizer: Any, out: Path, saved_dtype: Any) -> Path:
    """Write the finished model in the dtype in which it was loaded; returns its folder. Every process has to call this."""
    folder = out / (MODEL if config.lora is None or config.lora.merge else ADAPTER)
    main = trainer.is_world_process_zero()
    if config.lora is not None:
        trainer.save_model(str(out / ADAPTER))
        if main and config.lora.merge:
            _merge(config, out / ADAPTER, folder, saved_dtype)
    else:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if main:
            _save(trainer.accelerator.unwrap_model(trainer.model_wrapped), folder, saved_dtype, state)
    if main:
        tokenizer.save_pretrained(folder)
        shutil.copy(out / SETTINGS, folder / "training.yaml")
    trainer.accelerator.wait_for_everyone()
    return folder


def _merge(config: Config, adapter: Path, folder: Path, saved_dtype: Any) -> None:
    """Merge adapters into the weights that they were trained on."""
    from peft import PeftModel

    model, tokenizer, _ = load_model(config)
    prepare(model, tokenizer, DIALECTS[config.dialect])
    with ignore_deprecation():
        adapted = PeftModel.from_pretrained(model, str(adapter))
    _save(adapted.merge_and_unload(), folder, saved_dtype)


def _save(model: Any, folder: Path, saved_dtype: Any, state: dict[str, Any] | None = None) -> None:
    """`save_pretrained` with the weights in this dtype."""
    state = dict(state if state is not None else model.state_dict())
    if model.config.tie_word_embeddings:
        for name in model._tied_weights_keys or ():
            state.pop(name, None)  # after gathering or casting, save_pretrained cannot detect that the tensors are tied
    if isinstance(saved_dtype, torch.dtype):
        state = {name: t.to(saved_dtype) if t.is_floating_point() else t for name, t in state.items()}
        model.config.dtype = saved_dtype
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=state)
