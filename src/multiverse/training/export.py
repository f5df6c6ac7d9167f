"""The finished model as a folder that explains itself: weights or adapters, tokenizer, settings, summary, licence and card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..families import INSTRUCTION_FILE
from ..models.adapter import SETTINGS, WEIGHTS
from ..models.resolve import BASE
from ..models.rows import Rows
from ..models.weights import load_weights
from .card import Base, Summary, copy_licence, write_card
from .config import RunConfig

MODEL, ADAPTER, CONFIG = "model", "adapter", "config.yaml"


@dataclass
class Export:
    """Writes what a run leaves behind.

    Attributes:
        rows: how the rows of the vocabulary are divided.
        base: the model that the run started from.
        saved_dtype: the type in which that was saved; `None` if its configuration does not say.
        summarize: called when all else is written.
        instruction: the one for parallel thinking, if it is from a file.
    """

    config: RunConfig
    tokenizer: Any
    rows: Rows
    base: Base
    saved_dtype: torch.dtype | None
    summarize: Callable[[], Summary]
    instruction: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of what is written."""
        if self.config.save_dtype != "auto":
            chosen: torch.dtype = getattr(torch, self.config.save_dtype)
            return chosen
        if isinstance(self.saved_dtype, torch.dtype):
            return self.saved_dtype
        return torch.bfloat16 if self.config.precision == "bf16_weights" else torch.float32

    def write(self, trainer: Any) -> Path:
        """Write the finished model; returns its folder. Every process has to call this."""
        out, lora = Path(self.config.out), self.config.lora
        main = trainer.is_world_process_zero()
        if lora is not None:
            folder = out / ADAPTER
            trainer.save_model(str(folder))
            if main:
                self._complete_adapter(trainer.accelerator.unwrap_model(trainer.model_wrapped).get_base_model(), folder)
                self._describe(folder, "adapter")
                if lora.merge:
                    merged = load_weights(str(folder), str(self.dtype).removeprefix("torch."))
                    self._save_model(merged, out / MODEL, merged.state_dict())
        else:
            state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
            if main:
                self._save_model(trainer.accelerator.unwrap_model(trainer.model_wrapped), out / MODEL, state)
        trainer.accelerator.wait_for_everyone()
        return out / (MODEL if lora is None or lora.merge else ADAPTER)

    def _save_model(self, model: Any, folder: Path, state: dict[str, Any]) -> None:
        state = dict(state)
        if model.config.tie_word_embeddings:
            for name in model._tied_weights_keys or ():
                state.pop(name, None)  # after gathering or casting, save_pretrained cannot detect that the tensors are tied
        state = {name: t.to(self.dtype) if t.is_floating_point() else t for name, t in state.items()}
        model.config.use_cache = True
        model.save_pretrained(folder, state_dict=state)
        # save_pretrained notes the type of the model in memory, whatever the type of the tensors that it is given.
        _edit(folder / "config.json", dtype=_name(self.dtype))
        self._describe(folder, "merged" if self.config.lora is not None else "full")

    def _complete_adapter(self, model: Any, folder: Path) -> None:
        """From what peft has saved to a folder that loads by itself."""
        from safetensors.torch import load_file, save_file

        tensors = {name: tensor.to(self.dtype) for name, tensor in load_file(folder / WEIGHTS).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        targets = json.loads((folder / SETTINGS).read_text())["target_modules"]
        _edit(
            folder / SETTINGS,
            base_model_name_or_path=self.base.name,
            target_modules=sorted(targets) if isinstance(targets, list) else targets,  # peft keeps a set
        )
        model.config.use_cache = True
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        base = {"fingerprint": self.base.fingerprint, "source": self.base.source, "rows": list(self.rows)}
        _edit(folder / "config.json", dtype=_name(self.dtype), architectures=[type(model).__name__], **{BASE: base})
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, with this machine's paths

    def _describe(self, folder: Path, kind: str) -> None:
        """Everything beside the weights."""
        self.tokenizer.save_pretrained(folder)
        out = Path(self.config.out)
        shutil.copy(out / CONFIG, folder / "training.yaml")
        if self.instruction is not None:
            (folder / INSTRUCTION_FILE).write_text(f"{self.instruction}\n", encoding="utf-8")
        copy_licence(self.base, folder)
        summary = self.summarize()
        summary.values.update(kind=kind, dtype=_name(self.dtype))
        (folder / "training.json").write_text(json.dumps(summary.values, indent=2) + "\n")
        write_card(folder, summary)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=2, sort_keys=True) + "\n")
