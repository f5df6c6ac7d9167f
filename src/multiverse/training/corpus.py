"""From rows of a data set to rows of tokens, in the order in which a run takes them. No torch.

Every document is tokenized once in each form before training starts: its length decides which row it goes into, and faults are
found with file and line. Only lengths are kept; features are made again when a row is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..data import Fault, Row, check
from ..errors import MultiverseError
from ..prompting import Mode
from ..structure import sequential_baseline
from .features import Features, Featurizer, pack
from .mixture import Variant


class Example(NamedTuple):
    """One row of the data set in both forms.

    Attributes:
        lengths: tokens in each form.
        loss_tokens: tokens with loss in each form.
    """

    row: Row
    lengths: dict[Mode, int]
    loss_tokens: dict[Mode, int]


class Corpus:
    """Examples in both forms.

    Args:
        instruct: whether the prompt ends with the sentence that asks for a form.
        modes: the forms that the run uses; others are not made.
    """

    def __init__(self, featurizer: Featurizer, *, instruct: bool = True, modes: Iterable[Mode] = ("parallel", "sequential")):
        self.featurizer, self.instruct, self.modes = featurizer, instruct, tuple(modes)
        self.examples: list[Example] = []

    def __len__(self) -> int:
        return len(self.examples)

    def add(self, row: Row, max_length: int) -> Fault | None:
        """Add a row, or return what is wrong with it.

        Args:
            max_length: most tokens of a document, prompt included.
        """
        faults = check([row], self.featurizer.tokens).faults
        if faults:
            return faults[0]
        found: dict[Mode, Features] = {}
        for mode in self.modes:
            try:
                found[mode] = self._features(row, mode)
            except (MultiverseError, ValueError) as error:
                return Fault(row.source, row.line, str(error))
            if len(found[mode]) > max_length:
                return Fault(
                    row.source,
                    row.line,
                    f"{len(found[mode])} tokens in {mode} form are over the limit max_length={max_length}: "
                    f"raise it, or shorten or leave out the document",
                )
        lengths = {mode: len(features) for mode, features in found.items()}
        self.examples.append(Example(row, lengths, {mode: features.num_loss_tokens for mode, features in found.items()}))
        return None

    def features(self, variant: Variant) -> Features:
        """The features of an example in one form."""
        return self._features(self.examples[variant.example].row, variant.mode)

    def _features(self, row: Row, mode: Mode) -> Features:
        document = row.document if mode == "parallel" else row.sequential or sequential_baseline(row.document)
        prompt = [message._asdict() for message in row.prompt]
        return self.featurizer(prompt, document, mode if self.instruct else None)


class RowSchedule(NamedTuple):
    """The rows of a whole run, in order.

    Attributes:
        rows: the examples of each row; the last step is filled up with empty rows.
        steps: number of optimizer steps.
        tokens: tokens over all rows, without padding.
        loss_tokens: tokens with loss over all rows.
    """

    rows: list[list[Variant]]
    steps: int
    tokens: int
    loss_tokens: int


def schedule_rows(
    corpus: Corpus, order: Iterable[Variant], row_length: int | None, batch_size: int, max_steps: int | None = None
) -> RowSchedule:
    """Arrange examples in rows, and rows in steps.

    Args:
        order: examples in the order in which they come.
        row_length: most tokens of a row of packed documents; `None` gives every document a row of its own.
        batch_size: rows per step.
        max_steps: the run ends after this many steps.
    """
    items = list(order)
    lengths = [corpus.examples[item.example].lengths[item.mode] for item in items]
    packed: Sequence[Sequence[int]] = [[i] for i in range(len(items))] if row_length is None else pack(lengths, row_length)
    rows = [[items[i] for i in row] for row in packed]
    if max_steps is not None:
        rows = rows[: max_steps * batch_size]
    steps = -(-len(rows) // batch_size)
    rows += [[] for _ in range(steps * batch_size - len(rows))]
    chosen = [(corpus.examples[item.example], item.mode) for row in rows for item in row]
    return RowSchedule(
        rows,
        steps,
        sum(example.lengths[mode] for example, mode in chosen),
        sum(example.loss_tokens[mode] for example, mode in chosen),
    )


class RowDataset:
    """Scheduled rows as a map-style data set: `dataset[i]` is the list of features of row i.

    Args:
        features: makes the features of an example.
    """

    def __init__(self, rows: Sequence[Sequence[Variant]], features: Callable[[Variant], Features]) -> None:
        self.rows, self.features = rows, features

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Features]:
        return [self.features(variant) for variant in self.rows[index]]
