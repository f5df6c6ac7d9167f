"""Groups of rollouts as packed rows. A prompt that rollouts of a group share stands once in a row; they are branches of it.

    prompt | answer 1 | answer 2 | ... | padding

Every answer attends to the prompt and to itself, as its own segments say, at the positions that it had in the engine; never to
another answer. Where something is predicted is given as a list of tokens, not as labels beside the tokens: the last token of a
prompt predicts the first token of every answer, and the first token of a path is predicted by the label before it.

Shape legend: B rows, L tokens in a row, S segments in a row, or different supports, T tokens with loss, K ids in supports, C
tokens of a stretch of those with loss, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ...attention.packed import BLOCK, Kind
from ...errors import DataError
from ..batch import SEGMENT_BUCKET, Batch
from ..features import pack
from .advantages import TrainingGroup
from .algorithms import Algorithm
from .loss import LossTokens
from .rollout import Rollout, Support

_EVERYTHING = Support((), allowed=False)


class Packing(NamedTuple):
    """How rollouts are put into rows and rows into batches.

    Attributes:
        pad_id: token id of padding.
        packed_length: most tokens of a row. A rollout that is longer with its prompt gets a row of its own.
        max_length: most tokens of a rollout with its prompt; `None` is no limit.
        micro_batch_size: rows of a batch.
        group_packing: whether rollouts of one group in one row share their prompt; otherwise each has its own copy of it.
        kind: as in `Visibility`; rows for block masks get few different shapes, since attention is compiled for each.
    """

    pad_id: int
    packed_length: int
    max_length: int | None = None
    micro_batch_size: int = 1
    group_packing: bool = True
    kind: Kind = "dense"


class Totals(NamedTuple):
    """Of all rollouts with loss in one update, those of other processes included: what makes sums means."""

    rollouts: int
    tokens: int

    @classmethod
    def of(cls, groups: Sequence[TrainingGroup]) -> Totals:
        """Those of these groups."""
        trained = [group.group.rollouts[index].num_sampled for group in groups for index in _with_loss(group)]
        return cls(len(trained), sum(trained))


@dataclass(frozen=True)
class Supports:
    """What could be drawn at each token with loss. The lists of ids, of which most are equal, are kept once.

    Attributes:
        of_T: number of the support of each token with loss, on the CPU.
        count_S, start_S: of each support how many ids it lists, and where they begin in `id_K`, on the CPU.
        listed_S: whether only the listed ids could be drawn; otherwise all others.
        id_K: the ids.
    """

    of_T: Tensor
    count_S: Tensor
    start_S: Tensor
    listed_S: Tensor
    id_K: Tensor

    @classmethod
    def of(cls, supports: Sequence[Support | None]) -> Supports:
        """Those of all tokens with loss; `None` where everything could be drawn."""
        known: dict[Support, int] = {}
        of_T = [known.setdefault(support or _EVERYTHING, len(known)) for support in supports]
        count_S = torch.tensor([len(support.token_ids) for support in known], dtype=torch.long)
        return cls(
            of_T=torch.tensor(of_T, dtype=torch.long),
            count_S=count_S,
            start_S=count_S.cumsum(0) - count_S,
            listed_S=torch.tensor([support.allowed for support in known], dtype=torch.bool),
            id_K=torch.tensor([token for support in known for token in support.token_ids], dtype=torch.long),
        )

    def banned(self, start: int, stop: int, vocabulary: int) -> Tensor | None:
        """What could not be drawn at the tokens with loss from `start` to `stop`, as bool [C, V]; `None` if all could."""
        of_C = self.of_T[start:stop]
        count_C = self.count_S[of_C]
        device = self.id_K.device
        # Ids of all these tokens one after another: whose they are, and where they stand in `id_K`.
        at_K = torch.arange(len(of_C)).repeat_interleave(count_C)
        if not len(at_K):
            return None
        place_K = torch.arange(len(at_K)) + (self.start_S[of_C] - count_C.cumsum(0) + count_C).repeat_interleave(count_C)
        at_K, listed_C = at_K.to(device), self.listed_S[of_C.to(device)]
        banned_CV = listed_C[:, None].expand(-1, vocabulary).clone()
        banned_CV[at_K, self.id_K[place_K.to(device)]] = ~listed_C[at_K]
        return banned_CV

    def to(self, device: torch.device | str) -> Supports:
        """On a device."""
        return replace(self, listed_S=self.listed_S.to(device), id_K=self.id_K.to(device))


@dataclass
class RolloutBatch:
    """Rows of rollouts, and their tokens with loss as flat tensors.

    Attributes:
        rows: as `training.batch.Batch`, without labels.
        row_T, column_T: the token whose logits predict each token with loss.
        target_T: the token that was drawn.
        temperature_T: the logits were divided by it.
        tokens: what the loss needs.
        supports: what could be drawn.
        rollouts: the rollouts, as `tokens.rollout_T` counts them.
        kind: as in `Visibility`.
    """

    rows: Batch
    row_T: Tensor
    column_T: Tensor
    target_T: Tensor
    temperature_T: Tensor
    tokens: LossTokens
    supports: Supports
    rollouts: list[Rollout]
    kind: Kind = "dense"

    def __len__(self) -> int:
        """Number of tokens with loss."""
        return len(self.target_T)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that are computed, padding left out."""
        return int((self.rows["documents"] >= 0).sum())

    def to(self, device: torch.device | str) -> Self:
        """On a device."""
        flat = {name: getattr(self, name).to(device) for name in ("row_T", "column_T", "target_T", "temperature_T")}
        tokens = LossTokens(*(value.to(device) if value is not None else None for value in self.tokens))  # type: ignore[arg-type]
        rows = {name: value.to(device) for name, value in self.rows.items()}
        return replace(self, rows=rows, tokens=tokens, supports=self.supports.to(device), **flat)


