"""A model that is trained, and decodes in between with the weights that it has then.

The engine gets modules of its own over the very parameters that are trained: a copy of the tree of modules, without a copy of
the weights. So training keeps the original forward, its attention, its mode and its hooks, and whatever is replaced for
decoding (attention, fused layers, native kernels) is replaced in the copy alone. An optimizer changes parameters in place, and
the engine sees it.

Weights that are sharded over processes (FSDP2) are gathered into a whole copy when decoding begins, parameter by parameter and
in the type that is decoded with, and this copy is freed when decoding ends. It is then that weights are held twice.

What is concatenated for fused layers is shared the other way round: the trained parameters become views of it. What is packed
is a second copy, made again after each update (`PolicyOptions.packed_linears`).

Shape legend: N rows of a forward, E hidden size, V vocabulary, R rows of the vocabulary that are trained beside adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from ...attention.joinable import check_joinable
from ...backends import release, select_for
from ...engine.engine import EngineOptions
from ...engine.model import LoadedModel
from ...engine.model import prepare as prepare_model
from ...errors import ModelError
from ...families import AUTO, Family
from ...llm import LLM
from ...structure import TokenDialect


class PolicyOptions(EngineOptions, total=False):
    """How a policy decodes: the engine's options, and these.

    Attributes:
        packed_linears: use faster layers. In bfloat16 they read the trained weights themselves, fused or not, on a CPU with
            native kernels as on a GPU; in float32 on a CPU they are a second copy of the weights. `None` does so where it takes
            no copy.
        deterministic: as in `LLM`.
        share: decode with the trained parameters; otherwise with a copy, which is made anew when decoding begins, so that
            training may go on meanwhile.
        dtype: of that copy; `None` is that of the weights.
        sharded: the weights will be sharded over the processes when training begins. Every process has to enter `decoding`.
    """

    packed_linears: bool | None
    deterministic: bool
    share: bool
    dtype: torch.dtype | None
    sharded: bool


class _Pair(NamedTuple):
    """A trained parameter, and the tensor that the engine reads."""

    trained: nn.Parameter
    own: Tensor


class Policy:
    """One model that decodes and trains.

        policy = Policy(model, tokenizer, tokens)
        with policy.decoding() as llm:              # the engine, with KV memory
            llm.chat(...)
        loss(model, ...).backward(); optimizer.step()   # the memory is free again; `model` was never touched

    Args:
        model: what is trained: a transformers model, or one with adapters around it, whose weights are then used unmerged.
            It may be moved to another device, or wrapped for training, afterwards.
        tokenizer: its tokenizer.
        tokens: its dialect.
        name: what it is called in messages.
        preset, instruction: how it is asked, as in `LLM.of`.
        options: how it decodes.

    Attributes:
        model, tokenizer, tokens: as given.
        sleeping: whether it does not decode now.

    Raises:
        ModelError: the model cannot be trained with fork and join, or its dialect joins otherwise than by keys and values.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        tokens: TokenDialect,
        *,
        name: str = "policy",
        preset: Family | str = AUTO,
        instruction: str | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        self.model, self.tokenizer, self.tokens, self.name = model, tokenizer, tokens, name
        self._asked: dict[str, Any] = {"preset": preset, "instruction": instruction}
        self._packed = options.pop("packed_linears", None)
        self._deterministic = options.pop("deterministic", False)
        self._dtype = options.pop("dtype", None)
        sharded = options.pop("sharded", False)
        self._share = options.pop("share", True) and self._dtype is None and not sharded
        self._engine: dict[str, Any] = dict(options)
        check_joinable(self._inner.config, name)
        if (join := tokens.dialect.join) != "kv":
            raise ModelError(
                f"{name!r} joins by {join}: its branches read paths again, which rollouts for training cannot say; use "
                f"join='kv'"
            )
        # Modules that are sharded cannot be copied any more, so a copy without weights is made now.
        self._structure = _hollow(self._inner) if sharded else None
        self._llm: LLM | None = None
        self._parameters: list[nn.Parameter] = []
        self._pairs: list[_Pair] = []
        self._freed: list[tuple[torch.UntypedStorage, int]] = []  # memory of the gathered copy, and its size in bytes
        self.sleeping = True

    @property
    def _inner(self) -> Any:
        """The transformers model: with adapters, the one inside of them, with their layers."""
        base = getattr(self.model, "get_base_model", None)
        return base() if base is not None else self.model

    @property
    def llm(self) -> LLM:
        """The engine, which sleeps but within `decoding`. There is none before that was first entered."""
        assert self._llm is not None
        return self._llm

    @contextmanager
    def decoding(self) -> Iterator[LLM]:
        """Context in which the engine runs over the weights as they are now, with memory for keys and values.

        The weights must not be changed within, unless the engine has a copy of them (`share`). Where it is entered again
        within, it is the same engine.
        """
        if not self.sleeping:
            yield self.llm
            return
        llm = self._wake_up()
        self.sleeping = False
        try:
            yield llm
        finally:
            self.sleeping = True
            llm.engine.sleep()
            for storage, _ in self._freed:
                storage.resize_(0)
            release()

    def _wake_up(self) -> LLM:
        if self._llm is None or not self._current():
            self._llm = None  # before another is made
            self._llm = self._build()
        else:
            self._refresh()
            self._llm.engine.wake_up()
        return self._llm

    def _current(self) -> bool:
        """Whether the engine's tensors are still those of the parameters: these may have been moved, or replaced."""
        parameters = list(self._inner.parameters())
        if len(parameters) != len(self._parameters):
            return False
        same = all(one is other for one, other in zip(parameters, self._parameters, strict=True))
        return same and (not self._share or all(_same_memory(*pair) for pair in self._pairs))

    @torch.no_grad()
    def weights(self, *, trained: bool = False) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
        """Every parameter of the transformers model with its name, and all of its values in the type that is decoded with.

        Where they are sharded, they are gathered one by one, and every process has to iterate.

        Args:
            trained: only those that are trained.
        """
        for name, parameter in self._inner.named_parameters():
            if parameter.requires_grad or not trained:
                yield name, parameter, _whole(parameter, self._dtype)

    @torch.no_grad()
    def _refresh(self) -> None:
        """Copy again what the engine has copies of."""
        for storage, size in self._freed:
            storage.resize_(size)
        if not self._share:
            for trained, own in self._pairs:
                own.copy_(_whole(trained, own.dtype) if _is_sharded(trained) else trained)
        self.llm.engine.loaded.backend.refresh()

    def _build(self) -> LLM:
        """The engine, over modules of its own."""
        inner = self._inner
        self._parameters = list(inner.parameters())
        owned = [_owned(parameter, share=self._share, dtype=self._dtype) for parameter in self._parameters]
        loaded = self._load(_shadow(self._structure if self._structure is not None else inner, owned))
        self._pairs = [_Pair(trained, own) for trained, own in zip(self._parameters, owned, strict=True)]
        for trained, own in self._pairs if self._share else ():
            if not _same_memory(trained, own):
                trained.data = own.data  # a view of what was concatenated
        if any(_is_sharded(trained) for trained in self._parameters):
            storages = {own.untyped_storage().data_ptr(): own.untyped_storage() for own in owned}
            self._freed = [(storage, storage.nbytes()) for storage in storages.values()]
        return LLM.of(loaded, dialect=self.tokens.dialect, **self._asked, **self._engine)

    def _load(self, shadow: Any) -> LoadedModel:
        parameter = next(shadow.parameters())
        device, dtype = parameter.device, parameter.dtype
        packed = self._packed if self._packed is not None else dtype != torch.float32 or device.type != "cpu"
        backend = select_for(shadow.config, device, dtype, packed_linears=packed, deterministic=self._deterministic)
        backend.updatable = True
        return prepare_model(shadow, self.tokenizer, self.name, backend)


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.device == other.device and one.stride() == other.stride()


