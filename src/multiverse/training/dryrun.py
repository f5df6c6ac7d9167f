"""What a run would be, before any weight is there: its tokens and steps, memory per device, and one tiny step.

The model's shape is enough: its configuration, or the one that ``shape`` names in its place. Without the tokenizer, lengths are
counted with the embedded model's, and the report says so. The tiny step takes the way of a real one (data, dialect,
adapters, mask, loss, update) with a model of the same family that is a few layers small.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..errors import ConfigError, ModelError
from .batch import answer_logits, answer_loss
from .config import Config, check_extra
from .memory import Memory, estimate
from .run import Material, Tick, accumulation, adapt, gather, kind_of, world

TINY = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


@dataclass
class Report:
    """What a run would be.

    Attributes:
        model: what it starts from.
        parameters, trained: of the real model, and how many of them are updated.
        documents: examples of the data set.
        validation: documents held out.
        faulty: rows left out for their faults.
        phases: share of parallel examples in each.
        steps, rows, tokens, learned: of the whole run; `learned` tokens take loss.
        padding: share of all positions computed that hold no token.
        devices: processes.
        memory: of one device.
        loss: of the tiny model, before and after its step, on the same row.
        notes: what was not there, and what was taken instead.
    """

    model: str
    parameters: int
    trained: int
    documents: int
    validation: int
    faulty: int
    phases: tuple[float, ...]
    steps: int
    rows: int
    tokens: int
    learned: int
    padding: float
    devices: int
    memory: Memory
    loss: tuple[float, float]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "memory": self.memory._asdict() | {"total": self.memory.total}}


def dry_run(config: Config, *, devices: int | None = None, tick: Tick = lambda *_: None) -> Report:
    """Plan a run, and take one tiny step of it.

    Args:
        devices: processes to plan for; as many as torchrun has started if `None`.

    Raises:
        ConfigError, DataError, DialectError, ModelError: as `train` would, and if there is no shape to plan with.
    """
    check_extra()
    from transformers import AutoModelForCausalLM

    notes: list[str] = []
    model_config, tokenizer = _shape(config, notes), _tokenizer(config, notes)
    if devices is None:
        accumulation(config)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model_config)
    torch.manual_seed(config.seed)
    tiny = AutoModelForCausalLM.from_config(_tiny(model_config))
    material = gather(config, tiny, tokenizer, tick)
    size = max(material.prepared.vocabulary, -(-model_config.vocab_size // 64) * 64)
    with torch.device("meta"):
        whole.resize_token_embeddings(size, mean_resizing=False)
    parameters = sum(p.numel() for p in whole.parameters())
    adapted = adapt(whole, replace(config, checkpointing=False), material.prepared)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    count = devices or world()
    return Report(
        model=config.model,
        parameters=parameters,
        trained=trained,
        documents=len(material.corpus),
        validation=material.held_out,
        faulty=len(material.faults),
        phases=config.shares,
        steps=material.plan.steps,
        rows=len(material.plan.rows),
        tokens=material.plan.tokens,
        learned=material.plan.learned,
        padding=_padding(config, material),
        devices=count,
        memory=estimate(config, model_config, parameters, trained, devices=count, dense=config.mask == "dense"),
        loss=tiny_step(config, material),
        notes=notes,
    )


def tiny_step(config: Config, material: Material) -> tuple[float, float]:
    """One update of the tiny model on the run's shortest row; its loss before and after."""
    from transformers import TrainingArguments

    from .trainer import Collator, StructuredTrainer

    kind = kind_of(config)
    items = [item for row in material.plan.rows for item in row]
    shortest = min(items, key=lambda item: material.corpus.examples[item.example].lengths[item.mode])
    rows = [[material.corpus.features(shortest)]]
    model = adapt(material.model, config, material.prepared)
    collate = Collator(material.tokenizer.pad_token_id, kind)
    batch = collate(rows)

    def loss() -> float:
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            logits_BNV, targets_BN = answer_logits(model, moved, config.share_every, kind)
            return float(answer_loss(logits_BNV, targets_BN) / (targets_BN >= 0).sum())

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


def _shape(config: Config, notes: list[str]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(config.model)
    except (OSError, ValueError, KeyError) as error:
        if config.shape is None:
            raise ModelError(
                f"the configuration of {config.model!r} cannot be read ({str(error).splitlines()[0]}): give its shape as a "
                f"JSON file (shape: ...) to plan without it"
            ) from None
    path = Path(config.shape)
    try:
        values = json.loads(path.read_text())
        shape = AutoConfig.for_model(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"shape={config.shape!r} cannot be read as a model configuration: {error}") from None
    notes.append(f"The configuration of {config.model} is not there; planned with {config.shape}.")
    return shape


def _tokenizer(config: Config, notes: list[str]) -> Any:
    from importlib.resources import files

    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(config.model)
    except (OSError, ValueError, KeyError):
        notes.append(
            f"The tokenizer of {config.model} is not there: tokens are counted with multiverse-mini's, which cuts other "
            f"words than its own into more pieces."
        )
        return AutoTokenizer.from_pretrained(str(files("multiverse") / "models" / "mini"))


def _tiny(model_config: Any) -> Any:
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


def _padding(config: Config, material: Material) -> float:
    """Share of positions that hold no token, in forward passes as long as their longest row."""
    examples, rows = material.corpus.examples, material.plan.rows
    lengths = [sum(examples[item.example].lengths[item.mode] for item in row) for row in rows]
    passes = [lengths[i : i + config.rows] for i in range(0, len(lengths), config.rows)]
    computed = sum(max(part) * len(part) for part in passes)
    return 1 - sum(lengths) / computed if computed else math.nan
