"""One run of reinforcement learning, from a configuration to a model folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...attention.packed import Kind
from ...errors import ModelError, writing
from ...families import Family, bind, choose, read_instruction, write_preset
from ...models import resolve
from ..callbacks import FreeThreads, InterruptedRunError
from ..card import LOG, Base, base_of
from ..config import check_extra
from ..curve import read_log
from ..export import CONFIG, Export
from ..loading import load_model, world_size
from ..lora import compile_layers, enable_training
from ..prepare import Prepared, prepare
from ..run import CURVE, check_same, check_trackers, common_arguments, init_folder, mask_kind
from .batch import Packing
from .card import summarize
from .collapse import CollapseDetector, CollapseError, EarlyStopping
from .config import RLConfig, dump, load_stored, without_effect
from .decoding import Decoder, InProcess
from .experience import Experiences
from .log import Live, StepLog, StopEarly, StopRollouts
from .logprobs import Reference, disable_dropout
from .plots import plot_run
from .policy import Policy
from .questions import Questions
from .replicas import Replicas, check_replicas
from .rewards import Rewards
from .samples import SAMPLES

# Settings that may change when a run is resumed: what is trained does not depend on them, or only by rounding.
MAY_CHANGE = {
    *("report_to", "keep", "save_every", "eval_every", "shape", "out", "fsdp", "mask", "gradient_checkpointing", "compile"),
    *("save_dtype", "kv_memory", "micro_batch_size", "packed_length", "group_packing", "samples_every", "samples"),
    *("validation_questions", "validation_temperature", "rollout_replicas"),
    *(f"early_stopping.{item.name}" for item in fields(EarlyStopping)),
}
_GIB = 1 << 30
_TIMEOUT = 12 * 3600
"""Seconds that a process waits for the others: rollouts of one may take much longer than those of another."""


@dataclass
class Start:
    """What a run starts from.

    Attributes:
        model: as it is trained: with adapters, if there are any.
        prepared: how its vocabulary is divided.
        base: the model that was loaded; `None` for one that is not exported.
        saved_dtype: the type in which that was saved.
        instruction: the one for parallel thinking, if it is from a file.
        policy: decodes with the model.
    """

    model: Any
    tokenizer: Any
    prepared: Prepared
    base: Base | None
    saved_dtype: Any
    instruction: str | None
    policy: Policy


def train(config: RLConfig, *, fresh: bool = False, console: Any = None) -> Path:
    """Run, or resume, reinforcement learning, and write the model.

    Args:
        fresh: start anew, even where there is a checkpoint.
        console: a rich console for the progress; `None` shows none.

    Returns:
        The finished model's folder.

    Raises:
        ConfigError, DataError, DialectError, ModelError, RequestError: nothing was trained.
        CollapseError: the run was ended early, for a reason that `early_stopping` names; its checkpoint is kept.
        RewardError: a reward function failed for everything; the last checkpoint and the rollouts are kept.
        DiskError: the disk is full; the checkpoints that were complete are kept.
        ExtraError: a library is missing.
        InterruptedRunError: a signal stopped the run after it had written a checkpoint.
    """
    check_extra()
    kind = mask_kind(config)
    check_trackers(config)
    check_replicas(config)
    out = Path(config.out)
    if not fresh:
        check_folder(config, out)
    detector = CollapseDetector(config.early_stopping)
    if not fresh and (reason := _replay(detector, out)) is not None:
        raise CollapseError(_ended(reason, out))
    questions = Questions(config.questions, config.seed, config.questions_per_batch)
    with Rewards(config.rewards, out, config.sampling.max_tokens) as rewards:
        start = load_start(config)
        if int(os.environ.get("RANK", 0)) == 0:
            with writing(out):
                init_folder(out, dump(config), fresh, SAMPLES, *(path.name for path in out.glob("pending-*.pkl")))
        live = Live(config.max_steps, console)
        with closing(make_decoder(config, start.policy, live)) as decoder:
            experiences = Experiences(config, decoder, questions, rewards, live.phase)
            return Run(config, kind, start, experiences, live, detector)(fresh=fresh)


def load_start(config: RLConfig) -> Start:
    """Load the model, and prepare it for training and decoding.

    Raises:
        ModelError: it cannot be loaded, or does not fork.
        ConfigError: the adapters do not fit.
    """
    torch.manual_seed(config.seed)
    model, tokenizer, saved_dtype = load_model(config)
    source = resolve(config.model)
    family = choose(config.preset, config.model, tokenizer, model.config).family
    instruction = read_instruction(source, config.instruction_file)
    tokens = bind(family, tokenizer, model.config, None, instruction, layout=config.layout).tokens
    if tokens is None:
        raise ModelError(
            f"{config.model!r} has no tags, so it never forks: teach it to with multiverse train first, or name another model"
        )
    prepared = prepare(model, tokenizer, tokens.dialect)
    write_preset(model.config, family)
    disable_dropout(model)
    adapted = enable_training(model, config, prepared)
    if config.compile:
        compile_layers(adapted)
    return Start(
        model=adapted,
        tokenizer=tokenizer,
        prepared=prepared,
        base=base_of(config),
        saved_dtype=saved_dtype,
        instruction=instruction,
        policy=make_policy(config, adapted, tokenizer, prepared, family, instruction),
    )


def make_policy(
    config: RLConfig, model: Any, tokenizer: Any, prepared: Prepared, family: Family | None, instruction: str | None
) -> Policy:
    """The policy of a run."""
    options: dict[str, Any] = {}
    if config.kv_memory is not None:
        options["kv_memory"] = int(config.kv_memory * _GIB)
    if config.precision == "bf16":  # as autocast computes in training
        options["dtype"] = torch.bfloat16
    if config.fsdp and world_size() > 1:
        options["sharded"] = True
    return Policy(
        model,
        tokenizer,
        prepared.tokens,
        name=config.model,
        preset=family if family is not None else "none",
        instruction=instruction,
        **options,
    )


def make_decoder(config: RLConfig, policy: Policy, live: Live) -> Decoder:
    """Who decodes the rollouts of a run. Raises as `Replicas`."""
    if not config.rollout_replicas:
        return InProcess(config, policy, live.phase)
    live.say(f"starting {config.rollout_replicas} replicas for rollouts, under Ray")
    return Replicas(config, policy, load_policy, live.phase, live.say)


def load_policy(config: RLConfig) -> Policy:
    """The policy of a run, in the process of a replica."""
    return load_start(config).policy


class Run:
    """The training itself."""

    def __init__(
        self, config: RLConfig, kind: Kind, start: Start, experiences: Experiences, live: Live, detector: CollapseDetector
    ) -> None:
        self.config, self.kind, self.start, self.experiences, self.live = config, kind, start, experiences, live
        self.stop, self.early = StopRollouts(), StopEarly(detector)
        self.out = Path(config.out)

    def __call__(self, *, fresh: bool) -> Path:
        from ..trainer import newest_checkpoint

        checkpoint = None if fresh else newest_checkpoint(self.out)
        trainer = self.trainer()
        if checkpoint is not None:
            self.experiences.load(checkpoint)
        with writing(self.out), self.stop, self._interrupted(trainer):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else False)
        if self.early.reason is not None:
            self._plot(trainer)
            raise CollapseError(_ended(self.early.reason, self.out))
        if self.stop.requested:
            raise self._stopped(trainer)
        with writing(self.out):
            self._plot(trainer)
            start, config = self.start, self.config
            assert start.base is not None
            summary = partial(summarize, config, start.base, start.prepared.tokens.dialect, self.out)
            return Export(
                config, start.tokenizer, start.prepared.rows, start.base, start.saved_dtype, summary, start.instruction
            ).write(trainer)

    @contextmanager
    def _interrupted(self, trainer: Any) -> Iterator[None]:
        """A signal that comes while rollouts are decoded leaves a checkpoint of the last update."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.stop.requested:
                raise
            if trainer.state.global_step:
                trainer.save_now()
            raise self._stopped(trainer) from None
        finally:
            self.live.on_train_end(trainer.args, trainer.state, trainer.control)

    def _stopped(self, trainer: Any) -> InterruptedRunError:
        self._plot(trainer)
        steps = self.config.max_steps
        return InterruptedRunError(f"stopped at step {trainer.state.global_step} of {steps}; start again to continue")

    def _plot(self, trainer: Any) -> None:
        if trainer.is_world_process_zero() and (self.out / LOG).exists():
            plot_run(self.out / LOG, self.out / CURVE)

    def trainer(self, *, save: bool = True) -> Any:
        """The trainer of this run.

        Args:
            save: write checkpoints.
        """
        from ..trainer import MarkComplete
        from .trainer import RLTrainer, Updates, ValidateLast, number_batch

        config, start = self.config, self.start
        validates = self.experiences.validates
        arguments = common_arguments(
            config,
            config.max_steps,
            per_device_train_batch_size=1,
            eval_strategy="steps" if validates else "no",
            eval_steps=config.eval_every or max(1, config.max_steps // 10),
            eval_on_start=validates,
            ddp_timeout=_TIMEOUT,
            **({} if save else {"save_strategy": "no"}),
        )
        packing = Packing(
            pad_id=start.tokenizer.pad_token_id,
            packed_length=config.packed_length,
            micro_batch_size=config.micro_batch_size,
            group_packing=config.group_packing,
            kind=self.kind,
        )
        callbacks = [
            *([MarkComplete()] if save else []),
            StepLog(self.out / LOG),
            self.live,
            FreeThreads(),
            self.stop,
            self.early,
        ]
        return RLTrainer(
            config,
            self.kind,
            self.experiences,
            packing,
            reference=Reference(start.model) if self.experiences.algorithm.kl_coef else None,
            stop=self.stop,
            model=start.model,
            args=arguments,
            train_dataset=Updates(config.max_steps * arguments.world_size),
            eval_dataset=self.experiences.held_out if validates else None,
            data_collator=number_batch,
            callbacks=[*callbacks, ValidateLast()] if validates else callbacks,
        )


def check_folder(config: RLConfig, out: Path) -> None:
    """Check that a run in this folder, if there is one, has the same settings.

    Raises:
        ConfigError: it was started with other settings.
    """
    if not (out / CONFIG).exists():
        return
    stored = load_stored(out / CONFIG)
    unused = without_effect(stored).keys() & without_effect(config).keys()
    constant = config.optimizer.schedule == "constant" and not config.optimizer.warmup
    check_same(stored, config, {*MAY_CHANGE, *unused, *(["max_steps"] if constant else [])})


def _replay(detector: CollapseDetector, out: Path) -> str | None:
    """Feed the steps of an earlier start; why it has ended early, if it has."""
    from ..trainer import newest_checkpoint

    checkpoint = newest_checkpoint(out)
    if checkpoint is None or not (out / LOG).exists():
        return None
    step, reason = int(checkpoint.name.rpartition("-")[2]), None
    for record in read_log(out / LOG):
        if "loss" in record and record["step"] <= step:
            reason = detector.feed(record)
    return reason


def _ended(reason: str, out: Path) -> str:
    return (
        f"the run in {out} was ended early: {reason}. Its last checkpoints, log, samples and curves are kept; to go on, change "
        f"the settings under early_stopping and start again, or begin anew with other settings and --fresh"
    )
