"""A transformers model's layers with little between their products, in place, for decoding.

A layer of Qwen2 takes 36 operators a step, of which four have weights to read: queries, keys and values are one product,
gate and up another. What stands between is taken along by the kernels of a *kit*: Triton's on a GPU (`products.py`), native
ones on a CPU (`cpu/layers.py`). The modules stay as they are and where they are; only the layer's forward is replaced, and
their weights become views of the joined ones.

What a layer computes is not guessed from its name: a replacement has to give what the original gives, keys and values
included, to rounding, for one row, a few, and many, or the original stays.

Shape legend: N rows of the forward, E hidden size, F numbers that a product gives, H query heads, K key/value heads, D head
size, S slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..attention.tree import Bucket, KVPool, SdpaBackend, TreeContext

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj"}

_log = logging.getLogger(__name__)


class Product(Protocol):
    """A product with weights, and what stands before and behind it.

    Attributes:
        weight_FE: its weights; with a gate, those of the gate and then as many of what is gated.
    """

    weight_FE: Tensor
    bias_F: Tensor | None

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The result for all rows, `residual_NF` added, which may be written over."""
        ...


class Turn(NamedTuple):
    """Queries, keys and values of the rows, what turns them, and where they go.

    Attributes:
        qkv_NF: all heads of a row: of its query, its key, its value.
        query_norm, key_norm: norms of a head, of the kit's own; `None` if there are none.
    """

    qkv_NF: Tensor
    cos_ND: Tensor
    sin_ND: Tensor
    query_norm: Any
    key_norm: Any
    slot_N: Tensor
    query_NHD: Tensor
    key_SKD: Tensor
    value_SKD: Tensor


class Kit(Protocol):
    """What a device computes a layer with.

    Attributes:
        trials: rows of the trials: each way of computing a product once.
    """

    trials: tuple[int, ...]

    def norm(self, module: Any) -> Any:
        """What stands for a norm, a function of its input; `None` for other modules."""
        ...

    def product(self, weight_FE: Tensor, bias_F: Tensor | None, norm: Any = None, *, gated: bool = False) -> Product:
        """A product, with the norm of its input, and whether the result is ``silu(a) * b`` of the two halves."""
        ...

    def rotate_and_store(self, turn: Turn) -> None:
        """Norm and rotate queries and keys, and put keys and values into their slots."""
        ...


class Heads(NamedTuple):
    """The heads of an attention, and how they are normed, scaled and bounded."""

    heads: int
    kv_heads: int
    size: int
    query_norm: Any
    key_norm: Any
    scale: float
    window: int | None


class Parts(NamedTuple):
    """The four products of a layer."""

    qkv: Product
    out: Product
    gate_up: Product
    down: Product


class FusedLayer:
    """The forward of a decoder layer whose attention and MLP follow each other: Llama's, Mistral's, Qwen's.

    Attributes:
        kit: what it is computed with.
        number: which layer it is.
        heads: of its attention.
        parts: its products.
    """

    def __init__(self, kit: Kit, number: int, heads: Heads, parts: Parts) -> None:
        self.kit, self.number, self.heads, self.parts = kit, number, heads, parts

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        position_embeddings: tuple[Tensor, Tensor],
        tree_context: TreeContext,
        **__: Any,
    ) -> Tensor:
        """As the layer's own, of `hidden_states` [1, N, E]."""
        parts, heads, x_NE = self.parts, self.heads, hidden_states[0]
        query_NHD = self._rotate_and_store(parts.qkv(x_NE), position_embeddings, tree_context)
        seen_NHD = tree_context.backend.attend(query_NHD, self.number, tree_context, heads.scale, heads.window)
        x_NE = parts.out(seen_NHD.flatten(1), x_NE)
        x_NE = parts.down(parts.gate_up(x_NE), x_NE)
        return x_NE[None]

    def _rotate_and_store(self, qkv_NF: Tensor, angles: tuple[Tensor, Tensor], context: TreeContext) -> Tensor:
        heads, kv_heads, size, query_norm, key_norm = self.heads[:5]
        context.layers.add(self.number)
        pools = context.pool.layer(self.number, (kv_heads, size), (kv_heads, size), qkv_NF)
        query_NHD = qkv_NF.new_empty(len(qkv_NF), heads, size)
        cos_ND, sin_ND = angles[0][0].contiguous(), angles[1][0].contiguous()
        self.kit.rotate_and_store(Turn(qkv_NF, cos_ND, sin_ND, query_norm, key_norm, context.slot_N, query_NHD, *pools))
        return query_NHD


