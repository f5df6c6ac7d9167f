"""One model over several processes of one machine, split by transformers' own tensor-parallel plan.

The process of the engine is rank 0: it schedules and samples. Every other rank (see `rank.py`) runs the same forwards over its
share of the weights, with keys and values of its heads in a pool with the same slots as rank 0's. Rank 0 sends each forward
through a pipe, not by a collective operation: a collective that waits for hours runs into its time limit, and a pipe is
closed on both ends at once when a process ends.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import subprocess
import sys
import weakref
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EngineError, ModelError, first_line
from .base import ForwardContext
from .buckets import Bucket
from .torch import TorchBackend

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others within a forward, or while they load."""
_SHUTDOWN_SECONDS = 10.0
"""Time in which a rank has to exit before it is killed."""


class Join(NamedTuple):
    """First message to a rank: its model, its rank, and the port of the process group's store."""

    path: str
    dtype: str
    device: str
    rank: int
    size: int
    port: int
    threads: int


class Resize(NamedTuple):
    """Allocate a new KV pool."""

    slots: int


class Forward(NamedTuple):
    """One forward, as arrays: the arguments of the model and of `ForwardContext`."""

    token_N: NDArray[np.int64]
    position_N: NDArray[np.int64]
    slot_N: NDArray[np.int64]
    keep: NDArray[np.int64]
    buckets: list[tuple[NDArray[Any] | None, ...]]


Message = Join | Resize | Forward


def to_bucket(arrays: tuple[NDArray[Any] | None, ...], device: torch.device) -> Bucket:
    """A bucket from arrays, on this rank's device."""
    tensors: list[Any] = [None if array is None else torch.from_numpy(array).to(device) for array in arrays]
    return Bucket(*tensors)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def send(connection: Connection, message: Message | str | int) -> None:
    """Write a message."""
    # Not Connection.send: torch registers reductions with its pickler that put tensors into shared memory.
    connection.send_bytes(pickle.dumps(message, protocol=5))


def receive(connection: Connection) -> Any:
    """The next message; raises EOFError when the other end is closed."""
    return pickle.loads(connection.recv_bytes())


@dataclass
class _Rank:
    process: subprocess.Popen[bytes]
    connection: Connection


