"""The fit, documents of a given parallelism, and a whole run with a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.documents import sized_document
from benchmarks.fit import fit
from benchmarks.latency import LABEL, Case, Measured, Run, Settings, measure, show
from benchmarks.latency_plot import draw
from benchmarks.options import add_settings, make_parser, settings_from
from benchmarks.shape import byte_tokenizer
from multiverse.structure import measure as shape_of
from multiverse.structure import resolve

TOKENS = resolve(byte_tokenizer())
TINY = Settings(
    repeats=2,
    contexts=(16, 40),
    parallelisms=(1.0, 1.5, 2.0),
    chain=96,
    batches=(1, 3),
    batch_parallelisms=(1.0, 1.5),
    batch_context=16,
)


def test_fit_returns_the_parameters_of_exact_points() -> None:
    xs = [1, 1.25, 1.5, 2, 3, 4, 6, 8]
    exact = fit(xs, [15.43 / x + 0.6 for x in xs])
    assert (exact.a, exact.b) == pytest.approx((15.43, 0.6))
    assert exact.r2 == pytest.approx(1)
    assert exact.at(2) == pytest.approx(15.43 / 2 + 0.6)
    assert math.isnan(fit([1, 2], [3, 2]).a_error)
    with pytest.raises(ValueError, match="two different"):
        fit([2, 2], [3, 4])


def test_standard_errors_of_the_fit_cover_repeated_experiments() -> None:
    rng, xs = Random(0), [1, 1.25, 1.5, 2, 3, 4, 6, 8]
    fits = [fit(xs, [10 / x + 2 + rng.gauss(0, 0.3) for x in xs]) for _ in range(400)]
    for value, error, truth in (("a", "a_error", 10), ("b", "b_error", 2)):
        inside = sum(abs(getattr(one, value) - truth) < getattr(one, error) * 2.447 for one in fits)  # t of 6 degrees, 95%
        assert 0.92 < inside / len(fits) < 0.98


@settings(max_examples=8)
@given(st.just(1.0) | st.floats(1.05, 8), st.integers(64, 200))
def test_a_sized_document_has_the_requested_parallelism(parallelism: float, chain: int) -> None:
    sized = sized_document(parallelism, chain, TOKENS)
    shape = shape_of(sized.document, TOKENS)
    assert (sized.tokens, sized.chain) == (shape.total_tokens + 1, shape.critical_path_tokens + 1)  # plus the end of the text
    assert sized.parallelism == pytest.approx(parallelism, rel=0.02)
    assert sized.chain >= 0.9 * chain
    assert shape.blocks == (parallelism > 1)


def test_a_sized_document_has_the_requested_chain_if_its_tags_fit() -> None:
    for parallelism in (1.0, 1.25, 1.5, 2.0, 3.0):
        assert sized_document(parallelism, 320, TOKENS).chain == pytest.approx(320, abs=2)
    for impossible in (0.9, 1.0001):
        with pytest.raises(ValueError, match="must be 1, or"):
            sized_document(impossible, 100, TOKENS)
    with pytest.raises(ValueError, match="64 paths"):
        sized_document(70, 100, TOKENS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(byte_tokenizer()), num_key_value_heads=2, bos_token_id=None, eos_token_id=None, **shape)
    path = tmp_path_factory.mktemp("latency") / "run.json"
    measured = measure(TINY, Qwen2ForCausalLM(config).eval(), path)
    assert Run.load(path) == measured
    return measured


def test_the_engine_counts_the_requested_parallelism(run: Run) -> None:
    assert len(run.cases) == 2 * 3 + 2 * 2
    for case, one in run.cases.items():
        assert one.parallelism == pytest.approx(case.asked, rel=0.02)
        assert len(one.seconds) == TINY.repeats
        # All tokens but the first ones, which are generated before the clock starts.
        sized = sized_document(case.asked, TINY.chain if case.part == "latency" else TINY.batch_chain, TOKENS)
        assert one.tokens == pytest.approx(case.batch * (sized.tokens - 1), abs=case.batch)
    assert set(run.fits()) == {16, 40}
    assert set(run.speedups()) == {case for case in run.cases if case.part == "batch"}


def test_speedups_divide_figures_of_one_repeat() -> None:
    sequential = Measured(1, 10, 10, 1.0, [1.0, 4.0])
    forked = Measured(2, 10, 20, 2.0, [1.0, 2.0])
    cases = {Case("batch", 8, 2, 1.0): sequential, Case("batch", 8, 2, 2.0): forked}
    assert Run("here", TINY, cases).speedups()[Case("batch", 8, 2, 2.0)] == [2.0, 4.0]


def test_output_json_and_plot_say_that_weights_are_random(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(run)
    assert LABEL in capsys.readouterr().out
    run.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["label"] == LABEL
    draw(run, tmp_path / "run.svg")
    svg = (tmp_path / "run.svg").read_text()
    assert "<svg" in svg
    assert "random weights, scripted structure" in svg


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-parallelisms", "1.5"], "batch_parallelisms must contain 1"),
        (["--clock", "cpu", "--device", "cuda"], "use clock=wall"),
        (["--chain", "0"], "chain=0 is not valid: it must be a whole number of 1 or more"),
    ],
)
def test_settings_on_the_command_line_are_checked(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = make_parser("A benchmark.")
    add_settings(parser, Settings)
    with pytest.raises(SystemExit):
        settings_from(parser, parser.parse_args(arguments), Settings())
    assert message in capsys.readouterr().err


def test_settings_of_the_command_line_replace_those_of_the_base() -> None:
    parser = make_parser("A benchmark.")
    add_settings(parser, Settings)
    options = parser.parse_args(["--contexts", "--batches", "1", "2", "--parallelisms", "1.5", "--clock", "cpu"])
    expected = Settings(repeats=2, contexts=(), batches=(1, 2), parallelisms=(1.5,), clock="cpu")
    assert settings_from(parser, options, Settings(repeats=2)) == expected