def fuse_layers(model: nn.Module, kit: Kit) -> int:
    """Replace the forward of every layer for which the kit gives the same; returns how many.

    The model's attention has to be ours already (`attention.tree.register`).
    """
    layers = [module for module in model.modules() if hasattr(module, "self_attn") and hasattr(module, "mlp")]
    return sum(_fuse_layer(layer, kit) for layer in layers)


def fuse_norms(model: nn.Module, kit: Kit) -> int:
    """Replace the forward of every norm for which the kit gives the same; returns how many."""
    changed = 0
    for module in model.modules():
        norm = kit.norm(module)
        if norm is not None and _same_norm(module, norm):
            module.forward = norm.__call__
            changed += 1
    return changed


@torch.inference_mode()
def _fuse_layer(layer: Any, kit: Kit) -> bool:
    """Make this layer's forward that of a `FusedLayer`, if it gives the same."""
    try:
        trials = [_Trial(layer, rows) for rows in kit.trials]
        fused = _read(layer, kit, trials[0].backend)
        if fused is None:
            return False
        for trial in trials:
            trial.compare(fused)
        _compare_mlp(layer.mlp, fused)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        _log.info("%s is left as it is: %s", type(layer).__name__, error)
        return False
    _join(fused.parts.qkv, [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj])
    _join(fused.parts.gate_up, [layer.mlp.gate_proj, layer.mlp.up_proj])
    torch.cuda.empty_cache()  # what the weights were before is of no use to the next layer's, and the KV pool wants the room
    layer.forward = fused.forward
    return True


class _Listening(SdpaBackend):
    """Torch's attention, which tells how it was called."""

    number = -1
    scale = 0.0
    window: int | None = None

    def attend(self, query_NHD: Tensor, layer: int, context: TreeContext, scale: float, window: int | None) -> Tensor:
        self.number, self.scale, self.window = layer, scale, window
        return super().attend(query_NHD, layer, context, scale, window)


class _Trial:
    """A layer's own output, keys and values for some rows, from tiny to large, each of which sees those before it."""

    def __init__(self, layer: Any, rows: int) -> None:
        weight, size = layer.self_attn.q_proj.weight, int(layer.self_attn.head_dim)
        generator = torch.Generator().manual_seed(rows)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(weight.device, weight.dtype)

        scales_N1 = torch.logspace(-3, 0, rows)[:, None].to(weight.device, weight.dtype)
        self.x = (normal(rows, weight.shape[1]) * scales_N1)[None]
        self.angles = normal(1, rows, size), normal(1, rows, size)
        self.backend = _Listening()
        self.pool, self.expected = self._run(layer)

    def _run(self, forward: Callable[..., Any]) -> tuple[KVPool, Tensor]:
        rows = self.x.shape[1]
        order = torch.arange(rows, device=self.x.device)
        visible = torch.ones(1, rows, rows, dtype=torch.bool, device=self.x.device).tril()
        bucket = Bucket(order[None], order[None], visible, None, order[None], order[None])
        pool = KVPool(rows)
        context = TreeContext(pool, self.backend, order, [bucket])
        out = forward(self.x.clone(), attention_mask=None, position_embeddings=self.angles, tree_context=context)
        if not isinstance(out, Tensor):
            raise TypeError("it gives more than hidden states")
        return pool, out

    def compare(self, fused: FusedLayer) -> None:
        """Raise `ValueError` if a replacement gives something else."""
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
    """Raise `ValueError` if the MLP is another one: behind a norm, numbers may be too small to tell activations apart."""
    gate_up = fused.kit.product(fused.parts.gate_up.weight_FE, fused.parts.gate_up.bias_F, gated=True)
    weight, generator = gate_up.weight_FE, torch.Generator().manual_seed(0)
    x_NE = torch.randn(8, weight.shape[1], generator=generator) * torch.logspace(-4, 1.3, 8)[:, None]
    x_NE = x_NE.to(weight.device, weight.dtype)
    if not _near(fused.parts.down(gate_up(x_NE)), mlp(x_NE)):
        raise ValueError("fused, its MLP differs")


