"""Linear layers packed for oneDNN against plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from multiverse.backends.cpu.packed_linears import PackedLinear, pack_linears, packing_works, padded_rows


def test_packed_linears_equal_plain_ones() -> None:
    assert packing_works(torch.float32)
    assert not packing_works(torch.float64)
    torch.manual_seed(0)
    for bias in (True, False):
        linear = nn.Linear(24, 40, bias=bias)
        for rows in (0, 1, 2, 17):
            x = torch.randn(1, rows, 24)
            with torch.inference_mode():
                torch.testing.assert_close(PackedLinear(linear)(x), linear(x), atol=1e-5, rtol=1e-5)


def test_layers_meet_a_few_numbers_of_rows_only() -> None:
    sizes = [padded_rows(rows) for rows in range(1, 2049)]
    assert all(rows <= size <= max(rows, 1.25 * rows) for rows, size in enumerate(sizes, 1))
    assert sorted(set(sizes))[:20] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert len(set(sizes)) == 40


def test_a_text_of_any_length_makes_no_new_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[int] = set()
    apply = PackedLinear._apply_packed
    monkeypatch.setattr(PackedLinear, "_apply_packed", lambda self, x: met.add(x.shape[:-1].numel()) or apply(self, x))  # type: ignore[func-returns-value]
    packed = PackedLinear(nn.Linear(24, 40))
    with torch.inference_mode():
        for rows in range(65, 129):
            packed(torch.randn(1, rows, 24))
    assert met == {80, 96, 112, 128}


def test_packing_replaces_plain_linears_only() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(16, 8), nn.Sequential(Own(8, 8), nn.Linear(8, 4)), nn.LayerNorm(4))
    x = torch.randn(3, 16)
    expected = model(x)
    assert pack_linears(model) == 2
    kinds = [type(module) for module in model.modules() if not isinstance(module, nn.Sequential)]
    assert kinds == [PackedLinear, Own, PackedLinear, nn.LayerNorm]
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)
    assert pack_linears(nn.Sequential(nn.Linear(4, 4).double())) == 0
