"""`StructuredTrainer` whose steps are updates on rollouts: one batch of the Trainer is one update of the weights.

FSDP2 and DDP, mixed precision, checkpoints, resuming and trackers are the Trainer's, as in `multiverse train`. What an update
is made on is decided by its number: update k has part ``k % updates`` of the batch of rollouts ``k // updates``.

Shape legend: T tokens with loss in a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback

from ...attention.packed import Kind
from ...prompting import Mode
from ..trainer import StructuredTrainer
from .batch import Packing, RolloutBatch, Totals, make_batches
from .config import RLConfig
from .experience import Experience, Experiences
from .log import StopRollouts
from .logprobs import Reference, policy_logprobs
from .loss import LossStatistics, policy_loss
from .metrics import Metrics
from .samples import SAMPLES, write_samples


class Updates(Dataset[int]):
    """The numbers of a run's updates, which are its data set: everything else follows from them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def number_batch(numbers: Sequence[int]) -> dict[str, Tensor]:
    """Collator of `Updates`."""
    return {"update": torch.tensor(numbers)}


class RLTrainer(StructuredTrainer):
    """`Trainer` whose batches are the numbers of updates, on rollouts from `Experiences`.

    Args:
        experiences: collects, judges and keeps rollouts.
        packing: how rollouts are packed into rows.
        reference: the model of the KL divergence, if there is one.
        stop: ends rollouts on a signal.
    """

    def __init__(
        self,
        config: RLConfig,
        kind: Kind,
        experiences: Experiences,
        packing: Packing,
        *,
        reference: Reference | None = None,
        stop: StopRollouts,
        **kwargs: Any,
    ) -> None:
        self.run, self.experiences, self.packing, self.reference, self.stop = config, experiences, packing, reference, stop
        self.figures: Metrics = {}
        self._begun = False
        super().__init__(config, kind, **kwargs)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:  # noqa: ARG002
        """Collect rollouts if this update begins a new batch of them, and compute the gradients of the update."""
        self._begun = True
        number, parts = self.state.global_step, self.run.updates
        index, part = divmod(number, parts)
        began = time.monotonic()
        with self.stop.interruptible():
            experience = self.experiences.get(index, number)
        if self.run.asynchronous and part == 0:
            self.experiences.begin_next(index, number)
        self.figures = dict(experience.metrics) if part == 0 else {}
        if part == 0 and self.is_world_process_zero():
            self._write_samples(experience)
        collected = time.monotonic()
        model.train()
        groups = experience.part(part, parts)
        loss, statistics = self._accumulate(model, self._batches(groups))
        self.figures |= statistics.metrics(self.experiences.algorithm)
        stale = [number - rollout.version for group in groups for rollout in group.group.rollouts]
        self.figures["staleness"] = fmean(stale) if stale else 0.0
        if part == 0 and not any(stale):  # otherwise the ratio is not that of two forwards with the same weights
            for name in ("mean", "std", "deviation"):
                self.figures[f"first_ratio_{name}"] = self.figures[f"ratio_{name}"]
        now = time.monotonic()
        self.figures |= {"seconds_update": round(now - collected, 3), "seconds_step": round(now - began, 3)}
        return loss

    def _batches(self, groups: Sequence[Any]) -> list[RolloutBatch]:
        """This process's batches of an update on these groups: as many as every other process has."""
        algorithm, processes = self.experiences.algorithm, self.accelerator.num_processes
        totals = Totals.of(groups)
        own = groups[self.accelerator.process_index :: processes]
        batches = make_batches(own, algorithm, self.packing, totals, at_least=1)
        most = max(gather_object([len(batches)])) if processes > 1 else len(batches)
        return batches + make_batches([], algorithm, self.packing, totals, at_least=most - len(batches))

    def _accumulate(self, model: Any, batches: Sequence[RolloutBatch]) -> tuple[Tensor, LossStatistics]:
        """Gradients of an update; its loss, and statistics over all processes."""
        algorithm, processes = self.experiences.algorithm, self.accelerator.num_processes
        total = torch.zeros((), device=self.args.device)
        found: LossStatistics | None = None
        for number, batch in enumerate(batches):
            self.experiences.on_phase("update", number, len(batches))
            on_device = batch.to(self.args.device)
            if self.reference is not None:
                with self.accelerator.autocast():  # in the precision of the policy's own forward, which has it built in
                    self.reference.fill([on_device])
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    logprob_T, entropy_T = policy_logprobs(model, on_device, entropy_gradient=bool(algorithm.entropy_coef))
                    loss, own = policy_loss(logprob_T, entropy_T, on_device.tokens, algorithm)
                # Gradients are averaged over the processes, where they should be summed.
                self.accelerator.backward(loss * processes)
            total += loss.detach() * processes
            found = own if found is None else found + own
        self.experiences.on_phase("update", len(batches), len(batches))
        assert found is not None
        return total, found.reduced(self.accelerator.gather) if processes > 1 else found

    def _write_samples(self, experience: Experience) -> None:
        every, updates = self.run.samples_every, self.run.updates
        first = experience.index * updates + 1
        if every is None or (first > 1 and (first + updates - 1) // every == (first - 1) // every):
            return
        chosen = [group.group for group in experience.groups[: self.run.samples]]
        mode: Mode = "sequential" if self.run.mode == "sequential" else "parallel"
        write_samples(chosen, Path(self.run.out) / SAMPLES / f"step-{first:06d}", mode=mode, model=self.run.model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer`'s, with the figures of the update beside its loss."""
        super().log(logs | self.figures if "loss" in logs else logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Figures of the answers to held-out questions."""
        if not self._begun and self.state.global_step:
            return {}  # a resumed run was validated before its checkpoint
        began = time.monotonic()
        with self.stop.interruptible():
            _, figures = self.experiences.validate(self.state.global_step)
        figures["seconds"] = round(time.monotonic() - began, 3)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            self.experiences.save(folder, self.state.global_step)

    def save_now(self) -> None:
        """Write a checkpoint of the last update that was finished; for runs that end between two."""
        self._save_checkpoint(self.model_wrapped, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)


class ValidateLast(TrainerCallback):
    """Validates after the last update, whatever the interval."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
