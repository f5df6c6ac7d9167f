"""Decoder layers computed by few kernels, replaced in place.

A layer of Qwen2 runs 36 operators per step, of which four read weights: queries, keys and values are one linear layer, gate
and up another. The operators between are fused into them by a *kernel backend*: Triton on a GPU (`cuda/layers.py`), native
kernels on a CPU (`cpu/layers.py`). The modules stay where they are; only the layer's forward is replaced, and the modules'
weights become views of the concatenated ones.

What a layer computes is not guessed from its name: a replacement has to give the original's output, keys and values, up to
rounding, for one row, a few, and many; otherwise the original stays.

Shape legend: N rows of the forward, E hidden size, F outputs of a linear layer, H query heads, K key/value heads, D head size,
S slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .base import ForwardContext
from .buckets import Bucket
from .cpu.quantised_linears import QuantisedLinear
from .cpu.quantised_weight import QuantisedWeight, concatenated
from .kv_pool import KVPool
from .plain import is_plain_linear
from .torch import TorchBackend

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj"}

_log = logging.getLogger(__name__)


class FusedLinear(Protocol):
    """A linear layer with the norm of its input, its bias, a gate and a residual.

    Attributes:
        weight_FE: with a gate, the rows of the gate followed by the rows of what is gated.
    """

    weight_FE: Any  # a tensor, or on a CPU a `QuantisedWeight`
    bias_F: Tensor | None

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The output for all rows, plus `residual_NF`, which may be overwritten."""
        ...


class RotaryInput(NamedTuple):
    """Arguments of `KernelBackend.rotate_and_store`: queries, keys and values of the rows, and where the results go.

    Attributes:
        qkv_NF: per row all query heads, then all key heads, then all value heads.
        query_norm, key_norm: the kernel backend's norms of a head; `None` without.
    """

    qkv_NF: Tensor
    cos_ND: Tensor
    sin_ND: Tensor
    query_norm: Any
    key_norm: Any
    slot_N: Tensor
    query_NHD: Tensor
    key_SKD: Tensor
    value_SKV: Tensor


class KernelBackend(Protocol):
    """The kernels that a fused layer is computed with.

    Attributes:
        trial_rows: numbers of rows with which a replacement is compared to the original: one per way of computing a linear.
    """

    trial_rows: tuple[int, ...]

    def norm(self, module: Any) -> Any:
        """A replacement of a norm, as a function of its input; `None` for other modules."""
        ...

    def linear(self, weight_FE: Any, bias_F: Tensor | None, norm: Any = None, *, gated: bool = False) -> FusedLinear:
        """A linear layer, the norm of its input, and whether the output is ``silu(a) * b`` of the two halves.

        Args:
            weight_FE: a tensor; on a CPU also a `QuantisedWeight`.
        """
        ...

    def rotate_and_store(self, given: RotaryInput) -> None:
        """Normalise and rotate queries and keys, and write keys and values to their slots."""
        ...


class Heads(NamedTuple):
    """The heads of an attention, their norms, the scale of scores and the sliding window."""

    heads: int
    kv_heads: int
    size: int
    query_norm: Any
    key_norm: Any
    scale: float
    window: int | None


class Linears(NamedTuple):
    """The four linear layers of a decoder layer."""

    qkv: FusedLinear
    out: FusedLinear
    gate_up: FusedLinear
    down: FusedLinear


class FusedLayer:
    """The forward of a decoder layer with attention followed by an MLP (Llama, Mistral, Qwen)."""

    def __init__(self, kernels: KernelBackend, number: int, heads: Heads, linears: Linears) -> None:
        self.kernels, self.number, self.heads, self.linears = kernels, number, heads, linears

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        position_embeddings: tuple[Tensor, Tensor],
        tree_context: ForwardContext,
        **__: Any,
    ) -> Tensor:
        """As the layer's own forward, with `hidden_states` [1, N, E]."""
        linears, heads, x_NE = self.linears, self.heads, hidden_states[0]
        query_NHD = self._rotate_and_store(linears.qkv(x_NE), position_embeddings, tree_context)
        attended_NHD = tree_context.backend.attend(query_NHD, self.number, tree_context, heads.scale, heads.window)
        x_NE = linears.out(attended_NHD.flatten(1), x_NE)
        x_NE = linears.down(linears.gate_up(x_NE), x_NE)
        return x_NE[None]

    def _rotate_and_store(self, qkv_NF: Tensor, angles: tuple[Tensor, Tensor], context: ForwardContext) -> Tensor:
        heads, kv_heads, size, query_norm, key_norm = self.heads[:5]
        context.layers.add(self.number)
        pools = context.pool.layer(self.number, (kv_heads, size), (kv_heads, size), qkv_NF)
        query_NHD = qkv_NF.new_empty(len(qkv_NF), heads, size)
        cos_ND, sin_ND = angles[0][0].contiguous(), angles[1][0].contiguous()
        self.kernels.rotate_and_store(
            RotaryInput(qkv_NF, cos_ND, sin_ND, query_norm, key_norm, context.slot_N, query_NHD, *pools)
        )
        return query_NHD