def _is_sharded(parameter: Tensor) -> bool:
    return hasattr(parameter, "full_tensor")  # a DTensor


def _whole(parameter: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The values of a parameter, in this type; those that are sharded are gathered."""
    values = parameter.detach()
    values = values.to(dtype) if dtype is not None else values
    gathered: Tensor = values.full_tensor() if _is_sharded(values) else values  # type: ignore[attr-defined]  # a DTensor's
    return gathered


def _owned(parameter: nn.Parameter, *, share: bool, dtype: torch.dtype | None) -> nn.Parameter:
    """A parameter of the engine's modules, over the memory of a trained one or a copy of it."""
    if _is_sharded(parameter):
        return nn.Parameter(_whole(parameter, dtype).clone(), requires_grad=False)
    if type(parameter) is not nn.Parameter:  # quantised by a library, and not trained
        return parameter
    values = parameter.detach()
    return nn.Parameter(values if share else values.to(dtype or values.dtype, copy=True), requires_grad=False)


def _hollow(model: nn.Module) -> nn.Module:
    """A copy of a model's modules whose parameters have no values."""
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, dict(empty))


def _shadow(model: Any, owned: Sequence[nn.Parameter]) -> Any:
    """A copy of a model's modules with these parameters in place of its own, in their order."""
    memo = {id(parameter): own for parameter, own in zip(model.parameters(), owned, strict=True)}
    shadow = copy.deepcopy(model, dict(memo))
    device = next(iter(owned)).device
    for module in shadow.modules():  # those of a copy that was made before the model was moved
        module._buffers.update({name: tensor.to(device) for name, tensor in module._buffers.items() if tensor is not None})
    for module in shadow.modules():
        # What training hangs on modules: casts around the forward, inputs with gradients, shards.
        for name in ("forward", "_original_forward"):
            module.__dict__.pop(name, None)
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks):
            hooks.clear()
    _unwrap_rows(shadow)
    return shadow


