"""One training run, from a configuration to a model that the engine loads."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ..attention.packed import Kind
from ..data import Fault, Row, read, split
from ..data.write import write_faults
from ..errors import ConfigError, DataError, ModelError
from ..prompting import Mode
from ..structure import DIALECTS
from .callbacks import InterruptedRunError, Log, Progress, Watch
from .config import Config, check_extra, dump
from .corpus import Corpus, Plan, PlannedRows, plan
from .curve import draw
from .features import Featurizer
from .mixture import Shown, order
from .prepare import Prepared, prepare

SHOWN_FAULTS = 20
MODEL, ADAPTER, LOG, SETTINGS, FAULTS, CURVE = "model", "adapter", "log.jsonl", "config.yaml", "faults.jsonl", "curve.svg"
# What may change when a run goes on: nothing that its curve depends on.
FREE = ("report_to", "keep", "save_every", "eval_every", "shape", "out", "rows", "fsdp", "mask", "checkpointing")

Tick = Callable[[str, int, int | None], None]
"""Told how far a long job is: what it is, how much is done, of how much."""


@dataclass
class Material:
    """All that a run trains with.

    Attributes:
        validation: rows of the validation set in each form that the run shows.
        held_out: documents of the validation set.
    """

    model: Any
    tokenizer: Any
    prepared: Prepared
    corpus: Corpus
    plan: Plan
    validation: dict[str, PlannedRows]
    held_out: int
    faults: list[Fault]


def read_rows(config: Config, sources: Sequence[str], split: str) -> tuple[list[Row], list[Fault]]:
    """All rows of these files, folders and hub ids, and all that is wrong with them.

    Args:
        split: where a source has this split, only it is read.
    """
    rows: list[Row] = []
    faults: list[Fault] = []
    for source in sources:
        loaded = read(source, DIALECTS[config.dialect], prefer=split)
        rows += loaded.rows
        faults += loaded.faults
    return rows, faults


def load_model(config: Config) -> tuple[Any, Any, Any]:
    """Model, tokenizer, and the type in which the weights were saved.

    Raises:
        ModelError: they cannot be found or read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if config.precision == "bf16_weights" else torch.float32
    try:
        saved_as = AutoConfig.from_pretrained(config.model).dtype
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model={config.model!r} cannot be loaded: {line} (give a folder that save_pretrained() wrote, or a hub id)"
        ) from error
    return model, tokenizer, saved_as


def fill(corpus: Corpus, rows: Iterable[Row], longest: int, tick: Tick, total: int | None = None) -> list[Fault]:
    """Take rows into a corpus; what is wrong with the others."""
    faults = []
    for number, row in enumerate(rows, 1):
        fault = corpus.add(row, longest)
        if fault is not None:
            faults.append(fault)
        tick("reading documents", number, total)
    return faults


def gather(config: Config, model: Any, tokenizer: Any, tick: Tick) -> Material:
    """Read and check the data, prepare the model, lay out the run.

    Raises:
        DataError: rows are faulty (and ``faults: skip`` is not set), or none is left.
        DialectError, ModelError: the model cannot take the dialect.
    """
    prepared = prepare(model, tokenizer, DIALECTS[config.dialect])
    rows, faults = read_rows(config, config.data, "train")
    if isinstance(config.validation, list):
        held, more = read_rows(config, config.validation, "validation")
        faults += more
    else:
        rows, held = split(rows, config.validation, config.seed)
    modes = modes_of(config.shares)
    corpora = []
    for part in (rows, held):
        corpus = Corpus(Featurizer(tokenizer, prepared.tokens, config.view), instruct=config.instruct, modes=modes)
        faults += fill(corpus, part, config.length, tick, len(part))
        corpora.append(corpus)
    corpus, validation = corpora
    if faults and config.faults == "stop":
        raise DataError(describe(faults, len(corpus) + len(validation)))
    if not len(corpus):
        raise DataError(f"there is no document to train on in {', '.join(config.data)}" + "".join(f"\n{f}" for f in faults))
    row_length = (config.row_length or config.length) if config.packing else None
    shown = order(len(corpus), config.shares, config.seed, shuffled=config.shuffle)
    return Material(
        model=model,
        tokenizer=tokenizer,
        prepared=prepared,
        corpus=corpus,
        plan=plan(corpus, shown, row_length, config.batch, config.max_steps),
        validation={mode: _validation(validation, mode, config, row_length) for mode in modes if len(validation)},
        held_out=len(validation),
        faults=faults,
    )