class Ranks:
    """The other ranks, as rank 0 controls them.

    Attributes:
        device: that of rank 0.
        size: number of ranks, rank 0 included.
        broken: why no forward can be run any more; `None` while one can.
        free: least free memory of the other ranks' GPUs, in bytes; 0 without GPUs.
    """

    def __init__(self, path: str, dtype: str, device: torch.device, size: int) -> None:
        if dist.is_initialized():
            raise ModelError(
                "this process is already part of a torch.distributed group, and a process can only be in one: "
                "load the tensor-parallel model in a process of its own"
            )
        self.device = torch.device("cuda", 0) if device.type == "cuda" else device
        self.size = size
        self.broken: str | None = None
        self.free = 0
        store = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", 0, size, is_master=True, wait_for_workers=False, timeout=TIMEOUT
        )
        threads = max(1, torch.get_num_threads() // size)
        self._others = [_start() for _ in range(1, size)]
        self._finalizer = weakref.finalize(self, _end, self._others)
        for number, other in enumerate(self._others, 1):
            send(other.connection, Join(path, dtype, device.type, number, size, store.port, threads))
        self._receive("could not be started")
        if device.type == "cpu":
            torch.set_num_threads(threads)  # the cores are shared by the ranks
        join_group(device, 0, size, store)

    def loaded(self) -> None:
        """Wait until every rank has its share of the model.

        Raises:
            ModelError: one of them could not load it.
        """
        self.free = min(self._receive("could not load its share of the model"))

    def resize(self, slots: int) -> None:
        """Every rank allocates a new pool."""
        self._send(Resize(slots))

    def forward(self, token_N: Tensor, position_N: Tensor, slot_N: Tensor, keep: Tensor, buckets: list[Bucket]) -> None:
        """Begin this forward on every other rank; it ends only if rank 0 runs it, too.

        Raises:
            EngineError: a rank has ended.
        """
        arrays = [tuple(None if tensor is None else _array(tensor) for tensor in bucket) for bucket in buckets]
        self._send(Forward(_array(token_N), _array(position_N), _array(slot_N), _array(keep), arrays))

    def fail(self, error: BaseException) -> None:
        """Close after a forward has failed: the ranks are out of step and would mix up the numbers of two forwards."""
        if self.broken is None:
            codes = {n: other.process.poll() for n, other in enumerate(self._others, 1) if other.process.poll() is not None}
            gone = "".join(f"; rank {number} has ended with exit code {code}" for number, code in codes.items())
            self.broken = f"{type(error).__name__}: {first_line(error)}{gone}"
        self.close()

    def close(self) -> None:
        """End the other ranks. May be called again."""
        self.broken = self.broken or "the ranks have been closed"
        self._finalizer()
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()

    def _send(self, message: Message) -> None:
        if self.broken is not None:
            raise EngineError(
                f"the model's {self.size} tensor-parallel ranks do not run any more ({self.broken}): load it again"
            )
        try:
            for other in self._others:
                send(other.connection, message)
        except OSError as error:
            self.fail(error)
            raise EngineError(f"a tensor-parallel rank is gone ({self.broken}): load the model again") from error

    def _receive(self, problem: str) -> list[int]:
        """One number from every rank; a rank that has failed sends the reason instead."""
        answers: list[int] = []
        for number, other in enumerate(self._others, 1):
            try:
                answer: int | str = receive(other.connection)
            except (EOFError, OSError):
                answer = f"it ended with exit code {other.process.wait()}"
            if isinstance(answer, str):
                self.broken = answer
                self.close()
                raise ModelError(f"tensor-parallel rank {number} {problem}: {answer}")
            answers.append(answer)
        return answers


class TensorParallelBackend(TorchBackend):
    """Rank 0's share of the model; every forward is run by all ranks.

    Attributes:
        ranks: the other ranks.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks.device)
        self.ranks = ranks

    def allocate(self, kv_memory: int | None) -> Self:
        """As `Backend.allocate`, on all ranks, whose previous pools are dropped: one engine at a time."""
        backend = super().allocate(kv_memory)
        self.ranks.resize(backend.num_slots)
        return backend

    def close(self) -> None:
        """As `Backend.close`; the other ranks end."""
        super().close()
        self.ranks.close()

    def forward(self, token_N: Tensor, position_N: Tensor, keep: Tensor, context: ForwardContext) -> Tensor:
        """As `Backend.forward`.

        Raises:
            EngineError: a rank has ended.
        """
        self.ranks.forward(token_N, position_N, context.slot_N, keep, context.buckets)
        try:
            return super().forward(token_N, position_N, keep, context)
        except BaseException as error:
            self.ranks.fail(error)
            raise

    @property
    def broken(self) -> str | None:
        """As `Backend.broken`."""
        return self.ranks.broken

    def _free_memory(self) -> int:
        return min(super()._free_memory(), self.ranks.free)  # every rank has the same slots


def join_group(device: torch.device, rank: int, size: int, store: Any) -> None:
    """Join the process group."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    bound = torch.device("cuda", rank) if device.type == "cuda" else None
    if bound is not None:
        torch.cuda.set_device(bound)
    dist.init_process_group(backend, rank=rank, world_size=size, store=store, timeout=TIMEOUT, device_id=bound)


def distributed_config(size: int) -> Any:
    """The argument that makes `from_pretrained` load this rank's share only."""
    try:
        from transformers.distributed.configuration_utils import DistributedConfig
    except ImportError:
        raise ModelError("tensor parallelism needs a transformers that has DistributedConfig: install a newer one") from None
    return DistributedConfig(tp_size=size)


def check_splittable(config: Any, name: str, size: int, device: torch.device) -> None:
    """Raise ModelError unless the model can be split into `size` shares and there are devices for them."""
    text = config.get_text_config()
    plan = getattr(text, "base_model_tp_plan", None)
    if size < 1:
        raise ModelError(f"tensor_parallel={size} is not valid: it must be 1 or more")
    if not plan:
        raise ModelError(
            f"transformers has no tensor-parallel plan for {name!r} (model type {config.model_type!r}): use tensor_parallel=1"
        )
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device) != accelerator:
        raise ModelError(
            f"tensor_parallel={size} takes the first {size} devices of the machine's own kind ({accelerator!r}), and "
            f"device={str(device)!r} is another one: use 'auto', and CUDA_VISIBLE_DEVICES to choose among GPUs"
        )
    if accelerator == "cuda" and torch.cuda.device_count() < size:
        raise ModelError(f"tensor_parallel={size} needs as many GPUs, and there are {torch.cuda.device_count()}: lower it")
    if any(key.endswith(".k_proj") and style == "colwise" for key, style in plan.items()):
        for kind in ("num_attention_heads", "num_key_value_heads"):
            heads = getattr(text, kind, None)
            if isinstance(heads, int) and heads % size:
                raise ModelError(
                    f"tensor_parallel={size} does not divide the {heads} {kind} of {name!r}: use a divisor of {heads}"
                )


def _start() -> _Rank:
    ours, theirs = socket.socketpair()
    with theirs:
        program = f"from multiverse.backends.rank import main; main({theirs.fileno()})"
        process = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return _Rank(process, Connection(ours.detach()))


def _end(ranks: list[_Rank]) -> None:
    for rank in ranks:
        rank.connection.close()  # a rank that waits for a message ends
    for rank in ranks:
        try:
            rank.process.wait(_SHUTDOWN_SECONDS if rank.process.poll() is None else 0)
        except subprocess.TimeoutExpired:  # it waits for others in the middle of a forward
            rank.process.kill()
            rank.process.wait()
