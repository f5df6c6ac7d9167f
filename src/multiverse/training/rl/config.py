"""Configuration of a run of reinforcement learning: one YAML file, read strictly. No torch.

Every value is checked when a `RLConfig` is made, before a model, a question or a function of the user's is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...common import PresetChoice
from ...engine.params import SamplingParams
from ...errors import ConfigError
from ...options import Options, like, option
from ...prompting import Instruction
from ..config import Config, Lora, MaskChoice, Optimizer, Precision, SaveDtype, check_extra
from ..settings import build, dump_settings, load_settings, read_yaml
from .algorithms import Algorithm
from .algorithms import without_effect as algorithm_without_effect
from .collapse import EarlyStopping
from .questions import QuestionSource
from .questions.config import check_judge, names_of
from .rewards import Reward, check_rewards

_REPLAYED = "the update would have to replay it"
NOT_IN_ROLLOUTS = {
    "repetition_penalty": _REPLAYED,
    "path_repetition_penalty": _REPLAYED,
    "presence_penalty": _REPLAYED,
    "frequency_penalty": _REPLAYED,
    "logit_bias": _REPLAYED,
    "share_every": "paths would attend to each other",
    "response_format": "the answer would be of one form",
    "guard": "the model would have to write what the engine writes",
    "n": "group_size is the number of rollouts of a question",
    "seed": "the seed of the run decides it",
    "stop": "what ends a text would not be in the update",
    "stop_token_ids": "what ends a text would not be in the update",
}
"""Sampling parameters that rollouts do not have, and why."""


@dataclass(frozen=True)
class Sampling(Options):
    """How rollouts are sampled, and their limits."""

    temperature: float = like(SamplingParams, "temperature", 1.0, gt=0, allowed="above 0, within 1e-6 to 1e6")
    top_p: float = like(SamplingParams, "top_p", 1.0)
    top_k: int = like(SamplingParams, "top_k")
    min_p: float = like(SamplingParams, "min_p")
    max_tokens: int = like(SamplingParams, "max_tokens")
    min_tokens: int = like(SamplingParams, "min_tokens")
    max_critical_path_tokens: int | None = like(SamplingParams, "max_critical_path_tokens")
    thinking_budget: int | None = like(SamplingParams, "thinking_budget")
    reserved_tokens: int | None = like(SamplingParams, "reserved_tokens")
    max_branch_tokens: int | None = like(SamplingParams, "max_branch_tokens")
    max_depth: int = like(SamplingParams, "max_depth")
    max_width: int = like(SamplingParams, "max_width")
    max_branches: int = like(SamplingParams, "max_branches")
    max_seconds: float | None = like(SamplingParams, "max_seconds")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.params()

    def params(self, **others: Any) -> SamplingParams:
        """As sampling parameters of the engine, with others beside them."""
        try:
            return SamplingParams(**{**asdict(self), **others})
        except ValueError as error:
            raise ConfigError(str(error)) from None


def _rewards() -> list[Reward]:
    return [Reward(name="correct"), Reward(name="acceleration", weight=0.5)]


def _optimizer() -> Optimizer:
    return Optimizer(lr=1e-6, schedule="constant", warmup=0.0, weight_decay=0.0, betas=[0.9, 0.999])


@dataclass(frozen=True)
class RLConfig(Options):
    """A run of reinforcement learning. Only `model`, `questions` and `out` are required."""

    model: str = like(Config, "model")
    questions: list[QuestionSource] = option(help="Sources of questions: our task families, files, or reasoning-gym.")
    out: str = option(help="Folder of the run: checkpoints, log, curves, samples, and the finished model in model/.")
    rewards: list[Reward] = option(
        factory=_rewards, help="Reward functions, whose weighted values are added up; without any, correct and acceleration."
    )
    algorithm: Algorithm = option(factory=Algorithm, help="How rewards become a loss.")
    questions_per_batch: int = option(16, "Questions of each batch of rollouts, over all processes.", ge=1)
    group_size: int = option(8, "Rollouts of each question.", ge=2)
    max_steps: int = like(Config, "max_steps", 200, help="Updates of the weights in the whole run.")
    mode: Instruction = option(
        "parallel", "Instruction that ends each question, of models that were trained with it; as-is adds none."
    )
    sampling: Sampling = option(factory=Sampling, help="How rollouts are sampled, and their limits.")
    preset: PresetChoice = like(Config, "preset")
    instruction_file: str | None = like(Config, "instruction_file")
    layout: Literal["engine", "released"] | None = like(
        Config, "layout", help="Layout: engine or released; None is what the model says."
    )
    group_packing: bool = option(
        True, "Compute the prompt that the rollouts of a question share once in the update, and not once for each rollout."
    )
    packed_length: int = like(
        Config, "packed_length", 8192, help="Most tokens of a row of packed rollouts in the update.", ge=2
    )
    micro_batch_size: int = like(Config, "micro_batch_size")
    rollout_replicas: int = option(
        0,
        "Engines for rollouts in processes of their own, under Ray, each with a copy of the weights, and on a GPU of its own "
        "if there are any; 0 decodes in the processes that train.",
        ge=0,
    )
    asynchronous: bool = option(
        False,
        "With rollout_replicas: decode a batch of rollouts while the weights are updated on the one before, so that weights "
        "write it that are one batch older; algorithm.importance_sampling corrects for that, and is token_truncate unless set.",
    )
    kv_memory: float | None = option(
        None, "GiB of memory for keys and values of rollouts.", gt=0, metavar="GIB", show_default="by device"
    )
    optimizer: Optimizer = option(
        factory=_optimizer,
        help="Optimizer and learning-rate schedule; here lr is 1e-6, the schedule constant without warm-up, weight_decay 0 and "
        "betas 0.9 and 0.999 unless set.",
    )
    lora: Lora | None = like(Config, "lora")
    precision: Precision = like(
        Config,
        "precision",
        "fp32",
        help="Precision of the arithmetic, in rollouts and in the update; the weights that are updated stay in fp32 unless "
        "bf16_weights. Only in fp32 do both agree to rounding.",
    )
    save_dtype: SaveDtype = like(Config, "save_dtype")
    gradient_checkpointing: bool = like(Config, "gradient_checkpointing")
    compile: bool = like(Config, "compile")
    mask: MaskChoice = like(Config, "mask")
    fsdp: bool = like(Config, "fsdp")
    validation_questions: int = option(100, "Held-out questions that are asked in each validation; 0 is none.", ge=0)
    validation_temperature: float = like(
        SamplingParams, "temperature", 0.0, help="Temperature in validation; 0 takes the likeliest token."
    )
    eval_every: int | None = like(
        Config,
        "eval_every",
        help="Steps between validations, besides one before the first step and one after the last; None is a tenth of the run.",
    )
    save_every: int | None = like(Config, "save_every")
    keep: int = like(Config, "keep")
    samples_every: int | None = option(10, "Steps between samples that are written as files; None writes none.", ge=1)
    samples: int = option(4, "Questions of a step whose best and worst rollout are written as samples.", ge=1)
    early_stopping: EarlyStopping = option(factory=EarlyStopping, help="What ends the run early.")
    report_to: list[str] = like(Config, "report_to")
    seed: int = like(Config, "seed")
    shape: str | None = like(Config, "shape")

    def __post_init__(self) -> None:
        super().__post_init__()
        names_of(self.questions)
        check_rewards(self.rewards)
        check_judge(self.questions, self.rewards)
        if self.fsdp and self.optimizer.name == "muon":
            raise ConfigError("optimizer.name='muon' needs whole matrices, and fsdp=True cuts them: use adamw, or fsdp: false")
        if self.asynchronous and not self.rollout_replicas:
            raise ConfigError(
                "asynchronous=True needs rollout_replicas of 1 or more: a process does not decode while it trains"
            )
        if self.asynchronous:
            object.__setattr__(self, "algorithm", self.algorithm.unless_given(importance_sampling="token_truncate"))

    @property
    def share_every(self) -> int | None:
        """Paths never attend to each other in rollouts."""
        return None

    @property
    def updates(self) -> int:
        """Updates of the weights for each batch of rollouts."""
        return self.algorithm.updates(self.questions_per_batch)


def without_effect(config: RLConfig) -> dict[str, tuple[str, str]]:
    """As `training.config.without_effect`."""
    optimizer = config.optimizer
    rules = {
        "eval_every": (config.validation_questions > 0, "validation_questions", "validation_questions above 0"),
        "validation_temperature": (config.validation_questions > 0, "validation_questions", "validation_questions above 0"),
        "samples": (config.samples_every is not None, "samples_every", "samples_every"),
        "optimizer.muon_lr": (optimizer.name == "muon", "optimizer.name", "optimizer.name: muon"),
        "optimizer.stable_ratio": (optimizer.schedule == "wsd", "optimizer.schedule", "optimizer.schedule: wsd"),
    }
    unused = {name: (decider, needs) for name, (used, decider, needs) in rules.items() if not used}
    for name, needs in algorithm_without_effect(config.algorithm).items():
        decider = needs.partition(":")[0].partition(" ")[0]
        unused[f"algorithm.{name}"] = (f"algorithm.{decider}", f"algorithm.{needs}")
    return unused


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> RLConfig:
    """Read a YAML file. Paths in it are relative to the working directory.

    Args:
        overrides: values that replace the file's, by dotted name such as ``algorithm.kl_coef``.

    Raises:
        ConfigError: the file cannot be read, or a key or value is unknown, missing, not valid or without effect.
        ExtraError: a library is missing.
    """
    check_extra()
    overrides = overrides or {}
    given = {name.partition(".")[2] for name in overrides if name.startswith("sampling.")}
    try:
        sampling = read_yaml(path).get("sampling")
    except ConfigError:
        sampling = None  # said below
    for name in (*(sampling if isinstance(sampling, Mapping) else ()), *given):
        if name in NOT_IN_ROLLOUTS:
            raise ConfigError(f"{path}: sampling.{name} is not for rollouts: {NOT_IN_ROLLOUTS[name]}; leave it out")
    config: RLConfig = load_settings(RLConfig, path, overrides, without_effect)
    return config


def load_stored(path: Path) -> RLConfig:
    """The configuration that a run has stored with `dump`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        stored: RLConfig = build(RLConfig, read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return stored


def dump(config: RLConfig) -> str:
    """The configuration as YAML with every value written out, except those without effect."""
    return dump_settings(config, without_effect)