class _Document(NamedTuple):
    """Rollouts of one group that share a prompt in a row."""

    group: TrainingGroup
    members: tuple[int, ...]
    length: int


def make_batches(
    groups: Sequence[TrainingGroup], algorithm: Algorithm, packing: Packing, totals: Totals | None = None, at_least: int = 0
) -> list[RolloutBatch]:
    """Rows for the groups of one update, or one process's share of them.

    Args:
        totals: of the whole update where these are only a share of it.
        at_least: batches without tokens with loss make up this number, where every process has to compute as many.

    Raises:
        DataError: a rollout is longer than `Packing.max_length`, or the engine reported no log-probabilities of it.
    """
    totals = totals or Totals.of(groups)
    documents = [document for group in groups for document in _documents(group, packing)]
    rows = [[documents[at] for at in row] for row in pack([one.length for one in documents], packing.packed_length)]
    size = packing.micro_batch_size
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    parts += [[[]]] * (at_least - len(parts))
    return [_Builder(packing, algorithm, totals).build(part) for part in parts]


def _with_loss(group: TrainingGroup) -> list[int]:
    """Indices of the rollouts with loss."""
    pairs = zip(group.group.rollouts, group.trained, strict=True)
    return [index for index, (rollout, trained) in enumerate(pairs) if trained and rollout.num_sampled]


def _documents(group: TrainingGroup, packing: Packing) -> Iterator[_Document]:
    """The documents of a group: as many rollouts together as fit into a row beside their prompt."""
    members = _with_loss(group)
    lengths = [len(group.group.rollouts[index].generation.token_ids) for index in members]
    prompt = len(group.group.rollouts[0].generation.prompt_token_ids) if members else 0
    for index, length in zip(members, lengths, strict=True):
        if packing.max_length is not None and prompt + length > packing.max_length:
            raise DataError(
                f"rollout {index} of question {group.group.question.id!r} has {prompt + length:,} tokens with its prompt, more "
                f"than max_length={packing.max_length:,}: raise it, or lower the rollouts' max_tokens"
            )
    if not packing.group_packing:
        yield from (_Document(group, (index,), prompt + length) for index, length in zip(members, lengths, strict=True))
        return
    for row in pack(lengths, packing.packed_length - prompt):
        yield _Document(group, tuple(members[at] for at in row), prompt + sum(lengths[at] for at in row))


