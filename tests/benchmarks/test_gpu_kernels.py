"""The benchmark of the kernels in Triton's interpreter: it runs, on the layers and branches that it claims to measure."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import gpu_kernels
from benchmarks.gpu import config_of

pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")


def test_every_kernel_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    gpu_kernels.main(["--device", "cpu", "--shape", "tiny", "--tiles"])
    shown = capsys.readouterr().out
    for name in (
        "queries, keys, values",
        "output",
        "gate and up",
        "down",
        "attention, 32 shared",
        "(8, 512, 4, 3)",
        "(64, 128, 4, 4)",
    ):
        assert name in shown
    assert shown.count("x as fast") == 8  # four linear layers, for one row and for eight


def test_the_linear_layers_are_those_of_a_decoder_layer() -> None:
    layers = gpu_kernels.layers_of(config_of("7b"))
    assert [(layer.out, layer.size) for layer in layers] == [(4608, 3584), (3584, 3584), (37888, 3584), (3584, 18944)]
    assert 28 * sum(layer.out * layer.size for layer in layers) == pytest.approx(6.53e9, rel=0.01)


def test_branches_see_the_prefix_and_themselves() -> None:
    family = gpu_kernels.branches(100, 3)
    assert len(family.slots) == 100 + 3 * 64
    assert family.owners[-3:].tolist() == [1, 2, 3]  # the rows
    assert family.visible.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]
    assert (np.diff(family.positions[family.owners == 2]) == 1).all()


def test_without_a_gpu_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no CUDA device"):
        gpu_kernels.main([])
