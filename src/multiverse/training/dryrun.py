"""Dry run: tokens and steps of a run, its memory per device, and one step with a tiny model, without the weights.

The model's configuration is enough, or the file that ``shape`` names in its place. Without the tokenizer, lengths are counted
with the embedded model's, and the report says so. The tiny step runs all code of a real step (data, dialect, adapters, mask,
loss, update) with a model of the same family that has two small layers.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..errors import ConfigError, ModelError, first_line
from ..models.resolve import for_planning
from .batch import answer_loss
from .config import Config, RunConfig, check_extra
from .loading import ProgressCallback, RunInputs, load_inputs, world_size
from .lora import enable_training
from .memory import MemoryEstimate, estimate_memory
from .run import accumulation_steps, mask_kind

TINY = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


@dataclass
class Report:
    """Result of a dry run.

    Attributes:
        model: the model that the run starts from.
        parameters, trained: parameters of the real model, and how many of them are trained.
        documents: examples of the data set.
        validation: documents held out.
        faulty: rows left out for their faults.
        epochs: fraction of parallel examples in each epoch.
        steps, rows, tokens, learned: of the whole run; `learned` counts the tokens with loss.
        padding: fraction of all computed positions that hold no token.
        devices: number of processes.
        memory: of one device.
        loss: of the tiny model on the same row, before and after its step.
        notes: what was missing, and what was used in its place.
    """

    model: str
    parameters: int
    trained: int
    documents: int
    validation: int
    faulty: int
    epochs: tuple[float, ...]
    steps: int
    rows: int
    tokens: int
    learned: int
    padding: float
    devices: int
    memory: MemoryEstimate
    loss: tuple[float, float]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "memory": self.memory._asdict() | {"total": self.memory.total}}


def dry_run(config: Config, *, devices: int | None = None, on_progress: ProgressCallback = lambda *_: None) -> Report:
    """Schedule a run and estimate its memory, and take one step with a tiny model.

    Args:
        devices: number of processes to estimate for; `None` is as many as torchrun has started.

    Raises:
        ConfigError, DataError, DialectError, ModelError: as `train`, and if there is no model configuration.
    """
    check_extra()
    from transformers import AutoModelForCausalLM

    notes: list[str] = []
    model_config, tokenizer = model_shape(config, notes), model_tokenizer(config, notes)
    if devices is None:
        accumulation_steps(config)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model_config)
    torch.manual_seed(config.seed)
    tiny = AutoModelForCausalLM.from_config(tiny_shape(model_config))
    inputs = load_inputs(config, tiny, tokenizer, on_progress)
    size = max(inputs.prepared.vocabulary, -(-model_config.vocab_size // 64) * 64)
    with torch.device("meta"):
        whole.resize_token_embeddings(size, mean_resizing=False)
    parameters = sum(p.numel() for p in whole.parameters())
    adapted = enable_training(whole, replace(config, gradient_checkpointing=False), inputs.prepared)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    count = devices or world_size()
    return Report(
        model=config.model,
        parameters=parameters,
        trained=trained,
        documents=len(inputs.corpus),
        validation=inputs.validation_documents,
        faulty=len(inputs.faults),
        epochs=config.shares,
        steps=inputs.schedule.steps,
        rows=len(inputs.schedule.rows),
        tokens=inputs.schedule.tokens,
        learned=inputs.schedule.loss_tokens,
        padding=_padding(config, inputs),
        devices=count,
        memory=estimate_memory(
            config,
            model_config,
            parameters,
            trained,
            devices=count,
            rows=config.micro_batch_size,
            row_length=config.row_length,
            dense=config.mask == "dense",
        ),
        loss=tiny_step(config, inputs),
        notes=notes,
    )


def tiny_step(config: Config, inputs: RunInputs) -> tuple[float, float]:
    """One step of the tiny model on the run's shortest document; its loss before and after."""
    from transformers import TrainingArguments

    from .trainer import Collator, StructuredTrainer

    kind = mask_kind(config)
    items = [item for row in inputs.schedule.rows for item in row]
    shortest = min(items, key=lambda item: inputs.corpus.examples[item.example].lengths[item.mode])
    rows = [[inputs.corpus.features(shortest)]]
    model = enable_training(inputs.model, config, inputs.prepared)
    collate = Collator(inputs.tokenizer.pad_token_id, kind)
    batch = collate(rows)

    def loss() -> float:
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            total, count = answer_loss(model, moved, config.share_every, kind)
            return float(total / count)

    with TemporaryDirectory() as folder:
        quick = replace(config, optimizer=replace(config.optimizer, lr=1e-2, warmup=0.0, schedule="constant"))
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=1,
            per_device_train_batch_size=1,
            bf16=config.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = StructuredTrainer(quick, kind, model=model, args=arguments, train_dataset=rows, data_collator=collate)
        before = loss()
        trainer.train()
    return before, loss()


def model_shape(config: RunConfig, notes: list[str]) -> Any:
    """The model's transformers configuration, or the one of the file that stands in for it, which `notes` then says."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(for_planning(config.model))
    except (OSError, ValueError, KeyError) as error:
        if config.shape is None:
            raise ModelError(
                f"the configuration of {config.model!r} cannot be read ({first_line(error)}): name a JSON file with its "
                f"configuration (shape: ...) for a dry run without the model"
            ) from None
    path = Path(config.shape)
    try:
        values = json.loads(path.read_text())
        shape = AutoConfig.for_model(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"shape={config.shape!r} cannot be read as a model configuration: {error}") from None
    notes.append(f"The configuration of {config.model} is not available; {config.shape} was used.")
    return shape


def model_tokenizer(config: RunConfig, notes: list[str]) -> Any:
    """The model's tokenizer, or the embedded model's, which `notes` then says."""
    from importlib.resources import files

    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(for_planning(config.model))
    except (OSError, ValueError, KeyError):
        notes.append(
            f"The tokenizer of {config.model} is not available: tokens were counted with multiverse-mini's, which splits most "
            f"words into more tokens."
        )
        return AutoTokenizer.from_pretrained(str(files("multiverse") / "models" / "mini"))


def tiny_shape(model_config: Any) -> Any:
    """The configuration of a model of the same family with two small layers."""
    values = model_config.to_dict()
    text = model_config.get_text_config()
    values |= {name: value for name, value in TINY.items() if hasattr(text, name)}
    if getattr(text, "head_dim", None):
        values["head_dim"] = 16
    if values.get("layer_types"):
        values["layer_types"] = values["layer_types"][: TINY["num_hidden_layers"]]
    if "max_window_layers" in values:
        values["max_window_layers"] = TINY["num_hidden_layers"]
    return type(model_config).from_dict(values)


def _padding(config: Config, inputs: RunInputs) -> float:
    """Fraction of positions that hold no token, in forward passes as long as their longest row."""
    examples, rows = inputs.corpus.examples, inputs.schedule.rows
    lengths = [sum(examples[item.example].lengths[item.mode] for item in row) for row in rows]
    passes = [lengths[i : i + config.micro_batch_size] for i in range(0, len(lengths), config.micro_batch_size)]
    computed = sum(max(part) * len(part) for part in passes)
    return 1 - sum(lengths) / computed if computed else math.nan