def _unwrap_rows(model: nn.Module) -> None:
    """Replace peft's embeddings with trained rows, which write the whole table anew in every forward."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if type(module).__name__ == "TrainableTokensWrapper" and (rows := _trained_rows(module)) is not None:
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, rows)


def _trained_rows(wrapper: Any) -> nn.Module | None:
    """The replacement of one; `None` if it is of a kind that is not known here."""
    layer = wrapper.token_adapter
    if len(layer.active_adapters) != 1 or layer.merged or layer.disable_adapters:
        return None
    (adapter,) = layer.active_adapters
    rows, delta_RE = layer.token_indices[adapter], layer.trainable_tokens_delta[adapter]
    if type(layer.base_layer) is nn.Embedding:
        return TrainedEmbedding(layer.base_layer, rows, delta_RE)
    if type(layer.base_layer) is nn.Linear and getattr(layer.base_layer, "bias", None) is None:
        return TrainedHead(layer.base_layer, rows, delta_RE)
    return None


class TrainedEmbedding(nn.Module):
    """An embedding of which some rows are taken from another table."""

    def __init__(self, base: nn.Embedding, rows: list[int], delta_RE: Tensor) -> None:
        super().__init__()
        self.base, self.delta_RE = base, delta_RE
        place_V = torch.full((base.num_embeddings,), -1, device=delta_RE.device)
        place_V[rows] = torch.arange(len(rows), device=delta_RE.device)
        self.register_buffer("place_V", place_V, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The table without these rows, for those who ask for its type or device."""
        return self.base.weight

    def forward(self, token: Tensor) -> Tensor:
        """Embeddings ``[..., E]``."""
        assert isinstance(self.place_V, Tensor)
        place = self.place_V[token]
        own = self.delta_RE.to(self.base.weight.dtype)[place.clamp(min=0)]
        embedded: Tensor = self.base(token)
        return torch.where((place >= 0)[..., None], own, embedded)


class TrainedHead(nn.Module):
    """A linear layer of which some outputs are computed by rows of another table."""

    def __init__(self, base: nn.Linear, rows: list[int], delta_RE: Tensor) -> None:
        super().__init__()
        self.base, self.delta_RE = base, delta_RE
        self.register_buffer("rows_R", torch.tensor(rows, device=delta_RE.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[..., V]``."""
        assert isinstance(self.rows_R, Tensor)
        logits: Tensor = self.base(x)
        return logits.index_copy(-1, self.rows_R, nn.functional.linear(x, self.delta_RE.to(x.dtype)))
