"""transformers' `Trainer` on rows of structured documents.

FSDP2 and DDP (through accelerate), mixed precision, gradient accumulation, checkpoints, resuming and trackers are the
Trainer's. Replaced are the attention, the loss, the order (scheduled beforehand, never shuffled here), and the optimizer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ..attention.packed import BLOCK, Kind, register
from ..errors import ConfigError
from .batch import SEGMENT_BUCKET, Batch, answer_loss, collate
from .config import Optimizer, RunConfig
from .features import Features
from .optimizers import CombinedOptimizer

COMPLETE = "complete"
"""Marker file in every checkpoint that was written completely."""


class StructuredTrainer(Trainer):
    """`Trainer` on rows of features."""

    def __init__(self, config: RunConfig, kind: Kind, **kwargs: Any) -> None:
        self.config, self.kind = config, kind
        # Other attention implementations accept the batches too, and would silently use a causal mask.
        kwargs["model"].set_attn_implementation(register())
        super().__init__(**kwargs)
        # The loss is divided by the tokens with loss of the whole step, over all devices and forward passes: the weight of a
        # document does not depend on the other documents in its row or forward pass.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        refuse_sequence_sharding(self.accelerator)
        self.remove_callback(PrinterCallback)  # prints to standard output, which is for the result of the command

    def create_accelerator_and_postprocess(self) -> None:
        """As `Trainer`'s, and FSDP on CPU: accelerate supports it there, but silently ignores the setting."""
        super().create_accelerator_and_postprocess()
        plugin = self.args.fsdp_plugin_args
        if plugin is not None and self.args.device.type == "cpu":
            state = self.accelerator.state
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)
            # Set in both states, since accelerate copies one into the other on every access.
            state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True
        if plugin is not None and not self.is_fsdp_enabled:
            raise ConfigError("fsdp=True is not supported on this device: set it to false, or train on another one")

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross entropy summed over the tokens with loss, divided by their number in the whole step."""
        total, count = answer_loss(model, inputs, self.config.share_every, self.kind)
        if num_items_in_batch is None:
            loss = total / count.clamp(min=1)
        else:
            # Gradients are averaged over the processes, where they should be summed.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean loss per token with loss of each validation set; `Trainer`'s own is a mean over batches."""
        metrics: dict[str, float] = {}
        sets: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        for name, rows in sets.items():
            sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
            self.model_wrapped.eval()
            for batch in self.get_eval_dataloader(rows):
                inputs = self._prepare_inputs(batch)
                with torch.no_grad(), self.compute_loss_context_manager():
                    loss, tokens = answer_loss(self.model_wrapped, inputs, self.config.share_every, self.kind)
                sums += torch.stack([loss.double(), tokens.double()])
            total, count = self.accelerator.reduce(sums, "sum").tolist()
            metrics[f"{metric_key_prefix}_{name}_loss"] = total / max(count, 1)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(rows)

    def create_optimizer(self, model: Any = None) -> Any:
        """Set the optimizer from the configuration."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(model if model is not None else self.model, self.config.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Set the learning-rate schedule from the configuration."""
        if self.lr_scheduler is None:
            scheduled: Any = optimizer if optimizer is not None else self.optimizer
            self.lr_scheduler = LambdaLR(scheduled, lr_factor(self.config.optimizer, num_training_steps))
        return self.lr_scheduler


def refuse_sequence_sharding(accelerator: Any) -> None:
    """Refuse context and sequence parallelism: they split rows over devices and assume a causal mask (the former silently).

    Raises:
        ConfigError: one of them is enabled, through a configuration or the environment.
    """
    parallel = getattr(accelerator, "parallelism_config", None)
    for name, what in (("cp_size", "context parallelism"), ("sp_size", "sequence parallelism")):
        size = int(getattr(parallel, name, None) or os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}") or 1)
        if size > 1:
            raise ConfigError(
                f"{what} ({name}={size}) replaces the mask of structured documents by a causal one: turn it off; "
                f"for long documents use gradient_checkpointing, fsdp and mask: block"
            )


class Collator:
    """Rows of features to a batch; with block masks and compiled layers in few shapes, since each shape is compiled."""

    def __init__(self, pad_id: int, kind: Kind, compiled: bool = False) -> None:
        self.pad_id = pad_id
        self.multiples = (BLOCK, SEGMENT_BUCKET) if kind == "block" else (BLOCK if compiled else 1, 1)

    def __call__(self, rows: Sequence[Sequence[Features]]) -> Batch:
        return collate(rows, self.pad_id, *self.multiples)


class MarkComplete(TrainerCallback):
    """Marks complete checkpoints, so that a run never resumes from one that was cut off by a kill."""

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    markers = folder.glob(f"checkpoint-*/{COMPLETE}")
    return max((marker.parent for marker in markers), key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def make_optimizer(model: Any, options: Optimizer) -> Any:
    """AdamW without weight decay on norms and biases; or Muon on the matrices of the layers, with AdamW on the rest."""
    beta1, beta2 = options.betas
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if options.name == "muon":
        matrices = [p for name, p in named.items() if p.ndim == 2 and "layers" in name]
        others = [p for name, p in named.items() if p.ndim != 2 or "layers" not in name]
        muon = Muon(matrices, lr=options.muon_lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw")
        return CombinedOptimizer([muon, AdamW(others, lr=options.lr, betas=(beta1, beta2), eps=1e-10, weight_decay=0.0)])
    groups = [
        {"params": [p for p in named.values() if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in named.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=options.lr, betas=(beta1, beta2))


def lr_factor(options: Optimizer, steps: int) -> Callable[[int], float]:
    """Learning rate of each step as a fraction of its peak: linear warm-up, then the schedule."""
    warmup = math.ceil(options.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (steps - step) / max(1, steps - warmup))
        if options.schedule == "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        if options.schedule == "linear":
            return left
        if options.schedule == "wsd":
            return min(1.0, max(0.0, 1 - step / steps) / (1 - options.stable_ratio))
        return 1.0

    return factor
