"""Dry run: questions and settings checked, memory per device, time of a step here, and one step with a tiny model.

Neither the weights nor a GPU are needed. The tiny step runs all code of a real one (questions, rollouts, rewards, advantages,
packing, loss, update) with a model of the same family that has two small layers.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from ...errors import ModelError
from ...families import bind, choose
from ..config import check_extra
from ..dryrun import model_shape, model_tokenizer, tiny_shape
from ..loading import world_size
from ..lora import enable_training
from ..memory import estimate_memory
from ..prepare import prepare
from ..run import mask_kind
from .collapse import CollapseDetector
from .collect import encode_questions
from .config import RLConfig
from .decoding import InProcess
from .experience import Experiences
from .log import Live
from .logprobs import disable_dropout
from .metrics import Metrics
from .questions import Questions
from .replicas import check_replicas
from .rewards import Rewards
from .run import Run, Start, make_policy

_TINY_TOKENS = 48
_ROWS = 256  # rows that the engine advances in one forward
_OVERHEAD = 5e-3  # seconds of a forward that do not depend on its size
_EFFICIENCY = 0.5  # of matrix products in training


@dataclass
class RLReport:
    """Result of a dry run.

    Attributes:
        parameters, trained: parameters of the real model, and how many of them are trained.
        questions: a line for each source.
        steps: updates of the run.
        updates: for each batch of rollouts.
        rollouts: of each batch.
        prompt_tokens: the longest prompt of the first batch.
        devices: number of processes that train.
        memory: bytes on one device, by what they hold. Keys and values of rollouts, and what the update computes, take turns.
        peak: most of it at one time.
        replicas: number of those that decode rollouts; 0 if the processes that train do.
        replica_memory: bytes on the device of one of them, by what they hold.
        asynchronous: whether rollouts and updates run at the same time.
        seconds: of an update on this machine, by phase, if every answer is as long as it may be.
        tiny: figures of the step with the tiny model; empty where it was not taken.
        notes: what was missing, and what was used in its place.
    """

    model: str
    parameters: int
    trained: int
    questions: list[str]
    steps: int
    updates: int
    rollouts: int
    prompt_tokens: int
    devices: int
    memory: dict[str, int]
    peak: int
    replicas: int
    replica_memory: dict[str, int]
    asynchronous: bool
    seconds: dict[str, float]
    tiny: Metrics
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @property
    def seconds_per_step(self) -> float:
        """Seconds of an update with its part of the rollouts."""
        return (max if self.asynchronous else sum)(self.seconds.values())


def dry_run(config: RLConfig, *, devices: int | None = None) -> RLReport:
    """Check a run, estimate its memory and time, and take one step with a tiny model.

    Args:
        devices: number of processes to estimate for; `None` is as many as torchrun has started.

    Raises:
        ConfigError, DataError, DialectError, ModelError, RequestError: as `train`, and if there is no model configuration.
    """
    check_extra()
    from transformers import AutoModelForCausalLM

    kind = mask_kind(config)
    check_replicas(config)
    notes: list[str] = []
    model_config, tokenizer = model_shape(config, notes), model_tokenizer(config, notes)
    family = choose(config.preset, config.model, tokenizer, model_config).family
    tokens = bind(family, tokenizer, model_config, None, None, layout=config.layout).tokens
    if tokens is None:
        raise ModelError(f"{config.model!r} has no tags, so it never forks: teach it to with multiverse train first")
    questions = Questions(config.questions, config.seed, config.questions_per_batch)
    torch.manual_seed(config.seed)
    tiny = AutoModelForCausalLM.from_config(tiny_shape(model_config))
    prepared = prepare(tiny, tokenizer, tokens.dialect)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model_config)
        whole.resize_token_embeddings(prepared.vocabulary, mean_resizing=False)
    parameters = sum(p.numel() for p in whole.parameters())
    adapted = enable_training(whole, replace(config, gradient_checkpointing=False), prepared)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    disable_dropout(tiny)
    quick = _quick(config)
    model = enable_training(tiny, quick, prepared)
    policy = make_policy(quick, model, tokenizer, prepared, family, None)
    with Rewards(config.rewards, config.out, config.sampling.max_tokens) as rewards:
        with policy.decoding() as llm:
            mode = None if config.mode == "as-is" else config.mode
            asked = [*questions.batch(0), *questions.held_out(config.validation_questions)]
            prompts = encode_questions(llm, asked, config.sampling.params(), mode)
        figures: Metrics = {}
        if any(reward.judge is not None for reward in config.rewards):
            notes.append("No step was taken with a tiny model, since a judge would have had to be asked.")
        else:
            start = Start(model, tokenizer, prepared, None, None, None, policy)
            figures = _tiny_step(quick, kind, start, rewards)
    count = devices or world_size()
    size = _Size(config, model_config, parameters, trained, max(map(len, prompts)), count)
    memory = size.memory(dense=kind == "dense")
    return RLReport(
        model=config.model,
        parameters=parameters,
        trained=trained,
        questions=questions.describe(),
        steps=config.max_steps,
        updates=config.updates,
        rollouts=config.questions_per_batch * config.group_size,
        prompt_tokens=size.prompt,
        devices=count,
        memory=memory,
        peak=_peak(memory, gathered=config.fsdp and count > 1),
        replicas=config.rollout_replicas,
        replica_memory=size.replica_memory(),
        asynchronous=config.asynchronous,
        seconds=size.seconds(_speed(config)),
        tiny=figures,
        notes=notes,
    )


def _quick(config: RLConfig) -> RLConfig:
    """One step on few and short rollouts."""
    return replace(
        config,
        max_steps=1,
        questions_per_batch=min(2, config.questions_per_batch),
        group_size=min(4, config.group_size),
        sampling=replace(config.sampling, max_tokens=min(_TINY_TOKENS, config.sampling.max_tokens), min_tokens=0),
        algorithm=replace(config.algorithm, updates_per_batch=1, no_spread="keep"),
        validation_questions=0,
        samples_every=None,
        report_to=[],
        fsdp=False,
        rollout_replicas=0,
        asynchronous=False,
        kv_memory=None,
    )


def _tiny_step(config: RLConfig, kind: Any, start: Start, rewards: Rewards) -> Metrics:
    """A step of the tiny model, from questions to an update; its figures."""
    questions = Questions(config.questions, config.seed, config.questions_per_batch)
    with TemporaryDirectory() as folder:
        own = replace(config, out=folder)
        live = Live(1, None)
        experiences = Experiences(own, InProcess(own, start.policy), questions, rewards, live.phase)
        trainer = Run(own, kind, start, experiences, live, CollapseDetector(own.early_stopping)).trainer(save=False)
        trainer.train()
        logged: Metrics = trainer.figures
        return dict(logged)


class _Speed(NamedTuple):
    """What this machine can do.

    Attributes:
        flops: floating-point operations a second, in matrix products.
        bandwidth: bytes a second that are read.
    """

    flops: float
    bandwidth: float


def _speed(config: RLConfig, seconds: float = 0.3) -> _Speed:
    """Measure it, in the precision of the run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
    size = 4096 if device.type == "cuda" else 768
    a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)
    x = torch.zeros(1 << (28 if device.type == "cuda" else 24), device=device)

    def rate(run: Any, work: float) -> float:
        run()
        count, began = 0, time.monotonic()
        while True:
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            count += 1
            if (spent := time.monotonic() - began) > seconds:
                return work * count / spent

    return _Speed(rate(lambda: a @ b, 2.0 * size**3), rate(lambda: x.sum(), 4.0 * x.numel()))


