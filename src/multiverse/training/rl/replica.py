"""A replica's process: an engine over its own copy of the weights. A Ray actor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...cluster import be_quiet
from .collect import Draw
from .config import RLConfig
from .decoding import InProcess
from .policy import Policy
from .rollout import Group, Question

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
"""Parameters by name, as bytes in the type that is decoded with."""


class Status(NamedTuple):
    """What a replica says of itself.

    Attributes:
        pid: number of its process.
        done: rollouts that have finished, of those that it was asked for last.
    """

    pid: int
    done: int


def as_array(values: Tensor) -> np.ndarray[Any, Any]:
    """The bytes of a tensor: numpy knows no bfloat16."""
    array: np.ndarray[Any, Any] = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return array


class Replica:
    """One engine.

    Args:
        config: of the run.
        load: gives the policy of a run; the model is read from where the run was started from, and its weights are replaced
            before anything is decoded.
        folder: the working directory of the run, which paths are relative to.
    """

    def __init__(self, config: RLConfig, load: Callable[[RLConfig], Policy], folder: str) -> None:
        be_quiet()
        with suppress(OSError):
            os.chdir(folder)
        # As the run decodes in its own process (`Policy`): under autocast with all weights in bfloat16.
        own = replace(
            config,
            precision=config.precision if config.precision == "fp32" else "bf16_weights",
            gradient_checkpointing=False,
            compile=False,
            fsdp=False,
            rollout_replicas=0,
            asynchronous=False,
        )
        self._policy = load(own)
        model = self._policy.model.requires_grad_(False)
        for parameter in model.parameters() if config.precision == "bf16" else ():
            parameter.data = parameter.data.to(torch.bfloat16)  # buffers, such as rotary frequencies, stay as they are
        if torch.cuda.is_available():
            model.to("cuda")
        self._decoder = InProcess(own, self._policy, self._note)
        self._version: int | None = None
        self._done = 0

    def _note(self, _what: str, done: int, _total: int) -> None:
        self._done = done

    def status(self) -> Status:
        """How far it has come. In a thread of its own, so that it answers while it decodes."""
        return Status(os.getpid(), self._done)

    def decode(self, frozen: Arrays, trained: Arrays, method: str, questions: Sequence[Question], draw: Draw) -> list[Group]:
        """Decode with these weights.

        Args:
            frozen, trained: the weights; the frozen ones are read once.
            method: of `Decoder`: ``collect`` or ``answer``.
        """
        self._done = 0
        if draw.version != self._version:
            self._set({**(frozen if self._version is None else {}), **trained})
            self._version = draw.version
        groups: list[Group] = getattr(self._decoder, method)(questions, draw)
        return groups

    @torch.no_grad()
    def _set(self, arrays: Arrays) -> None:
        """Change parameters in place. When decoding begins, what is packed or fused is made again, and nothing is cached."""
        for name, parameter, _ in self._policy.weights():
            if name in arrays:
                values = torch.tensor(arrays[name]).view(parameter.dtype)  # a copy: the object store's are read-only
                parameter.copy_(values.reshape(parameter.shape))
