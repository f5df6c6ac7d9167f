"""The probe finds what is there, finds nothing where nothing is, and never sees the documents it is judged on."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from multiverse.attention.dense import dense_inputs
from multiverse.errors import DataError, ModelError
from multiverse.evaluation.analysis import probing
from multiverse.evaluation.analysis.cases import from_tasks
from multiverse.evaluation.analysis.intervals import share
from multiverse.evaluation.analysis.probe import Examples, balanced, by_suffix, folds, probe
from multiverse.evaluation.analysis.probing import ProbeReport, run_probe
from multiverse.evaluation.analysis.sites import Marked, Marker
from multiverse.evaluation.analysis.states import Reader, open_reader
from multiverse.evaluation.statistics import wilson
from multiverse.structure import resolve

DOCUMENTS, EACH = 80, 4


def examples(labels: list[bool] | None = None) -> Examples:
    """Balanced examples, four a document, two of each label unless told otherwise."""
    group = [number for number in range(DOCUMENTS) for _ in range(EACH)]
    label = labels if labels is not None else [bool(index % 2) for index in range(len(group))]
    return Examples(torch.tensor(label), tuple(group), torch.tensor(folds(group, label, 0)))


def noise(seed: int) -> Tensor:
    return torch.randn(DOCUMENTS * EACH, 16, generator=torch.Generator().manual_seed(seed))


def test_a_planted_signal_is_found() -> None:
    own = examples()
    state_ND = noise(0)[:, :4]
    # Whether two coordinates have the same sign: no linear probe would find it.
    state_ND[:, 3] = state_ND[:, 3].abs() * torch.where(own.label_N, 1, -1) * state_ND[:, 1].sign()
    accuracy = share(probe(state_ND, own), own.group)
    assert accuracy.value > 0.85
    assert accuracy.low > 0.75


def test_noise_is_at_chance() -> None:
    own = examples()
    found = [share(probe(noise(seed), own), own.group) for seed in range(3)]
    assert all(0.4 < one.value < 0.6 for one in found)
    assert sum(one.low < 0.5 < one.high for one in found) >= 2


def test_features_of_documents_do_not_leak_between_folds() -> None:
    """With labels drawn per document, a probe that had seen the document could recognise it. It has not."""
    rng = Random(1)
    per_document = [rng.random() < 0.5 for _ in range(DOCUMENTS)]
    own = examples([label for label in per_document for _ in range(EACH)])
    fingerprint_ND = noise(2).view(DOCUMENTS, EACH, 16)[:, :1].expand(-1, EACH, -1).reshape(-1, 16)
    accuracy = share(probe(fingerprint_ND, own), own.group)
    assert accuracy.low < 0.5 < accuracy.high
    # The same with folds that cut through documents: this is the leak that the split by document stops.
    leaky = Examples(own.label_N, own.group, torch.arange(len(own)) % 5)
    assert share(probe(fingerprint_ND, leaky)).value > 0.9


def test_folds_keep_documents_together() -> None:
    group = [Random(number).randrange(40) for number in range(300)]
    label = [number < 10 for number in group]  # ten documents of nothing but positive examples
    fold = folds(group, label, seed=3)
    assert {
        sum(f == number for f in {g: f for g, f in zip(group, fold, strict=True) if g < 10}.values()) for number in fold
    } == {2}
    assert {len({f for f, own in zip(fold, group, strict=True) if own == one}) for one in group} == {1}
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert folds(group, label, seed=3) == fold != folds(group, label, seed=4)
    with pytest.raises(ValueError, match="4 documents"):
        folds([1, 2, 3, 4], [True] * 4, 0)


def test_examples_are_balanced_in_every_fold() -> None:
    labels = [Random(number).random() < 0.2 for number in range(500)]
    fold = folds([number // 3 for number in range(500)], labels, seed=0)
    kept = balanced(labels, fold, seed=0)
    for number in range(5):
        own = [labels[index] for index in kept if fold[index] == number]
        assert len(own) == 2 * sum(label for label, f in zip(labels, fold, strict=True) if f == number) == 2 * sum(own)
    assert kept == sorted(set(kept)) == balanced(labels, fold, seed=0)


def test_probing_leaves_the_random_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    probe(noise(0), examples(), steps=2)
    assert torch.rand(1) == expected


def test_last_tokens() -> None:
    own = examples()
    told = [(index % 7, int(label)) for index, label in enumerate(own.label_N.tolist())]
    assert all(by_suffix(told, own))
    # A longer suffix goes before a shorter one, and what was never seen falls back on a shorter one.
    longer = [(index, *suffix) for index, suffix in enumerate(told)]
    assert all(by_suffix(longer, own))
    assert share(by_suffix([(1, 2)] * len(own), own)).value == 0.5
    assert share(by_suffix([(index,) for index in range(len(own))], own)).value == 0.5


def test_intervals_have_nominal_coverage() -> None:
    """Documents that resemble themselves: 40 of them with 5 answers each, each document with a share of its own."""
    rng, hits, naive = Random(0), 0, 0
    for _ in range(600):
        right, group = [], []
        for number in range(40):
            own = rng.betavariate(1.4, 0.6)  # 0.7 on average
            right += [rng.random() < own for _ in range(5)]
            group += [number] * 5
        found = share(right, group)
        hits += found.low <= 0.7 <= found.high
        alone = share(right)
        naive += alone.low <= 0.7 <= alone.high
    assert 0.92 < hits / 600 < 0.975
    assert naive / 600 < 0.85  # what it would be without looking at documents


def test_intervals_at_the_edges() -> None:
    assert wilson(0.5, 10, 1.959964) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Newcombe 1998, method 3
    every = share([True] * 50, [index // 5 for index in range(50)])
    assert (every.value, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(wilson(1.0, 10, 1.959964)[0])  # ten documents, not fifty answers
    assert math.isnan(share([]).value)


@pytest.fixture(scope="module")
def reader(model_folders: dict[str, Path]) -> Reader:
    return open_reader(model_folders["qwen3"])


def test_states_are_those_of_the_plain_model(reader: Reader) -> None:
    marker = Marker(reader.tokenizer, resolve(reader.tokenizer))
    case = from_tasks(["nested"], 1, seed=0)[0]
    marked = marker.mark(0, case, "parallel")
    state_SKD = reader.states(marked)
    output = reader.model(**dense_inputs(marked.token_ids, marked.layout), output_hidden_states=True)
    layers = reader.model.config.num_hidden_layers
    assert state_SKD.shape == (len(marked.sites), layers + 1, reader.model.config.hidden_size)
    for index, site in enumerate(marked.sites):
        for layer in range(layers + 1):
            torch.testing.assert_close(state_SKD[index, layer], output.hidden_states[layer][0, site.token])
    embeddings = reader.model.get_input_embeddings().weight
    torch.testing.assert_close(state_SKD[0, 0], embeddings[marked.token_ids[marked.sites[0].token]])
    with pytest.raises(ModelError, match="at most"):
        reader._replace(longest=20).states(marked)


class Planted:
    """A reader whose second layer knows, and whose first does not."""

    path, longest = "planted", 10_000

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)

    def states(self, marked: Marked) -> Tensor:
        state_SKD = torch.randn(len(marked.sites), 2, 8, generator=self.random)
        state_SKD[:, 1, 0] += torch.tensor([4.0 if site.forks else -4.0 for site in marked.sites])
        return state_SKD


def test_a_whole_test(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[int], set[int]]] = []

    def watched(feature_ND: Tensor, own: Examples, *, seed: int = 0) -> list[bool]:
        for fold in own.fold_N.unique().tolist():
            here = {group for group, f in zip(own.group, own.fold_N.tolist(), strict=True) if f == fold}
            seen.append((here, set(own.group) - here))  # type: ignore[arg-type]
            assert not here & {group for group, f in zip(own.group, own.fold_N.tolist(), strict=True) if f != fold}
        return probe(feature_ND, own, seed=seed, steps=60)

    monkeypatch.setattr(probing, "probe", watched)
    told: list[tuple[str, int, int]] = []
    cases = from_tasks(["worksheet", "nested", "chain"], 8, seed=2)
    marker = Marker(reader.tokenizer, resolve(reader.tokenizer))
    report = run_probe(Planted(), cases, marker, on_step=lambda *step: told.append(step))  # type: ignore[arg-type]
    assert [text.mode for text in report.texts] == ["parallel", "sequential"]
    for text in report.texts:
        assert len(text.layers) == 2
        assert text.layers[1].value > 0.85
        assert text.layers[0].value < 0.75
        assert text.majority.value == 0.5
        assert text.last_tokens.value > 0.9  # these texts announce their forks, and the baseline says so
        assert text.examples == text.majority.n == text.position.n
    assert report.texts[0].examples == report.texts[1].examples
    assert seen
    assert told[-1][1] == told[-1][2]
    layers = ProbeReport.as_json(report)["texts"][0]["layers"]
    assert layers[1] == {"layer": 1, **asdict(report.texts[0].layers[1])}


def test_too_little_is_refused(reader: Reader) -> None:
    marker = Marker(reader.tokenizer, resolve(reader.tokenizer))
    with pytest.raises(DataError, match="3 documents"):
        run_probe(reader, from_tasks(["worksheet"], 3, seed=2), marker)
    with pytest.raises(DataError, match="0 of 8 places"):
        run_probe(reader, from_tasks(["chain"], 8, seed=2), marker)
    with pytest.raises(ValueError, match="n is 0"):
        from_tasks(["chain"], 0, seed=2)