@dataclass
class _Size:
    """Sizes of a run, from which memory and time follow."""

    config: RLConfig
    model_config: Any
    parameters: int
    trained: int
    prompt: int
    devices: int

    @property
    def asked(self) -> int:
        """Questions of one process that decodes."""
        return -(-self.config.questions_per_batch // (self.config.rollout_replicas or self.devices))

    @property
    def rollouts(self) -> int:
        """Of one process that decodes."""
        return self.asked * self.config.group_size

    @property
    def element(self) -> int:
        """Bytes of a number in rollouts."""
        return 4 if self.config.precision == "fp32" else 2

    def memory(self, *, dense: bool) -> dict[str, int]:
        """Bytes on one device, by what they hold."""
        config = self.config
        update = estimate_memory(
            config,
            self.model_config,
            self.parameters,
            self.trained,
            devices=self.devices,
            rows=config.micro_batch_size,
            row_length=config.packed_length,
            dense=dense,
        )
        found = update._asdict()
        if not config.rollout_replicas:
            found |= self.decoding(copied=config.precision == "bf16" or (config.fsdp and self.devices > 1))
        if config.algorithm.kl_coef and config.lora is None:
            found["reference"] = self.parameters * (2 if config.precision == "bf16_weights" else 4)
        return found

    def decoding(self, *, copied: bool) -> dict[str, int]:
        """Bytes of what rollouts need on one device, a copy of the weights in the type that is decoded with included."""
        config, text = self.config, self.model_config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        per_token = 2 * text.num_hidden_layers * heads * width * self.element
        needed = self.rollouts * config.sampling.max_tokens + self.asked * self.prompt
        given = config.kv_memory
        found = {"keys and values": int(given * (1 << 30)) if given is not None else needed * per_token}
        return found | ({"decoding copy": self.element * self.parameters} if copied else {})

    def replica_memory(self) -> dict[str, int]:
        """Bytes on the device of a replica, by what they hold."""
        if not self.config.rollout_replicas:
            return {}
        found = self.decoding(copied=True)
        return {"weights": found["decoding copy"], "keys and values": found["keys and values"]}

    def seconds(self, speed: _Speed) -> dict[str, float]:
        """Seconds of an update, by phase."""
        config, tokens = self.config, self.config.sampling.max_tokens
        waves = -(-self.rollouts // _ROWS)
        rows = -(-self.rollouts // waves)
        forward = max(self.parameters * self.element / speed.bandwidth, 2.0 * self.parameters * rows / speed.flops) + _OVERHEAD
        trained = -(-config.questions_per_batch // self.devices) * (config.group_size * tokens + self.prompt)
        passes = 8 if config.gradient_checkpointing else 6
        update = passes * self.parameters * trained / (_EFFICIENCY * speed.flops)
        return {"rollouts": waves * tokens * forward / config.updates, "update": update / config.updates}


def _peak(memory: dict[str, int], *, gathered: bool) -> int:
    """Most bytes at one time: rollouts and updates take turns, and a copy of sharded weights is freed with the rollouts."""
    turns = memory["gradients"] + memory["activations"] + memory["logits"] + memory["mask"]
    decoding = memory.get("keys and values", 0) + (memory.get("decoding copy", 0) if gathered else 0)
    return sum(memory.values()) - min(turns, decoding)
