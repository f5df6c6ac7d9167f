"""What a training run is: one YAML file, read strictly. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError, ExtraError
from ..structure import DIALECTS
from .features import View
from .joins import Join
from .mixture import schedule


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters instead of all weights; the tags' embedding rows are trained beside them.

    Attributes:
        rank: width of the adapters.
        alpha: their scale, over the rank.
        dropout: on their input.
        targets: names of the linear layers they stand beside; ``all-linear`` is every one but the head.
        merge: whether the adapters are folded into the weights at the end, so that any engine loads the model as it is.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"
    merge: bool = True


@dataclass(frozen=True)
class Optimizer:
    """How weights are updated.

    Attributes:
        name: ``adamw``; or ``muon`` for the matrices between embedding and head, with AdamW for everything else.
        lr: peak learning rate of AdamW.
        muon_lr: peak learning rate of Muon, scaled to match the size of AdamW's updates.
        schedule: ``cosine`` or ``linear`` to zero, ``constant``, or ``steady`` and then straight down to zero.
        warmup: share of all steps in which the learning rate climbs.
        steady: with ``steady``, the share of all steps after which it falls.
        weight_decay: of matrices, not of norms and biases.
        betas: of AdamW.
        clip: longest gradient.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-5
    muon_lr: float = 5e-3
    schedule: Literal["cosine", "linear", "constant", "steady"] = "cosine"
    warmup: float = 0.05
    steady: float = 0.3
    weight_decay: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    clip: float = 1.0


