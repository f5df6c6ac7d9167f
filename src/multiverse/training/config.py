"""Configuration of a training run: one YAML file, read strictly. No torch.

Every value is checked when a `Config` is made, before a model or a data set is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from ..common import CommonOptions, JoinChoice, PresetChoice
from ..errors import ConfigError, ExtraError
from ..options import Options, like, option
from ..structure import DIALECTS, Dialect
from .features import View
from .mixture import parallel_shares
from .settings import build, current_names, dump_settings, load_settings, read_yaml

Precision = Literal["bf16", "fp32", "bf16_weights"]
SaveDtype = Literal["auto", "float32", "bfloat16", "float16"]
MaskChoice = Literal["auto", "block", "dense"]

_RENAMED_SCHEDULES = {"steady": "wsd"}
_VALIDATION = (
    "Files, folders or hub ids for the validation loss (of one with a split validation, only that); or the fraction of the "
    "data to hold out for it."
)


@dataclass(frozen=True)
class Lora(Options):
    """Low-rank adapters (LoRA) in place of training all weights; the embedding rows of the tags are trained as well."""

    rank: int = option(16, "Rank of the adapters.", ge=1)
    alpha: float = option(32.0, "Scale of the adapters; their output is multiplied by alpha / rank.", gt=0)
    dropout: float = option(0.0, "Dropout probability on the input of the adapters.", ge=0, lt=1)
    targets: str | list[str] = option(
        "all-linear", "Names of the linear layers that get adapters; all-linear is every one but the output head."
    )
    merge: bool = option(True, "Merge the adapters into the weights at the end, so that any engine loads the model.")
    start: str | None = option(
        None, "Folder of adapters over the same model, of the same rank and layers, to train further; None begins new ones."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets:
            raise ConfigError(f"targets={self.targets!r} is empty: name linear layers, or use all-linear")


@dataclass(frozen=True)
class Optimizer(Options):
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "muon"] = option(
        "adamw", "AdamW; or Muon for the weight matrices of the layers and AdamW for all other parameters."
    )
    lr: float = option(1e-5, "Peak learning rate of AdamW.", ge=0)
    muon_lr: float = option(5e-3, "Peak learning rate of Muon, whose updates are scaled to the RMS of AdamW's.", ge=0)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = option(
        "cosine", "Learning rate after the warm-up: cosine or linear decay to 0, constant, or warmup-stable-decay."
    )
    warmup: float = option(0.05, "Fraction of all steps over which the learning rate rises linearly.", ge=0, le=1)
    stable_ratio: float = option(0.3, "With wsd: fraction of all steps before the linear decay to 0.", ge=0, lt=1, was="steady")
    weight_decay: float = option(1e-4, "Weight decay of matrices; norms and biases have none.", ge=0)
    betas: list[float] = option(factory=lambda: [0.9, 0.95], help="Betas of AdamW.", ge=0, lt=1)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0 turns clipping off.", ge=0, was="clip")

    def __post_init__(self) -> None:
        if (now := _RENAMED_SCHEDULES.get(str(self.schedule))) is not None:
            raise ConfigError(f"schedule={self.schedule!r} is now called {now!r}")
        super().__post_init__()
        if len(self.betas) != 2:
            raise ConfigError(f"betas={self.betas!r} is not valid: AdamW needs exactly two")
        if self.schedule == "wsd" and self.stable_ratio < self.warmup:
            raise ConfigError(
                f"stable_ratio={self.stable_ratio} is below warmup={self.warmup}: the decay would start during the warm-up"
            )


class RunConfig(Protocol):
    """What every run has whose model is trained: by `multiverse train`, or by `multiverse rl`."""

    @property
    def model(self) -> str: ...
    @property
    def out(self) -> str: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def lora(self) -> Lora | None: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def save_dtype(self) -> SaveDtype: ...
    @property
    def gradient_checkpointing(self) -> bool: ...
    @property
    def mask(self) -> MaskChoice: ...
    @property
    def fsdp(self) -> bool: ...
    @property
    def save_every(self) -> int | None: ...
    @property
    def keep(self) -> int: ...
    @property
    def report_to(self) -> list[str]: ...
    @property
    def seed(self) -> int: ...
    @property
    def shape(self) -> str | None: ...
    @property
    def share_every(self) -> int | None: ...


@dataclass(frozen=True)
class Config(Options):
    """A training run. Only `model`, `data` and `out` are required; the defaults are the paper's recipe."""

    model: str = like(CommonOptions, "model", required=True)
    data: list[str] = option(
        help="Files, folders or hub ids of structured documents; of a source that has a split train, only that split."
    )
    out: str = option(help="Folder of the run: checkpoints, log, loss curve, and the finished model in model/.")
    dialect: str = like(CommonOptions, "dialect")
    layout: Literal["engine", "released"] | None = like(
        CommonOptions,
        "layout",
        group=None,
        show_default=None,
        help="Layout: engine or released; None is what the dialect says.",
    )
    preset: PresetChoice = like(
        CommonOptions,
        "preset",
        help="How questions are put: as the family of the base (auto), as a named family, or with our own sentences (none).",
    )
    instruction_file: str | None = like(CommonOptions, "instruction_file")
    validation: float | list[str] = like(CommonOptions, "validation", 0.0, le=None, lt=1, help=_VALIDATION)
    mixture: str | list[float] = option(
        "paper",
        "Examples in parallel form: paper, parallel, sequential, half, or a list with their fraction in each epoch.",
        ge=0,
        le=1,
    )
    epochs: int = option(8, "Number of epochs, with the mixtures parallel, sequential and half.", ge=1, was="phases")
    shuffle: bool = option(True, "Shuffle the examples in every epoch; otherwise they keep the order of the data.")
    instruct: bool = option(True, "End each prompt with the sentence that asks for parallel or sequential thinking.")
    attention: Literal["structured", "causal"] = option("structured", "Attention mask; see View.")
    positions: Literal["structured", "linear"] = option("structured", "Position ids; see View.")
    share_every: int | None = like(CommonOptions, "share_every")
    join: JoinChoice | None = like(CommonOptions, "join")
    max_length: int = option(32768, "Most tokens of a document, prompt included; a longer one is an error.", ge=1, was="length")
    packed_length: int | None = option(
        None, "Most tokens of a row of packed documents; None is max_length.", ge=1, was="row_length"
    )
    packing: bool = option(False, "Pack several short documents into one row.")
    global_batch_size: int = option(16, "Rows per step, over all devices.", ge=1, was="batch")
    micro_batch_size: int = option(1, "Rows per forward pass on one device.", ge=1, was="rows")
    max_steps: int | None = option(None, "End the run after this many steps; None is the end of the last epoch.", ge=1)
    optimizer: Optimizer = option(factory=Optimizer, help="Optimizer and learning-rate schedule.")
    lora: Lora | None = option(None, "Low-rank adapters; None trains all weights.")
    precision: Precision = option(
        "bf16", "Precision of the arithmetic; the weights that are updated stay in fp32 unless bf16_weights."
    )
    save_dtype: SaveDtype = option(
        "auto", "Type of the weights, or adapters, that are written at the end; auto is the one that the model was saved in."
    )
    gradient_checkpointing: bool = option(
        False, "Recompute activations in the backward pass instead of storing them.", was="checkpointing"
    )
    compile: bool = option(
        False, "Compile each decoder layer with torch.compile: a minute at the start, faster steps; a CPU needs a C++ compiler."
    )
    mask: MaskChoice = option(
        "auto", "Mask: block (FlexAttention, needs CUDA) or dense; auto is block on CUDA and dense on CPU."
    )
    fsdp: bool = option(False, "Shard the weights over all processes of torchrun; otherwise each process holds all of them.")
    on_error: Literal["stop", "skip"] = option(
        "stop", "When rows of the data are faulty: stop, or skip them and list them in faults.jsonl.", was="faults"
    )
    save_every: int | None = option(None, "Steps between checkpoints; None is a fiftieth of the run.", ge=1)
    keep: int = option(2, "Number of checkpoints to keep.", ge=1)
    eval_every: int | None = option(None, "Steps between measurements of the validation loss; None is once per epoch.", ge=1)
    report_to: list[str] = option(
        factory=list, help="Experiment trackers that transformers supports, such as wandb, tensorboard or mlflow."
    )
    seed: int = like(CommonOptions, "seed", 0, lt=2**32, allowed="a whole number from 0 to 4,294,967,295")
    shape: str | None = option(
        None, "For --dry-run where the model cannot be read: a JSON file with a model configuration to plan with."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dialect not in DIALECTS:
            raise ConfigError(f"dialect={self.dialect!r} is not known: use {', '.join(DIALECTS)}")
        if self.join is None:  # written out, so that a run goes on as it began
            object.__setattr__(self, "join", DIALECTS[self.dialect].join)
        if self.layout is None:
            object.__setattr__(self, "layout", DIALECTS[self.dialect].positions)
        self._check_join()
        try:
            parallel_shares(self.mixture, self.epochs)
            _ = self.view
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.share_every is not None and self.notation.positions == "released":
            raise ConfigError(
                f"share_every={self.share_every} has no meaning in the layout 'released', in which paths begin beside other "
                f"tokens: leave it out, or set layout: engine"
            )
        if self.packed_length is not None and self.packed_length < self.max_length:
            raise ConfigError(
                f"packed_length={self.packed_length} is below max_length={self.max_length}: a row must fit any document"
            )
        if self.fsdp and self.optimizer.name == "muon":
            raise ConfigError("optimizer.name='muon' needs whole matrices, and fsdp=True cuts them: use adamw, or fsdp: false")
        if not self.data:
            raise ConfigError("data is empty: name files, folders or hub ids of structured documents")

    def _check_join(self) -> None:
        if self.join == "kv":
            return
        if (self.attention, self.positions) != ("structured", "structured"):
            raise ConfigError(
                f"join={self.join} needs structured attention and positions, not "
                f"attention={self.attention!r}, positions={self.positions!r}"
            )
        if self.share_every is not None:
            raise ConfigError(
                f"join={self.join} needs share_every=None, not {self.share_every}: its paths never attend to each other"
            )

    @property
    def notation(self) -> Dialect:
        """The dialect as it is trained, and noted in the finished model."""
        assert self.join is not None
        assert self.layout is not None
        return replace(DIALECTS[self.dialect], join=self.join, positions=self.layout)

    @property
    def view(self) -> View:
        """Mask and positions in training."""
        return View(self.attention, self.positions, self.share_every)

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of parallel examples in each epoch."""
        return parallel_shares(self.mixture, self.epochs)

    @property
    def row_length(self) -> int:
        """Most tokens of a row."""
        return self.packed_length or self.max_length if self.packing else self.max_length


def without_effect(config: Config) -> dict[str, tuple[str, str]]:
    """Settings that this configuration does not use, by dotted name: the setting that decides it, and what they need."""
    optimizer = config.optimizer
    rules = {
        "packed_length": (config.packing, "packing", "packing: true"),
        "instruction_file": (config.instruct, "instruct", "instruct: true"),
        "epochs": (
            isinstance(config.mixture, str) and config.mixture != "paper",
            "mixture",
            "mixture parallel, sequential or half",
        ),
        "eval_every": (bool(config.validation), "validation", "a validation set"),
        "optimizer.muon_lr": (optimizer.name == "muon", "optimizer.name", "optimizer.name: muon"),
        "optimizer.stable_ratio": (optimizer.schedule == "wsd", "optimizer.schedule", "optimizer.schedule: wsd"),
    }
    return {name: (decider, needs) for name, (used, decider, needs) in rules.items() if not used}


def check_extra() -> None:
    """Raise `ExtraError` unless the libraries for training are installed."""
    for name in ("accelerate", "peft", "yaml", "matplotlib"):
        if find_spec(name) is None:
            raise ExtraError(name, "train")


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file. Paths in it are relative to the working directory.

    Args:
        overrides: values that replace the file's, by dotted name such as ``optimizer.lr``.

    Raises:
        ConfigError: the file cannot be read, or a key or value is unknown, missing, not valid or without effect.
        ExtraError: a library is missing.
    """
    check_extra()
    config: Config = load_settings(Config, path, overrides or {}, without_effect)
    return config


def load_stored(path: Path) -> Config:
    """The configuration that a run has stored with `dump`, also under the names of earlier versions.

    Raises:
        ConfigError: the file cannot be read.
    """
    values = current_names(Config, read_yaml(path))
    if isinstance(optimizer := values.get("optimizer"), Mapping):
        optimizer = current_names(Optimizer, optimizer)
        if (schedule := optimizer.get("schedule")) in _RENAMED_SCHEDULES:
            optimizer["schedule"] = _RENAMED_SCHEDULES[schedule]
        values["optimizer"] = optimizer
    try:
        stored: Config = build(Config, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return stored


def dump(config: Config) -> str:
    """The configuration as YAML with every value written out, except those without effect."""
    return dump_settings(config, without_effect)