def _read(layer: Any, kit: Kit, heard: _Listening) -> FusedLayer | None:
    """What a layer of the usual names would be, fused; `None` if it has other ones."""
    attention, mlp = layer.self_attn, layer.mlp
    names = [set(dict(module.named_children())) for module in (attention, mlp)]
    normed = {"q_norm", "k_norm"} <= names[0]
    if not names[0] >= _ATTENTION or not names[1] >= _MLP:
        return None
    if len(names[0]) != len(_ATTENTION) + 2 * normed or len(names[1]) != len(_MLP) + 1:  # the one more is the activation
        return None
    if any(type(module) is not nn.Linear for name, module in layer.named_modules() if name.endswith("_proj")):
        return None
    first, second = kit.norm(layer.input_layernorm), kit.norm(layer.post_attention_layernorm)
    query_norm, key_norm = (kit.norm(attention.q_norm), kit.norm(attention.k_norm)) if normed else (None, None)
    if first is None or second is None or (normed and (query_norm is None or key_norm is None)):
        return None
    q, k, v, gate, up = attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj
    size = int(attention.head_dim)
    shape = len(q.weight) // size, len(k.weight) // size, size
    parts = Parts(
        qkv=kit.product(_cat(q.weight, k.weight, v.weight), _cat(q.bias, k.bias, v.bias), first),
        out=kit.product(attention.o_proj.weight, attention.o_proj.bias),
        gate_up=kit.product(_cat(gate.weight, up.weight), _cat(gate.bias, up.bias), second, gated=True),
        down=kit.product(mlp.down_proj.weight, mlp.down_proj.bias),
    )
    return FusedLayer(kit, heard.number, Heads(*shape, query_norm, key_norm, heard.scale, heard.window), parts)


def _cat(*parts: Any) -> Any:
    """All parts in one, or `None` where they are."""
    return None if parts[0] is None else torch.cat(parts)


def _join(product: Product, modules: list[Any]) -> None:
    """Let the modules hold views of the product's weights instead of their own."""
    sizes = [len(module.weight) for module in modules]
    for module, weight in zip(modules, product.weight_FE.split(sizes), strict=True):
        module.weight = nn.Parameter(weight, requires_grad=False)
    if product.bias_F is not None:
        for module, bias in zip(modules, product.bias_F.split(sizes), strict=True):
            module.bias = nn.Parameter(bias, requires_grad=False)


@torch.inference_mode()
def _same_norm(module: Any, norm: Callable[[Tensor], Tensor]) -> bool:
    weight, generator = module.weight, torch.Generator().manual_seed(0)
    x_NE = torch.randn(8, weight.numel(), generator=generator) * torch.logspace(-4, 1, 8)[:, None]
    x_NE = x_NE.to(weight.device, weight.dtype)
    try:
        expected = module(x_NE)
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(expected, Tensor) and _near(norm(x_NE), expected)


def _near(found: Tensor, expected: Tensor, change: Tensor | None = None) -> bool:
    """Equal to rounding, measured by the largest number of each row; of `change`, if that is what was computed."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    allowed = 1e-4 if expected.dtype == torch.float32 else 2**-5
    peak = (expected if change is None else change).float().abs().amax(-1, keepdim=True)
    rounding = torch.finfo(expected.dtype).eps * expected.float().abs()
    return bool(((found.float() - expected.float()).abs() <= allowed * peak + rounding).all())
