"""A transformers model's layers in seven kernels each, in place, for decoding on a GPU.

A layer of Qwen2 takes 36 operators a step, of which four have weights to read: queries, keys and values are one product,
gate and up another, and what stands between is taken along by them (see `fused_kernels.py`). The modules stay as they are
and where they are; only their forward is replaced, and their weights become views of the joined ones.

What a layer computes is not guessed from its name: a replacement has to give what the original gives, keys and values
included, to rounding, for one row, a few, and many, or the original stays.

Shape legend: N rows of the forward, E hidden size, F numbers that a product gives, H query heads, K key/value heads, D head
size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..attention.tree import Bucket, KVPool, SdpaBackend, TreeContext
from ..attention.triton_decode import begins_early
from ..errors import ExtraError

_MOST = 16
"""Rows up to which our own kernels compute the products; beyond, cuBLAS."""
_LARGE = 1 << 14
"""Output numbers from which programs of few of them are enough for the whole device."""
_BLOCK = 1024
_LARGEST_NORM = 1 << 15
_TRIALS = (1, 5, _MOST + 1)

_log = logging.getLogger(__name__)


class Tile(NamedTuple):
    """How a kernel of products is cut: output and input numbers that a program takes at a time, warps, stages."""

    block_f: int
    block_e: int
    warps: int
    stages: int


# The fastest of a dozen on an H100, on the shapes of Qwen2.5 (docs/cuda.md).
_ONE, _ONE_LONG = Tile(8, 512, 4, 3), Tile(2, 2048, 8, 3)
_FEW, _FEW_LARGE = Tile(64, 128, 4, 4), Tile(16, 256, 2, 4)


def _kernels() -> Any:
    try:
        from . import fused_kernels
    except ImportError:
        raise ExtraError("triton", "cuda") from None
    return fused_kernels


class Norm(NamedTuple):
    """An RMSNorm."""

    weight_E: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> Norm | None:
        """That of a module, if it looks like one; what it really computes is for a trial to show."""
        weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor) or not isinstance(epsilon, float):
            return None
        if weight.dim() != 1 or weight.numel() > _LARGEST_NORM or not weight.is_contiguous():
            return None
        return cls(weight, epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        x_NE = x.contiguous()
        out, size = torch.empty_like(x_NE), self.weight_E.numel()
        padded = _power(size)
        early = begins_early(x_NE.numel() // size, x.device)
        _kernels().rms_norm[(x_NE.numel() // size,)](
            *(x_NE, self.weight_E, out, self.epsilon),
            SIZE=size,
            PADDED=padded,
            EARLY=early,
            num_warps=min(16, max(1, padded // 512)),
            enable_fp_fusion=True,
            launch_pdl=early,
        )
        return out


class Product:
    """A product with weights, and what stands before and behind it.

    Args:
        weight_FE: with a gate, its rows are those of the gate and then as many of what is gated.
        norm: of its input.
        gated: whether the result is ``silu(a) * b`` of the two halves.
    """

    def __init__(self, weight_FE: Tensor, bias_F: Tensor | None, norm: Norm | None = None, *, gated: bool = False) -> None:
        self.weight_FE, self.bias_F, self.norm, self.gated = weight_FE, bias_F, norm, gated
        self.out, self.size = weight_FE.shape[0] // (2 if gated else 1), weight_FE.shape[1]

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The result for all rows, `residual_NF` added, which may be written over."""
        rows = len(x_NE)
        if rows == 1:
            return self._one(x_NE, residual_NF)
        x_NE = x_NE if self.norm is None else self.norm(x_NE)
        if rows <= _MOST:
            return self._few(x_NE, residual_NF)
        if residual_NF is not None and self.bias_F is None:
            return residual_NF.addmm_(x_NE, self.weight_FE.t())
        both = linear(x_NE, self.weight_FE, self.bias_F)
        out = self._gate(both) if self.gated else both
        return out if residual_NF is None else out.add_(residual_NF)

    def _one(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        tile, norm = _ONE_LONG if self.size > 2 * self.out else _ONE, self.norm
        out_NF, early = x_NE.new_empty(1, self.out), begins_early(1, x_NE.device)
        _kernels().product_of_one[self._programs(tile)](
            *(x_NE, self.weight_FE),
            self.weight_FE if self.bias_F is None else self.bias_F,  # what is not there is not read either
            self.weight_FE if norm is None else norm.weight_E,
            self.weight_FE if residual_NF is None else residual_NF,
            out_NF,
            1.0 if norm is None else norm.epsilon,
            **self._constants(tile, residual_NF),
            NORMED=norm is not None,
            EARLY=early,
            launch_pdl=early,
        )
        return out_NF

    def _few(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        large = self.size > 2 * self.out or len(self.weight_FE) >= _LARGE
        tile = _FEW_LARGE if large else _FEW
        out_NF = x_NE.new_empty(len(x_NE), self.out)
        _kernels().product_of_few[self._programs(tile)](
            *(x_NE, self.weight_FE),
            self.weight_FE if self.bias_F is None else self.bias_F,
            self.weight_FE if residual_NF is None else residual_NF,
            *(out_NF, len(x_NE)),
            **self._constants(tile, residual_NF),
        )
        return out_NF

    def _programs(self, tile: Tile) -> tuple[int]:
        return (-(-len(self.weight_FE) // tile.block_f),)

    def _constants(self, tile: Tile, residual_NF: Tensor | None) -> dict[str, Any]:
        return {
            "SIZE": self.size,
            "OUT": self.out,
            "BIASED": self.bias_F is not None,
            "GATED": self.gated,
            "ADDED": residual_NF is not None,
            "BLOCK_F": tile.block_f,
            "BLOCK_E": tile.block_e,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            "enable_fp_fusion": True,
        }

    def _gate(self, both_NF: Tensor) -> Tensor:
        out_NF = both_NF.new_empty(len(both_NF), self.out)
        early = begins_early(len(both_NF), both_NF.device)
        _kernels().gate[(len(both_NF), -(-self.out // _BLOCK))](
            *(both_NF, out_NF),
            OUT=self.out,
            BLOCK=_BLOCK,
            EARLY=early,
            num_warps=4,
            enable_fp_fusion=True,
            launch_pdl=early,
        )
        return out_NF


class Heads(NamedTuple):
    """The heads of an attention, and how they are normed, scaled and bounded."""

    heads: int
    kv_heads: int
    size: int
    query_norm: Norm | None
    key_norm: Norm | None
    scale: float
    window: int | None


class FusedLayer:
    """The forward of a decoder layer whose attention and MLP follow each other: Llama's, Mistral's, Qwen's.

    Attributes:
        number: which layer it is.
        heads: of its attention.
        qkv, out, gate_up, down: its products.
    """

    def __init__(self, number: int, heads: Heads, qkv: Product, out: Product, gate_up: Product, down: Product) -> None:
        self.number, self.heads = number, heads
        self.qkv, self.out, self.gate_up, self.down = qkv, out, gate_up, down

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        position_embeddings: tuple[Tensor, Tensor],
        tree_context: TreeContext,
        **__: Any,
    ) -> Tensor:
        """As the layer's own, of `hidden_states` [1, N, E]."""
        x_NE = hidden_states[0]
        query_NHD = self._rotate_and_store(self.qkv(x_NE), position_embeddings, tree_context)
        seen_NHD = tree_context.backend.attend(query_NHD, self.number, tree_context, self.heads.scale, self.heads.window)
        x_NE = self.out(seen_NHD.flatten(1), x_NE)
        x_NE = self.down(self.gate_up(x_NE), x_NE)
        return x_NE[None]

    def _rotate_and_store(self, qkv_NF: Tensor, angles: tuple[Tensor, Tensor], context: TreeContext) -> Tensor:
        heads, kv_heads, size, query_norm, key_norm = self.heads[:5]
        context.layers.add(self.number)
        key_SKD, value_SKD = context.pool.layer(self.number, (kv_heads, size), (kv_heads, size), qkv_NF)
        query_NHD = qkv_NF.new_empty(len(qkv_NF), heads, size)
        cos_ND, sin_ND = angles[0][0].contiguous(), angles[1][0].contiguous()
        early = begins_early(len(qkv_NF), qkv_NF.device)
        _kernels().rotate_and_store[(len(qkv_NF), heads + 2 * kv_heads)](
            *(qkv_NF, cos_ND, sin_ND),
            qkv_NF if query_norm is None else query_norm.weight_E,
            qkv_NF if key_norm is None else key_norm.weight_E,
            *(context.slot_N, query_NHD, key_SKD, value_SKD),
            1.0 if query_norm is None else query_norm.epsilon,
            HEADS=heads,
            KV_HEADS=kv_heads,
            SIZE=size,
            HALF=_power(size // 2),
            NORMED=query_norm is not None,
            EARLY=early,
            num_warps=1,
            enable_fp_fusion=True,
            launch_pdl=early,
        )
        return query_NHD


def fuse(model: nn.Module) -> int:
    """Replace the forward of every layer and norm for which ours gives the same; returns how many.

    The model's attention has to be ours already (`attention.tree.register`).

    Raises:
        ExtraError: Triton is not installed.
    """
    _kernels()
    changed = 0
    for module in list(model.modules()):
        if hasattr(module, "self_attn") and hasattr(module, "mlp"):
            changed += _fuse_layer(module)
    for module in model.modules():
        norm = Norm.of(module)
        if norm is not None and _same_norm(module, norm):
            module.forward = norm.__call__
            changed += 1
    return changed


@torch.inference_mode()
def _fuse_layer(layer: nn.Module) -> bool:
    """Make this layer's forward that of a `FusedLayer`, if it gives the same."""
    try:
        trials = [_Trial(layer, rows) for rows in _TRIALS]
        fused = _read(layer, trials[0])
        if fused is None:
            return False
        for trial in trials:
            trial.compare(fused)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        _log.info("%s is left as it is: %s", type(layer).__name__, error)
        return False
    _join(fused.qkv, [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj])
    _join(fused.gate_up, [layer.mlp.gate_proj, layer.mlp.up_proj])
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


def _read(layer: Any, trial: _Trial) -> FusedLayer | None:
    """What a layer of the usual names would be, fused; `None` if it has other ones."""
    attention, mlp = layer.self_attn, layer.mlp
    attention_names, mlp_names = (set(dict(module.named_children())) for module in (attention, mlp))
    products = [getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    products += [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if any(type(product) is not nn.Linear for product in products) or len(mlp_names) != 4:  # the fourth is the activation
        return None
    norms = [Norm.of(layer.input_layernorm), Norm.of(layer.post_attention_layernorm)]
    head_norms: list[Norm | None] = [None, None]
    if {"q_norm", "k_norm"} <= attention_names:
        head_norms = [Norm.of(attention.q_norm), Norm.of(attention.k_norm)]
        norms += head_norms
    if any(norm is None for norm in norms) or len(attention_names) != 4 + (2 if head_norms[0] else 0):
        return None
    q, k, v, o, gate, up, down = products
    size = int(attention.head_dim)
    backend = trial.backend
    heads = Heads(q.weight.shape[0] // size, k.weight.shape[0] // size, size, *head_norms, backend.scale, backend.window)
    return FusedLayer(
        backend.number,
        heads,
        Product(_cat(q.weight, k.weight, v.weight), _cat(q.bias, k.bias, v.bias), norms[0]),
        Product(o.weight, o.bias),
        Product(_cat(gate.weight, up.weight), _cat(gate.bias, up.bias), norms[1], gated=True),
        Product(down.weight, down.bias),
    )


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
def _same_norm(module: Callable[[Tensor], Any], norm: Norm) -> bool:
    generator = torch.Generator().manual_seed(0)
    x_NE = torch.randn(8, norm.weight_E.numel(), generator=generator) * torch.logspace(-4, 1, 8)[:, None]
    x_NE = x_NE.to(norm.weight_E.device, norm.weight_E.dtype)
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


def _power(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()