def fuse_layers(model: nn.Module, kernels: KernelBackend) -> int:
    """Replace the forward of every layer for which the kernels give the same; returns the number of layers replaced.

    The model has to use tree attention already (`attention.tree.register`).
    """
    layers = [module for module in model.modules() if hasattr(module, "self_attn") and hasattr(module, "mlp")]
    return sum(_fuse_layer(layer, kernels) for layer in layers)


def fuse_norms(model: nn.Module, kernels: KernelBackend) -> int:
    """Replace the forward of every norm for which the kernels give the same; returns the number of norms replaced."""
    replaced = 0
    for module in model.modules():
        norm = kernels.norm(module)
        if norm is not None and _same_norm(module, norm):
            module.forward = norm.__call__
            replaced += 1
    return replaced


@torch.inference_mode()
def _fuse_layer(layer: Any, kernels: KernelBackend) -> bool:
    """Replace this layer's forward by that of a `FusedLayer`, if it gives the same."""
    try:
        trials = [_Trial(layer, rows) for rows in kernels.trial_rows]
        fused = _read_layer(layer, kernels, trials[0].backend)
        if fused is None:
            return False
        for trial in trials:
            trial.compare(fused)
        _compare_mlp(layer.mlp, fused)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        _log.info("%s is left as it is: %s", type(layer).__name__, error)
        return False
    _share_weights(fused.linears.qkv, [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj])
    _share_weights(fused.linears.gate_up, [layer.mlp.gate_proj, layer.mlp.up_proj])
    torch.cuda.empty_cache()  # the old weights' memory does not fit the next layer's, and the KV pool needs it
    layer.forward = fused.forward
    return True


class _RecordingBackend(TorchBackend):
    """Torch's attention; records the arguments it was called with."""

    number = -1
    scale = 0.0
    window: int | None = None

    def attend(self, query_NHD: Tensor, layer: int, context: ForwardContext, scale: float, window: int | None) -> Tensor:
        self.number, self.scale, self.window = layer, scale, window
        return super().attend(query_NHD, layer, context, scale, window)


class _Trial:
    """A layer's own output, keys and values for rows from tiny to large, each of which reads those before it."""

    def __init__(self, layer: Any, rows: int) -> None:
        weight, size = layer.self_attn.q_proj.weight, int(layer.self_attn.head_dim)
        generator = torch.Generator().manual_seed(rows)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(weight.device, weight.dtype)

        scales_N1 = torch.logspace(-3, 0, rows)[:, None].to(weight.device, weight.dtype)
        self.x = (normal(rows, weight.shape[1]) * scales_N1)[None]
        self.angles = normal(1, rows, size), normal(1, rows, size)
        self.backend = _RecordingBackend(weight.device)
        self.pool, self.expected = self._run(layer)

    def _run(self, forward: Callable[..., Any]) -> tuple[KVPool, Tensor]:
        rows = self.x.shape[1]
        order = torch.arange(rows, device=self.x.device)
        visible = torch.ones(1, rows, rows, dtype=torch.bool, device=self.x.device).tril()
        bucket = Bucket(order[None], order[None], visible, None, order[None], order[None])
        pool = KVPool(rows)
        context = ForwardContext(pool, self.backend, order, [bucket])
        out = forward(self.x.clone(), attention_mask=None, position_embeddings=self.angles, tree_context=context)
        if not isinstance(out, Tensor):
            raise TypeError("it returns more than hidden states")
        return pool, out

    def compare(self, fused: FusedLayer) -> None:
        """Raise ValueError if a replacement gives something else."""
        pool, found = self._run(fused.forward)
        number = self.backend.number
        same = {
            "hidden states": _near(found, self.expected, self.expected - self.x),
            "keys": _near(pool.key_SKD[number], self.pool.key_SKD[number]),
            "values": _near(pool.value_SKV[number], self.pool.value_SKV[number]),
        }
        if differing := [what for what, alike in same.items() if not alike]:
            raise ValueError(f"fused, its {', '.join(differing)} differ for {self.x.shape[1]} rows")


