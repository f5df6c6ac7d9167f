"""From rows of a data set to rows of tokens, in the order in which a run shows them. No torch here.

Every document is looked at once, in both forms, before training starts: its length decides which row it goes into, and what
is wrong with it is known with its file and line. Only lengths are kept; features are made again when a row is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..data import Fault, Row, check
from ..errors import MultiverseError
from ..prompting import Mode
from ..structure import twin
from .features import Features, Featurizer, pack
from .mixture import Shown


class Example(NamedTuple):
    """One row of the data set, in both forms.

    Attributes:
        lengths: tokens in each form.
        learned: tokens that take loss in each form.
    """

    row: Row
    lengths: dict[Mode, int]
    learned: dict[Mode, int]


class Corpus:
    """Examples that can be shown in either form.

    Args:
        instruct: whether the prompt ends with the sentence that asks for a form.
        modes: the forms that the run shows; the others are never made.
    """

    def __init__(self, featurizer: Featurizer, *, instruct: bool = True, modes: Iterable[Mode] = ("parallel", "sequential")):
        self.featurizer, self.instruct, self.modes = featurizer, instruct, tuple(modes)
        self.examples: list[Example] = []

    def __len__(self) -> int:
        return len(self.examples)

    def add(self, row: Row, longest: int) -> Fault | None:
        """Take in a row, or say what is wrong with it.

        Args:
            longest: longest document in tokens, prompt included.
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
            if len(found[mode]) > longest:
                return Fault(
                    row.source,
                    row.line,
                    f"{len(found[mode])} tokens in {mode} form are over the length limit of {longest}: "
                    f"raise length, or shorten or leave out the document",
                )
        lengths = {mode: len(features) for mode, features in found.items()}
        self.examples.append(Example(row, lengths, {mode: features.learned for mode, features in found.items()}))
        return None

    def features(self, shown: Shown) -> Features:
        """The features of an example in one form."""
        return self._features(self.examples[shown.example].row, shown.mode)

    def _features(self, row: Row, mode: Mode) -> Features:
        document = row.document if mode == "parallel" else row.sequential or twin(row.document)
        prompt = [message._asdict() for message in row.prompt]
        return self.featurizer(prompt, document, mode if self.instruct else None)


class Plan(NamedTuple):
    """The rows of a whole run, in order.

    Attributes:
        rows: which examples share each row; the last step is filled up with empty rows.
        steps: number of updates.
        tokens: tokens shown, without padding.
        learned: tokens that take loss.
    """

    rows: list[list[Shown]]
    steps: int
    tokens: int
    learned: int


def plan(corpus: Corpus, shown: Iterable[Shown], row_length: int | None, batch: int, max_steps: int | None = None) -> Plan:
    """Rows for a run.

    Args:
        shown: examples in the order in which they come.
        row_length: tokens in a row of packed documents; `None` gives every document a row of its own.
        batch: rows a step.
        max_steps: the run ends here at the latest.
    """
    items = list(shown)
    lengths = [corpus.examples[item.example].lengths[item.mode] for item in items]
    packed: Sequence[Sequence[int]] = [[i] for i in range(len(items))] if row_length is None else pack(lengths, row_length)
    rows = [[items[i] for i in row] for row in packed]
    if max_steps is not None:
        rows = rows[: max_steps * batch]
    steps = -(-len(rows) // batch)
    rows += [[] for _ in range(steps * batch - len(rows))]
    chosen = [(corpus.examples[item.example], item.mode) for row in rows for item in row]
    return Plan(
        rows,
        steps,
        sum(example.lengths[mode] for example, mode in chosen),
        sum(example.learned[mode] for example, mode in chosen),
    )


class PlannedRows:
    """The rows of a plan as a data set: `rows[i]` is a list of features.

    Args:
        features: makes the features of an example.
    """

    def __init__(self, rows: Sequence[Sequence[Shown]], features: Callable[[Shown], Features]) -> None:
        self.rows, self.features = rows, features

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Features]:
        return [self.features(shown) for shown in self.rows[index]]