@dataclass
class _Row:
    """A row as it grows."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    prefixes: list[int] = field(default_factory=list)
    tables: list[Tensor] = field(default_factory=list)

    @property
    def num_segments(self) -> int:
        return sum(map(len, self.tables))

    def add(self, rollout: Rollout, here: slice, segments: dict[int, int], prefix: int = -1, *, new: bool = True) -> None:
        """Append tokens of a rollout.

        Args:
            here: which of its tokens.
            segments: their segments in the row.
            prefix: number of the document before this one; -1 for none.
            new: whether a document begins with them.
        """
        count = here.stop - here.start
        number = self.documents[-1] + new if self.documents else 0
        self.token_ids += rollout.token_ids[here]
        self.positions += rollout.positions[here]
        self.segments += [segments[segment] for segment in rollout.segments[here]]
        self.documents += [number] * count
        self.prefixes += [prefix] * count

    def fill(self, pad_id: int) -> None:
        """Two tokens that attend to each other, without loss: every weight has a gradient, if only 0.

        Processes exchange gradients weight by weight: one that has none would wait for ever.
        """
        self.token_ids, self.positions, self.segments = [pad_id] * 2, [0, 1], [0, 0]
        self.documents, self.prefixes, self.tables = [0, 0], [-1, -1], [torch.ones(1, 1, dtype=torch.uint8)]


class _Builder:
    """Makes one batch."""

    def __init__(self, packing: Packing, algorithm: Algorithm, totals: Totals) -> None:
        self.packing, self.algorithm, self.totals = packing, algorithm, totals
        self.places: list[tuple[int, int]] = []  # row and column, of each token with loss
        self.targets: list[int] = []
        self.values: list[tuple[float, float, float, float]] = []  # temperature, old, advantage, weight
        self.owners: list[int] = []
        self.supports: list[Support | None] = []
        self.rollouts: list[Rollout] = []

    def build(self, rows: Sequence[Sequence[_Document]]) -> RolloutBatch:
        built = []
        for index, documents in enumerate(rows):
            row = _Row()
            for document in documents:
                self._add_document(row, index, document)
            if not documents:
                row.fill(self.packing.pad_id)
            built.append(row)
        place_T2 = torch.tensor(self.places, dtype=torch.long).view(-1, 2)
        temperature_T, old_T, advantage_T, weight_T = torch.tensor(self.values, dtype=torch.float32).view(-1, 4).unbind(1)
        return RolloutBatch(
            rows=self._rows(built),
            row_T=place_T2[:, 0],
            column_T=place_T2[:, 1],
            target_T=torch.tensor(self.targets, dtype=torch.long),
            temperature_T=temperature_T,
            tokens=LossTokens(old_T, advantage_T, weight_T, torch.tensor(self.owners, dtype=torch.long)),
            supports=Supports.of(self.supports),
            rollouts=self.rollouts,
            kind=self.packing.kind,
        )

    def _add_document(self, row: _Row, index: int, document: _Document) -> None:
        """Append a prompt and the answers that share it."""
        rollouts = [document.group.group.rollouts[member] for member in document.members]
        first = rollouts[0]
        prompt = slice(0, len(first.generation.prompt_token_ids))
        assert prompt.stop, "the first token of an answer is predicted by the last one of its prompt"
        spans = [slice(prompt.stop, len(rollout.token_ids)) for rollout in rollouts]
        own = [_used(first, prompt), *(_used(rollout, span) for rollout, span in zip(rollouts, spans, strict=True))]
        base, start = row.num_segments, len(row.token_ids)
        numbers = []
        for segments in own:
            numbers.append({segment: base + at for at, segment in enumerate(segments)})
            base += len(segments)
        row.tables.append(_table(rollouts, own))
        row.add(first, prompt, numbers[0])
        shared = row.documents[-1]
        for member, rollout, span, known in zip(document.members, rollouts, spans, numbers[1:], strict=True):
            assert _same_prompt(first, rollout, prompt), "rollouts of a group have the same prompt"
            answer = len(row.token_ids)
            alone = len(rollouts) == 1
            row.add(rollout, span, known, -1 if alone else shared, new=not alone)
            columns = [
                (start if source < prompt.stop else answer - prompt.stop) + source for source in rollout.sources if source >= 0
            ]
            self._add_tokens(rollout, document.group, member, [(index, column) for column in columns])

    def _add_tokens(self, rollout: Rollout, group: TrainingGroup, member: int, places: list[tuple[int, int]]) -> None:
        """Append the tokens with loss of a rollout."""
        generation = rollout.generation
        drawn = [at for at, source in enumerate(rollout.sources) if source >= 0]
        assert len(drawn) == rollout.num_sampled, "tokens have a source exactly where they are sampled"
        logprobs = generation.logprobs or ()
        values = [logprobs[at] for at in drawn] if logprobs else []
        if not values or None in values:
            raise DataError(
                f"rollout {member} of question {group.group.question.id!r} comes without log-probabilities: sample it with "
                f"logprobs=True and logprobs_mode='processed_logprobs'"
            )
        weights = _weights(rollout, drawn, self.algorithm, self.totals)
        advantage = group.advantages[member]
        for value, weight in zip(values, weights, strict=True):
            assert value is not None
            self.values.append((rollout.temperature, value, advantage, weight))
        self.places += places
        self.targets += [generation.token_ids[at] for at in drawn]
        self.owners += [len(self.rollouts)] * len(drawn)
        for at in drawn:
            support = rollout.supports[at]
            if support is not None:
                assert (generation.token_ids[at] in support.token_ids) == support.allowed, "what was drawn could be drawn"
            self.supports.append(support)
        self.rollouts.append(rollout)

    def _rows(self, rows: Sequence[_Row]) -> Batch:
        """The rows as tensors, padded to the longest."""
        width = max(2, *(len(row.token_ids) for row in rows))
        size = max(row.num_segments for row in rows) + 1
        if self.packing.kind == "block":
            step = max(1, self.packing.packed_length // (8 * BLOCK)) * BLOCK
            width = -(-width // step) * step
            size = max(SEGMENT_BUCKET, 1 << (size - 1).bit_length())
        shape = (len(rows), width)
        batch = {
            "input_ids": torch.full(shape, self.packing.pad_id),
            "position_ids": torch.arange(width).repeat(len(rows), 1),
            "segments": torch.full(shape, size - 1),
            "documents": torch.full(shape, -1),
            "prefixes": torch.full(shape, -1),
            "visibility": torch.zeros((len(rows), size, size), dtype=torch.bool),
        }
        batch["visibility"][:, -1, -1] = True  # padding attends to padding, so that no softmax is empty
        for index, row in enumerate(rows):
            count = len(row.token_ids)
            lists = {"input_ids": row.token_ids, "position_ids": row.positions, "segments": row.segments}
            for name, values in {**lists, "documents": row.documents, "prefixes": row.prefixes}.items():
                batch[name][index, :count] = torch.tensor(values, dtype=torch.long)
            table_SS = torch.block_diag(*row.tables).bool()
            batch["visibility"][index, : len(table_SS), : len(table_SS)] = table_SS
        return batch


def _used(rollout: Rollout, here: slice) -> list[int]:
    """The segments of these tokens."""
    return sorted(set(rollout.segments[here]))


def _same_prompt(first: Rollout, other: Rollout, prompt: slice) -> bool:
    """Whether two rollouts have the same prompt with the same layout."""
    if first is other:
        return True
    known, found = ((one.token_ids[prompt], one.positions[prompt], one.segments[prompt]) for one in (first, other))
    return known == found and len(other.generation.prompt_token_ids) == prompt.stop


def _table(rollouts: Sequence[Rollout], own: Sequence[Sequence[int]]) -> Tensor:
    """Visibility of the segments of a prompt and of the answers that share it, in this order.

    Args:
        own: the segments of the prompt, and those of each answer, by the numbers that they have in the rollouts.
    """
    size = sum(map(len, own))
    table_SS = torch.zeros((size, size), dtype=torch.uint8)
    prompt = len(own[0])
    start = 0
    for rollout, segments in zip((rollouts[0], *rollouts), own, strict=True):
        known_SS = torch.tensor(rollout.visibility, dtype=torch.uint8)
        here = slice(start, start + len(segments))
        table_SS[here, :prompt] = known_SS[segments][:, list(own[0])]
        table_SS[here, here] = known_SS[segments][:, list(segments)]
        start = here.stop
    return table_SS


def _weights(rollout: Rollout, drawn: Sequence[int], algorithm: Algorithm, totals: Totals) -> list[float]:
    """Factor of each token of a rollout in the loss."""
    match algorithm.loss_aggregation:
        case "token-mean":
            return [1 / totals.tokens] * len(drawn)
        case "constant":
            assert algorithm.loss_divisor is not None, "Algorithm.bound says what the divisor is"
            return [1 / (totals.rollouts * algorithm.loss_divisor)] * len(drawn)
        case "sequence-mean":
            return [1 / (totals.rollouts * len(drawn))] * len(drawn)
        case "branch-mean":
            start = len(rollout.generation.prompt_token_ids)
            branches = [rollout.segments[start + at] for at in drawn]
            counts = Counter(branches)
            return [1 / (totals.rollouts * len(counts) * counts[branch]) for branch in branches]
