"""A tensor-parallel rank other than rank 0 (see `tensor_parallel.py`): runs the forwards it receives on its share.

It ends when rank 0 does, for whatever reason: the pipe between them is closed then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from ..models.weights import load_weights
from .base import PROBE_SLOTS, ForwardContext
from .kv_pool import KVPool
from .tensor_parallel import TIMEOUT, Forward, Join, Resize, distributed_config, join_group, receive, send, to_bucket
from .torch import TorchBackend


def main(descriptor: int) -> None:
    """Serve rank 0 at the other end of this socket until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 receives it, and decides
    connection = Connection(descriptor)
    join: Join = receive(connection)
    send(connection, 0)
    device = torch.device(join.device, join.rank) if join.device == "cuda" else torch.device(join.device)
    os.environ["LOCAL_RANK"] = str(join.rank)  # by which transformers picks this rank's GPU
    if join.device == "cpu":
        torch.set_num_threads(join.threads)
    try:
        store = dist.TCPStore("127.0.0.1", join.port, join.size, is_master=False, timeout=TIMEOUT)  # type: ignore[attr-defined]
        join_group(torch.device(join.device), join.rank, join.size, store)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_weights(join.path, join.dtype, distributed_config=distributed_config(join.size))
        backend = TorchBackend(device)
        backend.prepare(model, join.path)
    except Exception as error:
        with contextlib.suppress(OSError):
            send(connection, f"{type(error).__name__}: {error}")
        sys.exit(1)
    send(connection, torch.cuda.mem_get_info(device)[0] if join.device == "cuda" else 0)
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(connection, backend)
    # Not a normal exit: the process group would wait there for a rank 0 that has ended.
    os._exit(0)


@torch.inference_mode()
def _serve(connection: Connection, backend: TorchBackend) -> None:
    device = backend.device
    backend.pool = KVPool(PROBE_SLOTS)  # for rank 0's first forward, by which it learns the size of a slot
    while True:
        message: Any = receive(connection)
        match message:
            case Resize(slots):
                backend.pool = KVPool(slots)
            case Forward():
                token_N, position_N, slot_N, keep = (torch.from_numpy(array).to(device) for array in message[:4])
                buckets = [to_bucket(arrays, device) for arrays in message.buckets]
                backend.forward(token_N, position_N, keep, ForwardContext(backend.pool, backend, slot_N, buckets))
