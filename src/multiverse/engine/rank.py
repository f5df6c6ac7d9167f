"""A tensor-parallel rank other than rank 0 (see `tensor_parallel.py`): runs the forwards that it is told to, over its share.

It ends when rank 0 does: the pipe between them closes, however rank 0 came to its end.
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

from ..attention.tree import KVPool, TreeContext
from .model import LoadedModel, ModelRunner, load_weights, prepare
from .tensor_parallel import PATIENCE, Forward, Join, Resize, join_group, receive, send, to_bucket


def main(descriptor: int) -> None:
    """Serve rank 0 at the other end of this socket until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 hears of it, and decides
    connection = Connection(descriptor)
    join: Join = receive(connection)
    send(connection, 0)
    device = torch.device(join.device, join.rank) if join.device == "cuda" else torch.device(join.device)
    os.environ["LOCAL_RANK"] = str(join.rank)  # by which transformers picks this rank's GPU
    if join.device == "cpu":
        torch.set_num_threads(join.threads)
    try:
        store = dist.TCPStore("127.0.0.1", join.port, join.size, is_master=False, timeout=PATIENCE)  # type: ignore[attr-defined]
        join_group(torch.device(join.device), join.rank, join.size, store)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load_weights(join.path, join.dtype, join.size)
        loaded = prepare(model, None, join.path, device, packed=False)
    except Exception as error:
        with contextlib.suppress(OSError):
            send(connection, f"{type(error).__name__}: {error}")
        sys.exit(1)
    send(connection, torch.cuda.mem_get_info(device)[0] if join.device == "cuda" else 0)
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(connection, loaded)
    # Not by way of the interpreter's end: a group whose rank 0 is gone would wait for it there.
    os._exit(0)


@torch.inference_mode()
def _serve(connection: Connection, loaded: LoadedModel) -> None:
    pool, backend = KVPool(1), ModelRunner.choose_backend(loaded)
    while True:
        message: Any = receive(connection)
        match message:
            case Resize(slots):
                pool = KVPool(slots)
            case Forward():
                token_N, position_N, slot_N, keep = (torch.from_numpy(array).to(loaded.device) for array in message[:4])
                context = TreeContext(pool, backend, slot_N, [to_bucket(arrays, loaded.device) for arrays in message.buckets])
                loaded.forward(token_N, position_N, keep, context)