def _compare_mlp(mlp: Any, fused: FusedLayer) -> None:
    """Raise ValueError if the MLP differs: after a norm, numbers may be too small to tell activations apart."""
    gate_up = fused.kernels.linear(fused.linears.gate_up.weight_FE, fused.linears.gate_up.bias_F, gated=True)
    x_NE = _normal(gate_up.weight_FE, gate_up.weight_FE.shape[1], 1.3)
    if not _near(fused.linears.down(gate_up(x_NE)), mlp(x_NE)):
        raise ValueError("fused, its MLP differs")


def _read_layer(layer: Any, kernels: KernelBackend, recorded: _RecordingBackend) -> FusedLayer | None:
    """The fused form of a layer whose modules have the usual names; `None` for others."""
    attention, mlp = layer.self_attn, layer.mlp
    names = [set(dict(module.named_children())) for module in (attention, mlp)]
    normed = {"q_norm", "k_norm"} <= names[0]
    if not names[0] >= _ATTENTION or not names[1] >= _MLP:
        return None
    if len(names[0]) != len(_ATTENTION) + 2 * normed or len(names[1]) != len(_MLP) + 1:  # + 1: the activation
        return None
    if not all(_is_readable(module) for name, module in layer.named_modules() if name.endswith("_proj")):
        return None
    first, second = kernels.norm(layer.input_layernorm), kernels.norm(layer.post_attention_layernorm)
    query_norm, key_norm = (kernels.norm(attention.q_norm), kernels.norm(attention.k_norm)) if normed else (None, None)
    if first is None or second is None or (normed and (query_norm is None or key_norm is None)):
        return None
    q, k, v, gate, up = attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj
    size = int(attention.head_dim)
    shape = len(q.weight) // size, len(k.weight) // size, size
    linears = Linears(
        qkv=kernels.linear(_cat(q.weight, k.weight, v.weight), _cat(q.bias, k.bias, v.bias), first),
        out=kernels.linear(attention.o_proj.weight, attention.o_proj.bias),
        gate_up=kernels.linear(_cat(gate.weight, up.weight), _cat(gate.bias, up.bias), second, gated=True),
        down=kernels.linear(mlp.down_proj.weight, mlp.down_proj.bias),
    )
    heads = Heads(*shape, query_norm, key_norm, recorded.scale, recorded.window)
    return FusedLayer(kernels, recorded.number, heads, linears)


def _is_readable(module: nn.Module) -> bool:
    return is_plain_linear(module) or isinstance(module, QuantisedLinear)


def _cat(*parts: Any) -> Any:
    """All parts concatenated, or `None` if they are."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], QuantisedWeight):
        return concatenated(parts)
    with torch.inference_mode(mode=False), torch.no_grad():  # a model that is trained may hold views of them
        return torch.cat(parts)


def _share_weights(fused: FusedLinear, modules: list[Any]) -> None:
    """Let the modules' parameters be views of the fused layer's weights."""
    sizes = [len(module.weight) for module in modules]
    for module, weight in zip(modules, fused.weight_FE.split(sizes), strict=True):
        if isinstance(module, QuantisedLinear):
            module.weight = weight
        else:
            module.weight.data = weight
    if fused.bias_F is not None:
        for module, bias in zip(modules, fused.bias_F.split(sizes), strict=True):
            module.bias.data = bias


@torch.inference_mode()
def _same_norm(module: Any, norm: Callable[[Tensor], Tensor]) -> bool:
    x_NE = _normal(module.weight, module.weight.numel(), 1)
    try:
        expected = module(x_NE)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(expected, Tensor) and _near(norm(x_NE), expected)


def _normal(like: Tensor, size: int, largest: float) -> Tensor:
    """Eight rows of normal numbers, from 1e-4 to 10**`largest` in size."""
    x_NE = torch.randn(8, size, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, largest, 8)[:, None]
    return x_NE.to(like.device, like.dtype)


def _near(found: Tensor, expected: Tensor, change: Tensor | None = None) -> bool:
    """Equal up to rounding, relative to the largest number of each row of `expected`, or of `change` if that was computed."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    allowed = 1e-4 if expected.dtype == torch.float32 else 2**-5
    peak = (expected if change is None else change).float().abs().amax(-1, keepdim=True)
    rounding = torch.finfo(expected.dtype).eps * expected.float().abs()
    return bool(((found.float() - expected.float()).abs() <= allowed * peak + rounding).all())
