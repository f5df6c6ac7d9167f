"""The GPU benchmark on a CPU and a tiny shape: every measurement is taken, stored and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.documents import document_with_width
from benchmarks.shape import byte_tokenizer
from multiverse.structure import encode, resolve


def test_a_tiny_run_takes_every_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--shape", "tiny", "--kv-memory", "20000000", "--json", str(path)])
    record = json.loads(path.read_text())
    assert record["notes"] == []
    found = record["shapes"]["tiny"]
    settings = gpu.TINY
    assert set(found["generate"]) == {str(rows) for rows in settings.generate}
    assert set(found["plain"]) == {str(rows) for rows in settings.rows}
    assert set(found["forked"]) == {"2"}
    assert set(found["latency"]) == {f"{context} {width}" for context in settings.contexts for width in settings.widths}
    assert set(found["join"]) == {str(length) for length in settings.lengths}
    assert set(found["fits"]) == {str(context) for context in settings.contexts}
    assert found["speedup"]["2 1.5"]["parallelism"] == pytest.approx(1.5, abs=0.1)
    assert all(value > 0 for kind in ("generate", "plain", "forked", "latency") for value in found[kind].values())
    assert found["floor_ms"] == pytest.approx(1e3 * found["weight_bytes"] / found["copy_bytes_per_second"])
    shown = capsys.readouterr().out
    assert "this shows only that the benchmark runs" in shown
    gpu.main(["--load", str(path)])
    assert capsys.readouterr().out == shown


def test_skipped_shapes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--shape", "tiny", "--seconds", "0", "--json", str(path)])
    assert json.loads(path.read_text())["notes"] == ["tiny was skipped: the time limit was reached."]


def test_without_a_gpu_the_error_names_the_cpu_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no CUDA device: --device cpu --shape tiny"):
        gpu.main([])


@pytest.mark.parametrize("parallelism", [1.1, 1.3, 1.5, 2.0])
def test_documents_have_the_requested_parallelism(parallelism: float) -> None:
    tokens = resolve(byte_tokenizer())
    layout = encode(document_with_width(parallelism, 4, 64, tokens), tokens).layout
    assert len(layout.positions) / (max(layout.positions) + 1) == pytest.approx(parallelism, rel=0.01)


@pytest.mark.parametrize(("shape", "parameters"), [("0.5b", 0.494e9), ("7b", 7.616e9), ("32b", 32.76e9)])
def test_shapes_have_the_parameters_of_the_released_models(shape: str, parameters: float) -> None:
    config = gpu.config_of(shape)
    size = config.hidden_size // config.num_attention_heads
    attention = config.hidden_size * size * 2 * (config.num_attention_heads + config.num_key_value_heads)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    embeddings = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
    assert config.num_hidden_layers * layer + embeddings == pytest.approx(parameters, rel=0.002)
