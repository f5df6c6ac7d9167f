"""GGUF files are converted once, whole or not at all, and say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from multiverse import LLM, SamplingParams
from multiverse.cli import main
from multiverse.errors import ModelError
from multiverse.models import gguf, resolve
from multiverse.serving.service import model_name
from tests.models.tiny_gguf import TEMPLATE, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MULTIVERSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_fp32_file_is_the_model_that_was_written(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf")
    folder = Path(resolve(tmp_path / "tiny.gguf"))
    found = AutoModelForCausalLM.from_pretrained(folder)
    assert found.dtype == torch.float32
    state = found.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode("Why? ü")) == "Why? ü"
    assert tokenizer.chat_template == TEMPLATE
    assert "license: apache-2.0" in (folder / "README.md").read_text()


def test_a_quantised_file_becomes_bf16_and_loads_everywhere(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.Q8_0.gguf"
    model = write_gguf(file, quantised=True)
    llm = LLM(file, kv_memory=4 << 20)
    assert llm.model_path == str(file)
    assert model_name(llm.model_path) == "tiny.Q8_0"
    assert llm.engine.loaded.model.dtype == torch.bfloat16
    (folder,) = (path for path in (cache / "gguf").iterdir() if path.is_dir())
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    found = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.allclose(found[name].float(), tensor, atol=0.02 * float(tensor.abs().max())), name

    monkeypatch.setattr(gguf, "convert", None)  # from here on it has to be there
    expected = llm.generate("Why?", SamplingParams(temperature=0, max_tokens=6))[0].text
    assert LLM(tmp_path, kv_memory=4 << 20).generate("Why?", SamplingParams(temperature=0, max_tokens=6))[0].text == expected
    assert main(["generate", "--raw", "-t", "0", "--max-tokens", "6", "--json", "-m", str(file), "Why?"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == expected


def test_transformers_is_told_to_unpack() -> None:
    """With its kernels installed it would keep some types packed, and write them as they are."""
    import transformers

    (config,) = gguf._unpacked().values()
    assert isinstance(config, transformers.GgufConfig)
    assert config.dequantize


def test_another_file_in_its_place_is_converted_anew(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    first = resolve(file)
    assert resolve(file) == first
    write_gguf(file, quantised=True)
    assert resolve(file) != first


def test_what_cannot_be_converted_is_named(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cut.gguf' cannot be read as GGUF"):
        LLM(cut)
    with pytest.raises(ModelError, match=r"holds several GGUF files \(cut.gguf, tiny.gguf\): name one of them"):
        LLM(tmp_path)
    part = tmp_path / "big-00001-of-00002.gguf"
    part.write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="is one part of a split model: join the parts first"):
        LLM(part)
    for nowhere in (tmp_path / "nowhere.gguf", "nowhere.gguf", "some/nowhere.gguf"):
        with pytest.raises(ModelError, match=r"the GGUF file '.*nowhere\.gguf' does not exist"):
            LLM(nowhere)
    assert not [path for path in (cache / "gguf").iterdir() if path.is_dir()], "nothing half is left"


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'multiverse-llm\[gguf\]'"):
        LLM(tmp_path / "tiny.gguf")