def modes_of(shares: Sequence[float]) -> tuple[Mode, ...]:
    """The forms that a mixture shows."""
    return (*(("parallel",) if max(shares) > 0 else ()), *(("sequential",) if min(shares) < 1 else ()))


def _validation(corpus: Corpus, mode: Mode, config: Config, row_length: int | None) -> PlannedRows:
    # Whole forward passes of every process: a row that is counted twice would weigh twice.
    batch = config.rows * world()
    return PlannedRows(plan(corpus, [Shown(i, mode) for i in range(len(corpus))], row_length, batch).rows, corpus.features)


def describe(faults: Sequence[Fault], good: int) -> str:
    """The faults, one a line, and the way out."""
    lines = [str(fault) for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"and {len(faults) - SHOWN_FAULTS:,} more (multiverse data validate shows them all)")
    head = f"{len(faults):,} faulty rows, {good:,} good ones; mend them, or set faults: skip to train without them"
    return "\n".join([head, *lines])


def world() -> int:
    """Number of processes that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def kind_of(config: Config) -> Kind:
    """The mask's kind on this machine."""
    if config.mask == "block" and not torch.cuda.is_available():
        raise ConfigError("mask='block' needs CUDA, which torch does not find here: use 'dense' or 'auto'")
    return "block" if config.mask != "dense" and torch.cuda.is_available() else "dense"


def accumulation(config: Config) -> int:
    """Forward passes of each process in a step.

    Raises:
        ConfigError: the rows of a step cannot be shared out evenly.
    """
    each = config.rows * world()
    if config.batch % each:
        raise ConfigError(
            f"batch={config.batch} rows cannot be shared out evenly over {world()} processes of rows={config.rows}: "
            f"make batch a multiple of {each}"
        )
    return config.batch // each


def train(config: Config, *, fresh: bool = False, tick: Tick = lambda *_: None, show: Any = None) -> Path:
    """Train, or go on training, and write the model.

    Args:
        fresh: begin anew, even where there is a checkpoint.
        tick: told how far reading the data is.
        show: a rich console for progress; `None` shows none.

    Returns:
        The finished model's folder.

    Raises:
        ConfigError, DataError, DialectError, ModelError: nothing was trained.
        ExtraError: a library is missing.
        InterruptedRunError: a signal ended the run early, in good order; started again it goes on.
    """
    check_extra()
    from .trainer import Collator, MarkComplete, StructuredTrainer, newest_checkpoint

    kind, steps_apart = kind_of(config), accumulation(config)
    out = Path(config.out)
    main = int(os.environ.get("RANK", 0)) == 0
    if not fresh:
        check_folder(config, out)
    torch.manual_seed(config.seed)
    model, tokenizer, saved_as = load_model(config)
    material = gather(config, model, tokenizer, tick)
    if main:
        begin(config, out, material.faults, fresh)
    trained = adapt(model, config, material.prepared)
    trainer = StructuredTrainer(
        config,
        kind,
        model=trained,
        args=arguments(config, material, steps_apart),
        train_dataset=PlannedRows(material.plan.rows, material.corpus.features),
        eval_dataset=material.validation or None,
        data_collator=Collator(tokenizer.pad_token_id, kind),
        callbacks=[MarkComplete(), Log(out / LOG), Progress(material.plan, show), stop := Watch()],
    )
    checkpoint = None if fresh else newest_checkpoint(out)
    with stop:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else False)
    if stop.asked:
        raise InterruptedRunError(f"stopped at step {trainer.state.global_step} of {material.plan.steps}; start again to go on")
    folder = export(trainer, config, tokenizer, out, saved_as)
    if main:
        draw(out / LOG, out / CURVE, len(config.shares))
    return folder


def check_folder(config: Config, out: Path) -> None:
    """Make sure that a run in this folder, if there is one, is this one.

    Raises:
        ConfigError: it was begun under other settings.
    """
    import yaml

    settings = out / SETTINGS
    if not settings.exists():
        return
    before, now = yaml.safe_load(settings.read_text()), yaml.safe_load(dump(config))
    usual = {item.name: item.default for item in fields(Config)}  # of settings that came later than the run
    other = [name for name in now if name not in FREE and before.get(name, usual[name]) != now[name]]
    if other:
        changes = "; ".join(f"{name} was {before.get(name)!r}, is {now[name]!r}" for name in other)
        raise ConfigError(f"{out} holds a run under other settings ({changes}): choose another out, or --fresh")


