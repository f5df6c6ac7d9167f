"""transformers' Trainer on packed rows: our attention, our loss, our order; everything else is its own.

Trainer brings what has to be right and is not ours to write: FSDP2 and DDP through accelerate, mixed precision, gradient
accumulation, checkpoints, resuming, trackers. Three things are replaced: the loss, the order (a plan made beforehand,
never shuffled here), and the optimizer where it is Muon.
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
from .batch import SEGMENT_BUCKET, Batch, answer_logits, answer_loss, collate
from .config import Config
from .features import Features
from .optimizers import Together

COMPLETE = "complete"
"""A file that stands in every checkpoint that was written to its end."""


class StructuredTrainer(Trainer):
    """Trains on rows of features; see the module's head."""

    def __init__(self, config: Config, kind: Kind, **kwargs: Any) -> None:
        self.config, self.kind = config, kind
        # Any other attention would take the batches as well, and silently show every token all before it.
        kwargs["model"].set_attn_implementation(register())
        super().__init__(**kwargs)
        # The loss is divided by all the tokens of a step that take loss, on all devices and in all of its forward passes: no
        # document weighs more or less for the company that it keeps.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        refuse_sequence_sharding(self.accelerator)
        self.remove_callback(PrinterCallback)  # standard output is the command's

    def create_accelerator_and_postprocess(self) -> None:
        """As Trainer's; but accelerate leaves FSDP aside on CPU, without a word, and shards as soon as it is told to."""
        super().create_accelerator_and_postprocess()
        plugin = self.args.fsdp_plugin_args
        if plugin is not None and self.args.device.type == "cpu":
            state = self.accelerator.state
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)
            # In both states: the one is copied into the other whenever it is asked for.
            state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True
        if plugin is not None and not self.is_fsdp_enabled:
            raise ConfigError("fsdp=True is not in force on this device: set it to false, or train on another one")

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross entropy over the tokens that take loss, over the number of them in the whole step."""
        logits_BNV, targets_BN = answer_logits(model, inputs, self.config.share_every, self.kind)
        total = answer_loss(logits_BNV, targets_BN)
        if num_items_in_batch is None:
            loss = total / (targets_BN >= 0).sum().clamp(min=1)
        else:
            # Gradients are averaged over processes, where they should be summed.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, {"logits": logits_BNV}) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean loss per token that takes loss, over each of the validation sets; Trainer's own is a mean over batches."""
        metrics: dict[str, float] = {}
        sets: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        for name, rows in sets.items():
            sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
            self.model_wrapped.eval()
            for batch in self.get_eval_dataloader(rows):
                inputs = self._prepare_inputs(batch)
                with torch.no_grad(), self.compute_loss_context_manager():
                    logits_BNV, targets_BN = answer_logits(self.model_wrapped, inputs, self.config.share_every, self.kind)
                sums += torch.stack([answer_loss(logits_BNV, targets_BN).double(), (targets_BN >= 0).sum().double()])
            total, count = self.accelerator.reduce(sums, "sum").tolist()
            metrics[f"{metric_key_prefix}_{name}_loss"] = total / max(count, 1)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(rows)

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW without decay on norms and biases; or Muon on the matrices of the layers, with AdamW on the rest."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(model if model is not None else self.model, self.config)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate over the run."""
        if self.lr_scheduler is None:
            driven: Any = optimizer if optimizer is not None else self.optimizer
            self.lr_scheduler = LambdaLR(driven, rate(self.config, num_training_steps))
        return self.lr_scheduler


def refuse_sequence_sharding(accelerator: Any) -> None:
    """Refuse what would compute with a mask of its own instead of ours.

    Context and sequence parallelism cut a row over devices, and take the mask to be causal when they do (the former silently).

    Raises:
        ConfigError: one of them is switched on, through a configuration or the environment.
    """
    parallel = getattr(accelerator, "parallelism_config", None)
    for name, what in (("cp_size", "context parallelism"), ("sp_size", "sequence parallelism")):
        size = int(getattr(parallel, name, None) or os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}") or 1)
        if size > 1:
            raise ConfigError(
                f"{what} ({name}={size}) replaces the mask of structured documents by a causal one: switch it off; "
                f"for long documents use checkpointing, fsdp and mask: block"
            )


class Collator:
    """Rows of features to a batch, in sizes that come up again and again, so that nothing compiles for each."""

    def __init__(self, pad_id: int, kind: Kind) -> None:
        self.pad_id, self.kind = pad_id, kind

    def __call__(self, rows: Sequence[Sequence[Features]]) -> Batch:
        if self.kind == "block":
            return collate(rows, self.pad_id, BLOCK, SEGMENT_BUCKET)
        return collate(rows, self.pad_id)


class MarkComplete(TrainerCallback):
    """Puts a mark into every checkpoint once all of it is there: what a killed run left half written is never resumed."""

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    marks = folder.glob(f"checkpoint-*/{COMPLETE}")
    return max((mark.parent for mark in marks), key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def make_optimizer(model: Any, config: Config) -> Any:
    """See `StructuredTrainer.create_optimizer`."""
    ours = config.optimizer
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if ours.name == "muon":
        matrices = [p for name, p in named.items() if p.ndim == 2 and "layers" in name]
        others = [p for name, p in named.items() if p.ndim != 2 or "layers" not in name]
        muon = Muon(matrices, lr=ours.muon_lr, weight_decay=ours.weight_decay, adjust_lr_fn="match_rms_adamw")
        return Together([muon, AdamW(others, lr=ours.lr, betas=_betas(config), eps=1e-10, weight_decay=0.0)])
    groups = [
        {"params": [p for p in named.values() if p.ndim >= 2], "weight_decay": ours.weight_decay},
        {"params": [p for p in named.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=ours.lr, betas=_betas(config))


def _betas(config: Config) -> tuple[float, float]:
    first, second = config.optimizer.betas
    return first, second


def rate(config: Config, steps: int) -> Callable[[int], float]:
    """Learning rate of each step as a share of its peak: a climb, then the schedule, to zero behind the last step."""
    ours = config.optimizer
    warmup = math.ceil(ours.warmup * steps)

    def of(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (steps - step) / max(1, steps - warmup))
        if ours.schedule == "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        if ours.schedule == "linear":
            return left
        if ours.schedule == "steady":
            return min(1.0, max(0.0, 1 - step / steps) / (1 - ours.steady))
        return 1.0

    return of