@dataclass(frozen=True)
class Config:
    """A training run. Only `model`, `data` and `out` have to be given; the rest is the paper's recipe.

    Attributes:
        model: local folder or hub id of the model to start from.
        data: files, folders or hub ids of structured documents (`multiverse data`); of one with a split ``train``, only that.
        out: folder of the run: checkpoints, log, curve, and the finished model in ``model``.
        dialect: the tag set.
        validation: files, folders or hub ids to measure the loss on (of one with a split ``validation``, only that); or a share
            of the data to keep for it.
        mixture: ``paper``, ``parallel``, ``sequential``, ``half``, or a list of shares of parallel examples, one a phase.
        phases: how often every example comes, with a mixture that stays the same.
        shuffle: whether examples are shuffled in every phase; else they come in the order of the data.
        instruct: whether the prompt ends with the sentence that asks for parallel or sequential thinking.
        attention, positions, share_every, join: see `View`.
        length: longest document in tokens, prompt included.
        row_length: tokens in a row of packed documents; `None` is `length`.
        packing: whether short documents share a row.
        batch: rows a step, over all devices.
        rows: rows in one forward pass on one device.
        max_steps: the run ends here at the latest; `None` is the end of the mixture.
        optimizer: see `Optimizer`.
        lora: adapters; `None` trains all weights.
        precision: of the arithmetic; the weights that are updated stay in fp32 unless ``bf16_weights``.
        checkpointing: recompute activations instead of storing them.
        mask: ``block`` (FlexAttention, CUDA) or ``dense``; ``auto`` chooses by the device.
        fsdp: shard the weights over all processes of torchrun; without it each process holds all of them.
        faults: what to do when rows of the data are faulty: ``stop``, or ``skip`` them, listed in ``faults.jsonl``.
        save_every: steps between checkpoints; a fiftieth of the run if `None`.
        keep: how many checkpoints are kept.
        eval_every: steps between measurements of the validation loss; once a phase if `None`.
        report_to: trackers that transformers knows, such as ``wandb``, ``tensorboard`` or ``mlflow``.
        seed: of the order, the forms, new rows of the embedding and dropout.
        shape: a model configuration (JSON) to plan with when the model itself cannot be read; for ``--dry-run``.
    """

    model: str
    data: list[str]
    out: str
    dialect: str = "multiverse"
    validation: float | list[str] = 0.0
    mixture: str | list[float] = "paper"
    phases: int = 8
    shuffle: bool = True
    instruct: bool = True
    attention: Literal["structured", "causal"] = "structured"
    positions: Literal["structured", "linear"] = "structured"
    share_every: int | None = None
    join: Join = "kv"
    length: int = 32768
    row_length: int | None = None
    packing: bool = False
    batch: int = 16
    rows: int = 1
    max_steps: int | None = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    lora: Lora | None = None
    precision: Literal["bf16", "fp32", "bf16_weights"] = "bf16"
    checkpointing: bool = False
    mask: Literal["auto", "block", "dense"] = "auto"
    fsdp: bool = False
    faults: Literal["stop", "skip"] = "stop"
    save_every: int | None = None
    keep: int = 2
    eval_every: int | None = None
    report_to: list[str] = field(default_factory=list)
    seed: int = 0
    shape: str | None = None

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise ConfigError(f"dialect={self.dialect!r} is not known: use {', '.join(DIALECTS)}")
        try:
            schedule(self.mixture, self.phases)
            _ = self.view
        except ValueError as error:
            raise ConfigError(str(error)) from None
        for name in ("phases", "length", "batch", "rows", "row_length", "max_steps", "save_every", "keep", "eval_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} is not valid: it must be 1 or more")
        if self.row_length is not None and self.row_length < self.length:
            raise ConfigError(f"row_length={self.row_length} is below length={self.length}: a row has to hold any document")
        if isinstance(self.validation, float) and not 0 <= self.validation < 1:
            raise ConfigError(f"validation={self.validation} is not valid: give a share from 0 to 1, or files")
        if self.fsdp and self.optimizer.name == "muon":
            raise ConfigError("optimizer.name='muon' needs whole matrices, and fsdp=True cuts them: use adamw, or fsdp: false")
        if not self.data:
            raise ConfigError("data is empty: name files, folders or hub ids of structured documents")

    @property
    def view(self) -> View:
        """What of the structure the model is shown."""
        return View(self.attention, self.positions, self.share_every, self.join)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of parallel examples, phase by phase."""
        return schedule(self.mixture, self.phases)


def check_extra() -> None:
    """Raise `ExtraError` unless the libraries are there that training needs."""
    for name in ("accelerate", "peft", "yaml", "matplotlib"):
        if find_spec(name) is None:
            raise ExtraError(name, "train")


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file. Paths in it are relative to the working directory.

    Args:
        overrides: values that replace the file's, by dotted name such as ``optimizer.lr``.

    Raises:
        ConfigError: it cannot be read, has a key that is not known, lacks one, or a value is of the wrong kind.
        ExtraError: a library is missing.
    """
    check_extra()
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"the configuration {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings: write at least model, data and out")
    for name, value in (overrides or {}).items():
        *sections, last = name.split(".")
        place = values
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[last] = value
    try:
        config: Config = _build(Config, values, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def dump(config: Config) -> str:
    """The configuration as YAML, every value written out."""
    import yaml

    return str(yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def _build(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    for name in values:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown setting {where}{name}: {hint}")
    missing = [
        name
        for name, item in known.items()
        if name not in values and item.default is MISSING and item.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}{name}") for name, value in values.items()})


def _value(kind: Any, value: Any, name: str) -> Any:
    """The value as this type, or an error that names both."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if hasattr(option, "__dataclass_fields__") and isinstance(value, Mapping):
            return _build(option, value, f"{name}.")
        if get_origin(option) is Literal and value in get_args(option):
            return value
        if get_origin(option) is list and isinstance(value, list):
            return [_value(get_args(option)[0], item, f"{name}[{index}]") for index, item in enumerate(value)]
        if option is float and not isinstance(value, bool) and isinstance(value, int | float | str):
            try:
                return float(value)  # YAML reads 1e-5 as a text
            except ValueError:
                continue
        if option in (int, str, bool) and type(value) is option:
            return value
    wanted = " or ".join(dict.fromkeys(_describe(option) for option in options))
    raise ConfigError(f"{name}={value!r} is not valid: it must be {wanted}")


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list, each {_describe(get_args(kind)[0])}"
    if hasattr(kind, "__dataclass_fields__"):
        return f"a section with {', '.join(item.name for item in fields(kind))}"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}[kind]
