"""Everything a run needs: the model prepared for the dialect, the data as examples, and the schedule of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..data import Fault, Row, read, split
from ..errors import ConfigError, DataError
from ..families import AUTO, Family, bind, choose, read_instruction
from ..models import resolve
from ..models.weights import load_weights, read_config
from ..prompting import Mode
from .config import Config, RunConfig
from .corpus import Corpus, RowDataset, RowSchedule, schedule_rows
from .features import Featurizer
from .mixture import Variant, variants
from .prepare import Prepared, prepare

SHOWN_FAULTS = 20

ProgressCallback = Callable[[str, int, int | None], None]
"""Called during a long job with a description, the number of items done, and their total if it is known."""


@dataclass
class RunInputs:
    """Model and data of a run.

    Attributes:
        schedule: the rows of the run.
        validation: rows of the validation set in each form that the run uses.
        validation_documents: documents of the validation set.
        faults: rows that were left out.
        family: whose preset the questions are put by; `None` for our own sentences.
        instruction: the one for parallel thinking, if it is from a file.
    """

    model: Any
    tokenizer: Any
    prepared: Prepared
    corpus: Corpus
    schedule: RowSchedule
    validation: dict[str, RowDataset]
    validation_documents: int
    faults: list[Fault]
    family: Family | None
    instruction: str | None


def world_size() -> int:
    """Number of processes that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def load_model(config: RunConfig) -> tuple[Any, Any, Any]:
    """Model, tokenizer, and the dtype in which the weights are stored.

    Raises:
        ModelError: they cannot be found or read.
    """
    source = resolve(config.model)
    saved, tokenizer = read_config(source, given=config.model)
    model = load_weights(source, "bfloat16" if config.precision == "bf16_weights" else "float32")
    return model, tokenizer, saved.dtype


def read_rows(config: Config, sources: Sequence[str], split: str) -> tuple[list[Row], list[Fault]]:
    """All rows of these files, folders and hub ids, and their faults.

    Args:
        split: only this split of a source that has it.
    """
    rows: list[Row] = []
    faults: list[Fault] = []
    for source in sources:
        loaded = read(source, config.notation, prefer=split)
        rows += loaded.rows
        faults += loaded.faults
    return rows, faults


def load_inputs(config: Config, model: Any, tokenizer: Any, on_progress: ProgressCallback) -> RunInputs:
    """Read and check the data, prepare the model, and schedule the rows of the run.

    Raises:
        DataError: rows are faulty (unless ``on_error: skip`` is set), or none is left.
        DialectError, ModelError: the model does not fit the dialect.
        ConfigError: the preset does not fit the dialect.
    """
    family = _family(config, model, tokenizer)  # of the base, which `prepare` changes
    prepared = prepare(model, tokenizer, config.notation)
    instruction = read_instruction(resolve(config.model), config.instruction_file)
    bound = bind(family, tokenizer, model.config, config.notation, instruction)
    assert bound.tokens is not None
    prepared = prepared._replace(tokens=bound.tokens)
    rows, faults = read_rows(config, config.data, "train")
    if isinstance(config.validation, list):
        held_out, more = read_rows(config, config.validation, "validation")
        faults += more
    else:
        rows, held_out = split(rows, config.validation, config.seed)
    modes = _modes(config.shares)
    corpora = []
    for part in (rows, held_out):
        features = Featurizer(tokenizer, bound.tokens, config.view, bound.prompting, bound.form)
        corpus = Corpus(features, instruct=config.instruct, modes=modes)
        faults += _fill(corpus, part, config.max_length, on_progress)
        corpora.append(corpus)
    corpus, validation = corpora
    if faults and config.on_error == "stop":
        raise DataError(_describe(faults, len(corpus) + len(validation)))
    if not len(corpus):
        raise DataError(f"there is no document to train on in {', '.join(config.data)}" + "".join(f"\n{f}" for f in faults))
    row_length = config.row_length if config.packing else None
    order = variants(len(corpus), config.shares, config.seed, shuffled=config.shuffle)
    return RunInputs(
        model=model,
        tokenizer=tokenizer,
        prepared=prepared,
        corpus=corpus,
        schedule=schedule_rows(corpus, order, row_length, config.global_batch_size, config.max_steps),
        validation={mode: _validation(validation, mode, config, row_length) for mode in modes if len(validation)},
        validation_documents=len(validation),
        faults=faults,
        family=family,
        instruction=instruction,
    )


def _family(config: Config, model: Any, tokenizer: Any) -> Family | None:
    """The family by whose preset questions are put; `None` if the dialect is not one of its."""
    family = choose(config.preset, config.model, tokenizer, model.config).family
    if family is None or config.dialect in family.dialects:
        return family
    if config.preset == AUTO:
        return None
    raise ConfigError(
        f"preset={config.preset!r} does not go with dialect={config.dialect!r}: set dialect to {' or '.join(family.dialects)}, "
        f"or preset to none"
    )


def _modes(shares: Sequence[float]) -> tuple[Mode, ...]:
    """The forms that a mixture uses."""
    return (*(("parallel",) if max(shares) > 0 else ()), *(("sequential",) if min(shares) < 1 else ()))


def _fill(corpus: Corpus, rows: Sequence[Row], max_length: int, on_progress: ProgressCallback) -> Iterable[Fault]:
    """Add rows to a corpus; yields the faults of those that cannot be added."""
    for number, row in enumerate(rows, 1):
        fault = corpus.add(row, max_length)
        if fault is not None:
            yield fault
        on_progress("reading documents", number, len(rows))


def _validation(corpus: Corpus, mode: Mode, config: Config, row_length: int | None) -> RowDataset:
    # Filled up to whole forward passes of every process: a row that a sampler repeats would count twice.
    batch_size = config.micro_batch_size * world_size()
    order = [Variant(i, mode) for i in range(len(corpus))]
    return RowDataset(schedule_rows(corpus, order, row_length, batch_size).rows, corpus.features)


def _describe(faults: Sequence[Fault], good: int) -> str:
    """The faults, one per line, and the remedy."""
    lines = [str(fault) for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"and {len(faults) - SHOWN_FAULTS:,} more (multiverse data validate lists all of them)")
    head = f"{len(faults):,} faulty rows, {good:,} good ones: correct them, or set on_error: skip to train without them"
    return "\n".join([head, *lines])
