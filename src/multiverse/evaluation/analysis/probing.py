"""The probing test: do a model's hidden states predict that a fork is about to start?

A two-layer perceptron per layer is trained at places where a block may stand (see `sites`). The paper (arXiv 2506.09991) did so
for pretrained autoregressive models on sequential traces, and found 48 to 57%, chance, at every depth.

Hidden states contain what the text gives away, so every probe is reported with two baselines: one that knows the position, and
one that knows the last tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from ...prompting import Mode
from .cases import Case
from .intervals import Share, share
from .probe import Examples, balanced, by_suffix, folds, probe
from .sites import Marked, Marker
from .states import Reader

SUFFIX = 4
"""Tokens of the baseline of last tokens."""


@dataclass(frozen=True)
class TextReport:
    """Results on one kind of text.

    Attributes:
        mode: ``parallel``: structured texts; ``sequential``: the same without blocks.
        texts: texts that hold examples.
        examples: places judged, half of them in front of a fork.
        layers: accuracy of the probe of each layer; layer 0 are the embeddings.
        majority: always saying the same: half, by construction.
        position: a probe on the position only, absolute and from the start of the answer.
        last_tokens: prediction from the last tokens only (see `by_suffix`).
    """

    mode: Mode
    texts: int
    examples: int
    layers: tuple[Share, ...]
    majority: Share
    position: Share
    last_tokens: Share


@dataclass(frozen=True)
class ProbeReport:
    """The probing test of one model.

    Attributes:
        at, within: where the question was put, as in `Marker`.
        cases: number of questions, each with one text of each kind.
        groups: families, or the data set.
    """

    model: str
    at: str
    within: int
    cases: int
    groups: tuple[str, ...]
    seed: int
    texts: tuple[TextReport, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain objects."""
        plain: dict[str, Any] = {
            **asdict(self),
            "groups": list(self.groups),
            "within": self.within if self.at == "token" else None,
        }
        for text in plain["texts"]:
            text["layers"] = [{"layer": number, **accuracy} for number, accuracy in enumerate(text["layers"])]
        return plain


def run_probe(
    reader: Reader,
    cases: Sequence[Case],
    marker: Marker,
    *,
    modes: Sequence[Mode] = ("parallel", "sequential"),
    seed: int = 0,
    on_step: Callable[[str, int, int], None] | None = None,
) -> ProbeReport:
    """Read every case in every form, and probe every layer.

    Args:
        modes: which forms; a model without tags has only the sequential one.
        on_step: called with the name of a step, and how many of its items are done, of how many.

    Raises:
        DataError: there are too few places in front of forks, or too few documents.
        ModelError: a text is too long for the model.
    """
    report = on_step if on_step is not None else lambda _step, _done, _total: None
    reports = []
    for mode in modes:
        marked = [marker.mark(number, case, mode) for number, case in enumerate(cases)]
        reports.append(_probe_texts(reader, [text for text in marked if text.sites], mode, seed, report))
    groups = tuple(dict.fromkeys(case.group for case in cases))
    return ProbeReport(reader.path, marker.at, marker.within, len(cases), groups, seed, tuple(reports))


def _probe_texts(
    reader: Reader, marked: Sequence[Marked], mode: Mode, seed: int, report: Callable[[str, int, int], None]
) -> TextReport:
    places = [(number, site) for number, text in enumerate(marked) for site in range(len(text.sites))]
    labels = [marked[number].sites[site].forks for number, site in places]
    documents = [marked[number].case for number, _ in places]
    try:
        fold = folds(documents, labels, seed)
    except ValueError as error:
        raise DataError(str(error)) from None
    kept = balanced(labels, fold, seed)
    if len({fold[index] for index in kept}) < len(set(fold)):
        raise DataError(
            f"{sum(labels)} of {len(labels)} places are in front of a fork: there must be some of both kinds in every fold, "
            f"so take more questions, of families that fork and of such that do not"
        )
    examples = Examples(
        torch.tensor([labels[index] for index in kept]),
        tuple(documents[index] for index in kept),
        torch.tensor([fold[index] for index in kept]),
    )
    chosen = [places[index] for index in kept]
    state_NKD = _read(reader, marked, chosen, report)
    layers = []
    for layer in range(state_NKD.shape[1]):
        layers.append(share(probe(state_NKD[:, layer], examples, seed=seed), examples.group))
        report(f"probing {mode} texts, layer by layer", layer + 1, state_NKD.shape[1])
    where = [(marked[number], marked[number].sites[site].token) for number, site in chosen]
    position_ND = torch.tensor([text.position(index) for text, index in where], dtype=torch.float32)
    position_ND = torch.cat([position_ND, (position_ND + 2).log()], 1)
    suffixes = [text.last_tokens(index, SUFFIX) for text, index in where]
    return TextReport(
        mode=mode,
        texts=len({number for number, _ in chosen}),
        examples=len(examples),
        layers=tuple(layers),
        majority=share([not label for label in examples.label_N.tolist()], examples.group),
        position=share(probe(position_ND, examples, seed=seed), examples.group),
        last_tokens=share(by_suffix(suffixes, examples), examples.group),
    )


def _read(
    reader: Reader, marked: Sequence[Marked], chosen: Sequence[tuple[int, int]], report: Callable[[str, int, int], None]
) -> Tensor:
    """`state_NKD` of the chosen places; each text is read once."""
    wanted: dict[int, list[int]] = {}
    for number, site in chosen:
        wanted.setdefault(number, []).append(site)
    rows = []
    for done, (number, sites) in enumerate(wanted.items(), 1):  # in the order of `chosen`, which is sorted by text
        rows.append(reader.states(marked[number])[sites])
        report("reading texts", done, len(wanted))
    return torch.cat(rows)
