"""One training run, from a configuration to a model folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..attention.packed import Kind
from ..data.write import write_faults
from ..errors import ConfigError, writing
from ..families import write_preset
from ..prompting import write_instructed
from .callbacks import FreeThreads, GracefulStop, InterruptedRunError, Log, Progress
from .card import LOG, base_of, summarize
from .config import Config, RunConfig, check_extra, dump, load_stored, without_effect
from .corpus import RowDataset
from .curve import plot_curve
from .export import CONFIG, Export
from .loading import ProgressCallback, RunInputs, load_inputs, load_model, world_size
from .lora import compile_layers, enable_training
from .settings import flatten

FAULTS, CURVE = "faults.jsonl", "curve.svg"
# Settings that may change when a run is resumed, since the loss does not depend on them.
MAY_CHANGE = (
    "report_to",
    "keep",
    "save_every",
    "eval_every",
    "shape",
    "out",
    "micro_batch_size",
    "fsdp",
    "mask",
    "gradient_checkpointing",
    "compile",
    "save_dtype",
)


def mask_kind(config: RunConfig) -> Kind:
    """The kind of mask on this machine.

    Raises:
        ConfigError: a block mask is configured, and there is no CUDA.
    """
    if config.mask == "block" and not torch.cuda.is_available():
        raise ConfigError("mask='block' needs CUDA, which torch does not find here: use 'dense' or 'auto'")
    return "block" if config.mask != "dense" and torch.cuda.is_available() else "dense"


def accumulation_steps(config: Config) -> int:
    """Forward passes of each process per step.

    Raises:
        ConfigError: the rows of a step cannot be divided evenly.
    """
    rows = config.micro_batch_size * world_size()
    if config.global_batch_size % rows:
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} cannot be divided over {world_size()} processes with "
            f"micro_batch_size={config.micro_batch_size}: make it a multiple of {rows}"
        )
    return config.global_batch_size // rows


def train(config: Config, *, fresh: bool = False, on_progress: ProgressCallback = lambda *_: None, console: Any = None) -> Path:
    """Train, or resume training, and write the model.

    Args:
        fresh: start anew, even where there is a checkpoint.
        on_progress: called while the data is read.
        console: a rich console for the progress of training; `None` shows none.

    Returns:
        The finished model's folder.

    Raises:
        ConfigError, DataError, DialectError, ModelError: nothing was trained.
        DiskError: the disk is full; the checkpoints that were complete are kept.
        ExtraError: a library is missing.
        InterruptedRunError: a signal stopped the run after it had written a checkpoint.
    """
    check_extra()
    from .trainer import Collator, MarkComplete, StructuredTrainer, newest_checkpoint

    kind, accumulation = mask_kind(config), accumulation_steps(config)
    check_trackers(config)
    out = Path(config.out)
    main = int(os.environ.get("RANK", 0)) == 0
    if not fresh:
        check_folder(config, out)
    torch.manual_seed(config.seed)
    model, tokenizer, saved_dtype = load_model(config)
    base = base_of(config)
    inputs = load_inputs(config, model, tokenizer, on_progress)
    write_instructed(model.config, config.instruct)
    write_preset(model.config, inputs.family)
    if main:
        with writing(out):
            init_folder(out, dump(config), fresh)
            write_faults(inputs.faults, out / FAULTS)
    adapted = enable_training(model, config, inputs.prepared)
    if config.compile:
        compile_layers(adapted)
    trainer = StructuredTrainer(
        config,
        kind,
        model=adapted,
        args=training_arguments(config, inputs, accumulation),
        train_dataset=RowDataset(inputs.schedule.rows, inputs.corpus.features),
        eval_dataset=inputs.validation or None,
        data_collator=Collator(tokenizer.pad_token_id, kind, config.compile),
        callbacks=[
            MarkComplete(),
            Log(out / LOG),
            Progress(inputs.schedule.steps, console),
            FreeThreads(),
            stop := GracefulStop(),
        ],
    )
    checkpoint = None if fresh else newest_checkpoint(out)
    with writing(out), stop:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else False)
    if stop.requested:
        raise InterruptedRunError(
            f"stopped at step {trainer.state.global_step} of {inputs.schedule.steps}; start again to continue"
        )
    with writing(out):
        if main:
            plot_curve(out / LOG, out / CURVE, len(config.shares))
        summary = partial(summarize, config, inputs, base, out)
        return Export(config, inputs.tokenizer, inputs.prepared.rows, base, saved_dtype, summary, inputs.instruction).write(
            trainer
        )


def check_folder(config: Config, out: Path) -> None:
    """Check that a run in this folder, if there is one, has the same settings.

    Raises:
        ConfigError: it was started with other settings.
    """
    if not (out / CONFIG).exists():
        return
    stored = load_stored(out / CONFIG)
    check_same(stored, config, {*MAY_CHANGE, *(without_effect(stored).keys() & without_effect(config).keys())})


def check_same(stored: Any, config: Any, ignored: Collection[str]) -> None:
    """Check that a run's settings are those that it was begun with.

    Args:
        ignored: dotted names of settings that may differ.

    Raises:
        ConfigError: others do.
    """
    before, now = (dict(flatten(asdict(one))) for one in (stored, config))
    changed = [name for name in {**now, **before} if name not in ignored and before.get(name) != now.get(name)]
    if changed:
        changes = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise ConfigError(f"{config.out} holds a run with other settings ({changes}): choose another out, or --fresh")


def init_folder(out: Path, settings: str, fresh: bool, *others: str) -> None:
    """Make the run's folder and write its settings.

    Args:
        fresh: remove what an earlier run left: checkpoints, log, curve, and these others.
    """
    if fresh and out.exists():
        for path in (*out.glob("checkpoint-*"), *(out / name for name in (LOG, CURVE, *others))):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(settings)


def check_trackers(config: RunConfig) -> None:
    """Check that the experiment trackers are there.

    Raises:
        ConfigError: one is not.
    """
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    available = get_available_reporting_integrations()
    for name in config.report_to:
        if name not in available:
            raise ConfigError(
                f"report_to={name!r} is not installed or not known: use {', '.join(available) or 'none'}, or install it"
            )


def training_arguments(config: Config, inputs: RunInputs, accumulation: int) -> Any:
    """transformers' `TrainingArguments` for this run.

    Args:
        accumulation: forward passes of each process per step.
    """
    steps = inputs.schedule.steps
    return common_arguments(
        config,
        steps,
        per_device_train_batch_size=config.micro_batch_size,
        per_device_eval_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        eval_strategy="steps" if inputs.validation else "no",  # a small fraction of few documents may be none
        eval_steps=config.eval_every or max(1, steps // len(config.shares)),
    )


def common_arguments(config: RunConfig, steps: int, **others: Any) -> Any:
    """transformers' `TrainingArguments` as every run has them.

    Args:
        steps: updates of the weights in the whole run.
        others: further arguments of `TrainingArguments`.
    """
    from transformers import TrainingArguments

    sharded = config.fsdp and world_size() > 1  # a single process holds all weights in any case
    usual: dict[str, Any] = dict(  # noqa: C408
        output_dir=config.out,
        max_steps=steps,
        max_grad_norm=config.optimizer.max_grad_norm,
        learning_rate=config.optimizer.lr,
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.save_every or max(1, steps // 50),
        save_total_limit=config.keep,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=config.report_to or "none",
        remove_unused_columns=False,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        fsdp=sharded,
        fsdp_config={"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"} if sharded else None,
    )
    return TrainingArguments(**{**usual, **others})