def begin(config: Config, out: Path, faults: Sequence[Fault], fresh: bool) -> None:
    """Make the run's folder; note there its settings and the rows that were left out."""
    if fresh and out.exists():
        for path in (*out.glob("checkpoint-*"), out / LOG, out / CURVE):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(dump(config))
    write_faults(faults, out / FAULTS)


def adapt(model: Any, config: Config, prepared: Prepared) -> Any:
    """The model itself, or, with `lora`, adapters around it."""
    if config.checkpointing:
        # Renamed in transformers 5; releases that we support have either name.
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
    if config.checkpointing:
        model.enable_input_require_grads()
    adapters = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]  # a number, as it says itself elsewhere
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.targets,
        trainable_token_indices=tables,
        task_type="CAUSAL_LM",
    )
    with _old_name():
        return get_peft_model(model, adapters)


@contextmanager
def _old_name() -> Iterator[None]:
    """peft asks for checkpointing by the name that transformers has left behind."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def arguments(config: Config, material: Material, steps_apart: int) -> Any:
    """transformers' own arguments for this run."""
    from transformers import TrainingArguments
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    there = get_available_reporting_integrations()
    for name in config.report_to:
        if name not in there:
            raise ConfigError(
                f"report_to={name!r} is not installed or not known: use {', '.join(there) or 'none'}, or install it"
            )
    steps = material.plan.steps
    save_every = config.save_every or max(1, steps // 50)
    sharded = config.fsdp and world() > 1  # one process holds everything in any case
    return TrainingArguments(
        output_dir=config.out,
        max_steps=steps,
        per_device_train_batch_size=config.rows,
        per_device_eval_batch_size=config.rows,
        gradient_accumulation_steps=steps_apart,
        max_grad_norm=config.optimizer.clip,
        learning_rate=config.optimizer.lr,
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=config.keep,
        eval_strategy="steps" if material.validation else "no",  # a small share of few documents may be none
        eval_steps=config.eval_every or max(1, steps // len(config.shares)),
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=config.report_to or "none",
        remove_unused_columns=False,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        fsdp=sharded,  # type: ignore[arg-type]  # a text, says its annotation; true or false, its documentation
        fsdp_config={"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"} if sharded else None,
    )


def export(trainer: Any, config: Config, tokenizer: Any, out: Path, saved_as: Any) -> Path:
    """Write the finished model as a plain Hugging Face folder, in the type that it came in. Every process takes part."""
    folder = out / (MODEL if config.lora is None or config.lora.merge else ADAPTER)
    main = trainer.is_world_process_zero()
    if config.lora is not None:
        trainer.save_model(str(out / ADAPTER))
        if main and config.lora.merge:
            merge(config, out / ADAPTER, folder, saved_as)
    else:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if main:
            write(trainer.accelerator.unwrap_model(trainer.model_wrapped), folder, saved_as, state)
    if main:
        tokenizer.save_pretrained(folder)
        shutil.copy(out / SETTINGS, folder / "training.yaml")
    trainer.accelerator.wait_for_everyone()
    return folder


def merge(config: Config, adapter: Path, folder: Path, saved_as: Any) -> None:
    """Fold adapters into the weights that they were trained on."""
    from peft import PeftModel

    model, tokenizer, _ = load_model(config)
    prepare(model, tokenizer, DIALECTS[config.dialect])
    with _old_name():
        adapted = PeftModel.from_pretrained(model, str(adapter))
    write(adapted.merge_and_unload(), folder, saved_as)


def write(model: Any, folder: Path, saved_as: Any, state: dict[str, Any] | None = None) -> None:
    """`save_pretrained`, with weights in this type."""
    state = dict(state if state is not None else model.state_dict())
    if model.config.tie_word_embeddings:
        for name in model._tied_weights_keys or ():
            state.pop(name, None)  # gathered or cast, it is no longer seen to be the same tensor
    if isinstance(saved_as, torch.dtype):
        state = {name: t.to(saved_as) if t.is_floating_point() else t for name, t in state.items()}
        model.config.dtype = saved_as
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=state)
