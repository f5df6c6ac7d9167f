"""Replicas: engines in processes of their own that decode a run's rollouts, under Ray.

The first process of a run hands its weights to Ray's object store, from which every replica copies them into parameters of its
own, in place; questions go to the replicas, and rollouts come back as the objects that they are. Ray starts the processes, on
other machines, too, and tells when one has died: another is then started, and its questions are asked again, with the same
seeds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ... import cluster
from ...errors import ConfigError, EngineError, ModelError
from ...threads import usable_cores
from .collect import Draw
from .config import RLConfig
from .decoding import Decoded, Decoder, OnPhase
from .policy import Policy
from .processes import from_first, share
from .replica import Replica, as_array
from .rollout import Group, Question

_POLL = 0.25
"""Seconds between looks at how far replicas have come."""
_MOST_LOST = 3
"""Losses for each replica, over one batch, after which the run ends."""
_STORE = 512 << 20
"""Bytes of the object store beside the weights: rollouts on their way."""
_WATCH = "watch"


def check_replicas(config: RLConfig) -> None:
    """Check that replicas can be had, before anything is loaded.

    Raises:
        ExtraError: Ray is not installed.
        ConfigError: there are too few GPUs for them on this machine.
    """
    if config.rollout_replicas:
        cluster.import_ray()
        if cluster.is_private():
            _free_gpus(config.rollout_replicas)


def _free_gpus(count: int) -> list[str]:
    """GPUs of this machine for replicas: those behind the ones that train; none where nothing runs on GPUs."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = named.split(",") if named else list(map(str, range(torch.cuda.device_count())))
    training = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if len(every) - training < count:
        raise ConfigError(
            f"rollout_replicas={count} needs {count} GPUs beside the {training} that train, and {len(every)} are visible: "
            f"start fewer processes or replicas, set it to 0, or join a Ray cluster with RAY_ADDRESS"
        )
    return every[training:]


@dataclass
class _Work:
    """Rollouts that are decoded in the background."""

    groups: list[Group] = field(default_factory=list)
    seconds: float = 0.0
    error: BaseException | None = None
    progress: tuple[int, int] = (0, 1)
    thread: threading.Thread | None = None


@dataclass(frozen=True)
class _Share:
    """The questions that a replica was asked: its number, and their places in the batch."""

    replica: int
    places: range


