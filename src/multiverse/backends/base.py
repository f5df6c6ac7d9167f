"""The interface between the engine and a device: one object with few methods.

    backend = select(device, dtype)        # once, when a model is loaded
    backend.prepare(model, name)           # replace layers by faster ones, in place
    backend = backend.allocate(kv_memory)  # one per engine: the same model with a KV pool of its own
    backend.run(batch)                     # one forward; returns logits

`plan` lays out the attention of a batch for the device and `attend` computes it, both within `run`.

Shape legend: N rows of the forward, H query heads, D head size, V head size of values (in `attend`) or vocabulary (in logits).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from ..attention.tree import register, within
from ..errors import ModelError, first_line
from ..models.quantised import quantisation
from .batch import Batch
from .buckets import Bucket, BucketPlan
from .invariant.attention import TilePlans
from .invariant.check import check_invariant
from .kv_pool import KVPool
from .rotary import split_rotary

_CPU_KV_MEMORY = 4 << 30
_MIN_SLOTS = 16
PROBE_SLOTS = 2
"""Slots of the pool for the first forward (`Backend._probe`)."""


@dataclass
class ForwardContext:
    """One forward as the attention of every layer sees it (a `TreeContext`); made by `Backend.plan`."""

    pool: KVPool  # backend: keys and values of all requests
    backend: Backend  # backend: itself
    slot_N: Tensor  # backend: the batch's slots, on the device
    buckets: list[Bucket]  # plan: rows whose attention is computed by padded groups with a mask, on the device
    tiles: Mapping[int | None, Any] = field(default_factory=dict)  # CudaBackend.plan: the other rows, per window of the layers
    plans: TilePlans | None = None  # plan: all rows, if the backend is deterministic (CudaBackend has them in `tiles`)
    layers: set[int] = field(default_factory=set)  # attend: layers that have run, to detect those that bypass this attention
    repeated: set[int] = field(
        default_factory=set
    )  # attend: layers that have run before; their keys and values are overwritten

    @property
    def softcap(self) -> float | None:
        """The cap that the backend puts on scores."""
        return self.backend.softcap

    @cached_property
    def bucket_plans(self) -> list[BucketPlan]:
        """The buckets with everything that is the same in all layers."""
        return [BucketPlan(bucket, len(self.slot_N)) for bucket in self.buckets]

    def attend(
        self, layer: int, query_NHD: Tensor, key_NKD: Tensor, value_NKV: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """Store keys and values of the rows, and return their attention output [N, H, V]."""
        if layer in self.layers:
            self.repeated.add(layer)
        self.layers.add(layer)
        self.pool.write(layer, self.slot_N, key_NKD, value_NKV)
        return self.backend.attend(query_NHD, layer, self, scale, window)


class Backend(ABC):
    """Runs forwards of one model on one device.

    Attributes:
        model: the transformers model, once prepared.
        name: the model's name in error messages.
        short_positions: number of positions of the texts that are rotated with short factors (see `models/rope.py`); `None`
            if all texts are rotated alike.
        pool, num_slots: keys and values, and for how many tokens, once allocated.
        deterministic: whether a row's result has the same bits whatever else is computed with it.
        max_rows_ahead: most rows of a forward after which `run_ahead` is worth calling; 0 if never.
        joins_kv: whether the keys and values of paths can be joined; otherwise paths have to be read again.
        rereads: whether paths are read again unless another join is asked for.
        reusable: whether computed tokens are of use to other requests.
        softcap: cap of the attention's scores; `None` without one.
        updatable: whether the weights change between forwards, so that what is copied of them can be copied again (`refresh`).
            Set before `prepare`.
    """

    model: Any
    name: str
    pool: KVPool
    num_slots: int
    max_rows_ahead = 0
    joins_kv = True
    rereads = False
    reusable = True
    softcap: float | None = None
    short_positions: int | None = None
    updatable = False

    def __init__(self, device: torch.device, *, deterministic: bool = False) -> None:
        self.device, self.deterministic = device, deterministic
        self._checked = False

    def prepare(self, model: Any, name: str) -> None:
        """Move a transformers model to the device and make it ready for `run`. The model is changed in place."""
        self.model, self.name = model, name
        model.eval().requires_grad_(False)
        # Tensor-parallel shares and quantised weights are loaded onto their device.
        if next(model.parameters()).device != self.device and getattr(model, "hf_quantizer", None) is None:
            model.to(self.device)
        model.set_attn_implementation(register())
        self.short_positions = split_rotary(model, name)

    def refresh(self) -> None:  # noqa: B027  (optional)
        """The weights have been changed in place: copy again what was copied of them. Only if `updatable`."""

    def close(self) -> None:
        """Free the pool of one engine. The model goes with the last who refers to it."""
        del self.pool

    def allocate(self, kv_memory: int | None) -> Self:
        """A copy with a KV pool of its own; several engines may share one prepared model.

        Args:
            kv_memory: bytes; `None` for a default that depends on the device.

        Raises:
            ModelError: too few tokens fit, the model cannot be run with fork and join, or it is not deterministic here.
        """
        bytes_per_slot = self._probe()
        if self.deterministic and not self._checked:
            check_invariant(self)
            self._checked = True
        memory = kv_memory if kv_memory is not None else self._default_kv_memory()
        slots = memory // bytes_per_slot
        if slots < _MIN_SLOTS:
            raise ModelError(
                f"kv_memory={memory} bytes hold only {slots} tokens of {self.name!r} ({bytes_per_slot} bytes each): "
                f"give at least {bytes_per_slot * 1024}"
            )
        backend = copy(self)
        backend.pool, backend.num_slots = KVPool(slots), slots
        return backend

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Compute one forward.

        Returns:
            float32 logits [rows, V], a row per entry of `batch.logits_indices`, valid until the next call.
        """
        return self._run_context(batch, self.plan(batch))

    def run_ahead(self, batch: Batch, token_N: Tensor, host_N: Tensor) -> None:  # noqa: B027  (optional)
        """Begin the forward that will probably come next (asynchronous scheduling); `run` uses it if it does come.

        Args:
            batch: the forward, whose `token_N` is not valid yet.
            token_N: its tokens, on the device; negative where a row got none.
            host_N: host memory that will hold the same tokens before the next call of `run`.
        """

    def limit_threads(self, most: int) -> None:  # noqa: B027  (optional)
        """Compute by at most so many threads from now on, where threads of this process compute."""

    def forget(self, slots: Iterable[int]) -> None:  # noqa: B027  (optional)
        """Slots have been freed. Called only if the backend is not `reusable`."""

    @abstractmethod
    def plan(self, batch: Batch) -> ForwardContext:
        """Lay out the attention of a batch for the device."""

    @abstractmethod
    def attend(self, query_NHD: Tensor, layer: int, context: ForwardContext, scale: float, window: int | None) -> Tensor:
        """Attention output [N, H, V] of all rows, whose keys and values are in the pool.

        Args:
            window: a row reads a slot only if it is less than `window` positions back; `None` for full attention.
        """

    def forward(self, token_N: Tensor, position_N: Tensor, keep: Tensor, context: ForwardContext) -> Tensor:
        """Run the model on tensors of the device; returns float32 logits of the rows in `keep`."""
        with within(context):
            output = self.model(
                input_ids=token_N[None],
                position_ids=position_N[None],
                use_cache=False,
                logits_to_keep=keep,
                tree_context=context,
            )
        logits: Tensor = output.logits[0].float()
        return logits

    @property
    def broken(self) -> str | None:
        """Why no forward can be run any more; `None` while one can."""
        return None

    def _run_context(self, batch: Batch, context: ForwardContext) -> Tensor:
        token_N, position_N = self._send(batch.token_N), self._send(batch.position_N)
        keep = self._send(torch.tensor(batch.logits_indices or [0], dtype=torch.long))
        return self.forward(token_N, position_N, keep, context)[: len(batch.logits_indices)]

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _default_kv_memory(self) -> int:
        """CUDA: 80% of the memory that is free after loading the weights. CPU: 4 GiB, which become resident only when used."""
        return int(self._free_memory() * 0.8) if self.device.type == "cuda" else _CPU_KV_MEMORY

    def _free_memory(self) -> int:
        return torch.cuda.mem_get_info(self.device)[0]

    @torch.inference_mode()
    def _probe(self) -> int:
        """Run two texts of one token, to learn the size of a slot and to check that the model can be run with fork and join.

        Raises:
            ModelError: it cannot.
        """
        pool, zero = KVPool(PROBE_SLOTS), torch.zeros(PROBE_SLOTS, dtype=torch.long, device=self.device)
        slots = torch.arange(PROBE_SLOTS, device=self.device)
        place = slots[:, None], slots[:, None], None, None, zero[:, None], zero[:, None]
        context = ForwardContext(pool, self, slots, [Bucket(*place)])
        method = quantisation(self.model.config)
        kind = f"{self.name!r} (model type {self.model.config.model_type!r}{f', quantised: {method}' if method else ''})"
        try:
            logits_NV = self.forward(zero, zero, slots, context)
        except (AttributeError, TypeError, RuntimeError, ImportError) as error:
            raise ModelError(f"{kind} cannot be run with fork and join: {first_line(error)}; choose another model") from error
        except ModelError as error:
            raise ModelError(f"{kind} cannot be run with fork and join: {error}") from None
        if context.repeated:
            raise ModelError(
                f"{kind} computes attention more than once in a layer, with keys and values that tree attention does not keep "
                f"apart: choose another model"
            )
        layers = int(self.model.config.get_text_config().num_hidden_layers)
        if len(context.layers) < layers:
            count = f"only {len(context.layers)}" if context.layers else "none"
            raise ModelError(
                f"{count} of the {layers} layers of {kind} use an attention that can be joined: "
                f"choose a model in which every layer does"
            )
        # Both are the same token at the same position, so all that is computed for them is the same, too.
        results = [logits_NV, *pool.key_SKD.values(), *pool.value_SKV.values()]
        if any(_far_apart(first, second) for first, second in results):
            raise ModelError(
                f"{kind} computes a token otherwise beside another text: it counts positions by itself, or has a state beside "
                f"its attention, and cannot be forked and joined; choose another model"
            )
        return pool.bytes_per_slot


def _far_apart(one: Tensor, two: Tensor) -> bool:
    """Whether two rows differ by more than rounding, also that of another place in a batch."""
    difference, size = (one.float() - two.float()).abs().max(), torch.maximum(one.float().abs().max(), two.float().abs().max())
    return bool(difference > 0.05 * size)