class Replicas(Decoder):
    """Decodes with replicas. With several processes, the first one asks them, and the others get their share of the rollouts.

    Args:
        config: of the run.
        policy: whose weights they decode with; it never decodes itself.
        load: as in `Replica`.
        on_phase: shows how far they have come.
        on_lost: called with a sentence when one has died.

    Raises:
        ExtraError: Ray is not installed.
        ModelError: they cannot be started.
    """

    def __init__(
        self,
        config: RLConfig,
        policy: Policy,
        load: Callable[[RLConfig], Policy],
        on_phase: OnPhase = lambda *_: None,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config, self.policy, self.on_phase, self.on_lost = config, policy, on_phase, on_lost
        self._load = load
        self._first = int(os.environ.get("RANK", 0)) == 0
        self._version: int | None = None
        self._frozen: Any = None  # references to the weights in Ray's object store
        self._trained: Any = None
        self._work: _Work | None = None
        self._finished: Decoded | None = None
        self._actors: list[Any] = []
        self._closing = False
        if self._first:
            try:
                self._start()
            except BaseException:
                self.close()
                raise

    def _start(self) -> None:
        """Start Ray, or join it, and all replicas."""
        self._ray = ray = cluster.import_ray()
        count = self.config.rollout_replicas
        gpus = _free_gpus(count) if cluster.is_private() else []
        cores = max(1, usable_cores() // (count + 1))
        self._resources = {"num_cpus": 1, "num_gpus": 1} if torch.cuda.is_available() else {"num_cpus": cores}
        weights = sum(parameter.nbytes for parameter in self.policy.model.parameters())
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # Ray hands out these
        try:
            # The store holds the weights of two versions while they are handed over.
            cluster.start(
                ray, num_cpus=max(usable_cores(), cores * count), num_gpus=len(gpus), object_store_memory=_STORE + 2 * weights
            )
        finally:
            if gpus and before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            elif gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = str(before)
        self._actors = [self._make() for _ in range(count)]
        for number, actor in enumerate(self._actors):
            self.on_phase("starting replicas", number, count)
            try:
                ray.get(actor.status.remote())
            except ray.exceptions.RayError as error:
                raise ModelError(f"replica {number} could not be started: {cluster.reason(error)}") from None
        self.on_phase("starting replicas", count, count)

    def _make(self) -> Any:
        actor = self._ray.remote(max_restarts=0, concurrency_groups={_WATCH: 1}, **self._resources)(Replica)
        return actor.remote(self.config, self._load, str(Path.cwd()))

    def collect(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """See `Decoder`."""
        return self._now("collect", "rollouts", questions, draw)

    def answer(self, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """See `Decoder`."""
        return self._now("answer", "validation", questions, draw)

    def _now(self, method: str, what: str, questions: Sequence[Question], draw: Draw) -> list[Group]:
        self._publish(draw.version)
        if not self._first:
            return share(from_first([]))
        return share(from_first(self._ask(method, questions, draw, lambda done, total: self.on_phase(what, done, total))))

    def begin(self, questions: Sequence[Question], draw: Draw) -> None:
        """See `Decoder`."""
        self._publish(draw.version)
        if not self._first:
            return
        work = self._work = _Work()
        self._finished = None
        began = time.monotonic()

        def show(done: int, total: int) -> None:
            work.progress = done, total

        def run() -> None:
            try:
                work.groups = self._ask("collect", questions, draw, show)
            except BaseException as error:
                work.error = error
            work.seconds = time.monotonic() - began

        work.thread = threading.Thread(target=run, name="rollouts", daemon=True)
        work.thread.start()

    def begun(self) -> Decoded:
        """See `Decoder`."""
        if self._finished is None:
            work = self._work
            assert work is not None
            assert work.thread is not None
            while work.thread.is_alive():
                self.on_phase("rollouts", *work.progress)
                work.thread.join(_POLL)
            self.on_phase("rollouts", 1, 1)
            if work.error is not None:
                raise work.error
            self._finished, self._work = Decoded(work.groups, work.seconds), None
        return self._finished

    def finish(self) -> Decoded:
        """See `Decoder`."""
        decoded = self.begun() if self._first else Decoded([], 0.0)
        return decoded._replace(groups=share(from_first(decoded.groups)))

    def _publish(self, version: int) -> None:
        """Hand the weights over, unless these have been already. What is decoded with older ones is finished first."""
        if version == self._version:
            return
        if self._work is not None:
            self.begun()
        frozen: dict[str, Any] = {}
        trained: dict[str, Any] = {}
        for name, parameter, values in self.policy.weights(trained=self._version is not None):
            if self._first:
                (trained if parameter.requires_grad else frozen)[name] = as_array(values)
        if self._first:
            if self._version is None:
                self._frozen = self._ray.put(frozen)
            self._trained = self._ray.put(trained)
        self._version = version

    def _ask(self, method: str, questions: Sequence[Question], draw: Draw, show: Callable[[int, int], None]) -> list[Group]:
        """The groups of all questions, each replica asked for its share.

        Raises:
            EngineError: replicas died again and again.
        """
        ray, lost = self._ray, 0
        count = min(len(self._actors), len(questions))
        found: dict[int, Group] = {}
        running: dict[Any, _Share] = {}

        def send(own: _Share) -> None:
            asked = [questions[place] for place in own.places]
            actor = self._actors[own.replica]
            running[actor.decode.remote(self._frozen, self._trained, method, asked, draw)] = own

        for number in range(count):
            send(_Share(number, range(number, len(questions), count)))
        while running:
            ready, _ = ray.wait(list(running), timeout=_POLL)
            if self._closing:
                raise EngineError("the run ends")
            for reference in ready:
                own = running.pop(reference)
                try:
                    found.update(zip(own.places, ray.get(reference), strict=True))
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    lost += 1
                    self._replace(own, error, lost)
                    send(own)
            show(*self._progress(running, len(found), len(questions)))
        return [found[place] for place in range(len(questions))]

    def _replace(self, own: _Share, error: Exception, lost: int) -> None:
        """Start a replica anew that has died."""
        self.lost += 1
        why = cluster.reason(error)
        if lost > _MOST_LOST * len(self._actors):
            raise EngineError(
                f"replicas died {lost} times over one batch of rollouts, the last time for: {why}. If memory is short, lower "
                f"kv_memory or rollout_replicas"
            )
        self.on_lost(
            f"replica {own.replica} died ({why}); another is started in its place, and its {len(own.places)} questions are "
            f"asked again"
        )
        self._ray.kill(self._actors[own.replica])
        self._actors[own.replica] = self._make()

    def _progress(self, running: dict[Any, _Share], found: int, questions: int) -> tuple[int, int]:
        """How many rollouts have finished, of how many."""
        each = self.config.group_size
        waiting = [self._actors[own.replica].status.options(concurrency_group=_WATCH).remote() for own in running.values()]
        ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=_POLL) if waiting else ([], [])
        done = found * each
        for reference in ready:
            try:
                done += self._ray.get(reference).done
            except self._ray.exceptions.RayError:  # it has died, which `_ask` will see
                continue
        return min(done, questions * each), questions * each

    def close(self) -> None:
        """End the replicas, and Ray if it was started here. What is being decoded is lost."""
        self._closing = True
        if not self._first or not hasattr(self, "_ray") or not self._ray.is_initialized():
            return
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._work is not None and self._work.thread is not None:
            self._work.thread.join(10 * _POLL)
        self._ray.shutdown()
