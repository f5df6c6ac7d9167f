"""A configuration is read strictly: what is misspelt, missing or of the wrong kind is named, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse.errors import ConfigError
from multiverse.training.config import Config, Lora, dump, load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


def test_three_settings_are_enough_and_the_rest_is_the_papers(tmp_path: Path) -> None:
    config = load(write(tmp_path, "model: m\ndata: [d.jsonl]\nout: o\n"))
    assert config == Config("m", ["d.jsonl"], "o")
    assert (config.optimizer.lr, config.optimizer.warmup, config.optimizer.weight_decay) == (1e-5, 0.05, 1e-4)
    assert (config.length, config.batch, config.optimizer.betas) == (32768, 16, [0.9, 0.95])
    assert config.shares == (0.0, 0.0, 0.1, 0.5, 0.5, 0.9, 1.0, 1.0)


def test_what_is_dumped_reads_back(tmp_path: Path) -> None:
    config = Config("m", ["d"], "o", lora=Lora(rank=3), validation=0.1, share_every=8, mixture=[0.0, 0.5])
    assert load(write(tmp_path, dump(config))) == config


def test_overrides_reach_into_sections(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ndata: [d]\nout: o\n")
    config = load(path, {"optimizer.lr": "2e-5", "lora.rank": 4, "batch": 8})
    assert (config.optimizer.lr, config.batch) == (2e-5, 8)
    assert config.lora == Lora(rank=4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modell: m\ndata: [d]\nout: o", "unknown setting modell: did you mean 'model'?"),
        ("data: [d]\nout: o", "model is missing"),
        ("model: m\ndata: d\nout: o", "data='d' is not valid: it must be a list, each a text"),
        ("model: m\ndata: []\nout: o", "data is empty"),
        ("model: m\ndata: [d]\nout: o\nbatch: 0", "batch=0 is not valid"),
        ("model: m\ndata: [d]\nout: o\nbatch: 1.5", "batch=1.5 is not valid: it must be a whole number"),
        ("model: m\ndata: [d]\nout: o\nfsdp: 1", "fsdp=1 is not valid: it must be true or false"),
        (
            "model: m\ndata: [d]\nout: o\nattention: sparse",
            "attention='sparse' is not valid: it must be 'structured', 'causal'",
        ),
        ("model: m\ndata: [d]\nout: o\nattention: causal\nshare_every: 2", "share_every=2 needs structured attention"),
        ("model: m\ndata: [d]\nout: o\nshare_every: 0", "share_every=0 is not valid"),
        ("model: m\ndata: [d]\nout: o\nmixture: papre", "mixture='papre' is not known"),
        ("model: m\ndata: [d]\nout: o\nmixture: [2]", "mixture=[2.0] is not valid"),
        ("model: m\ndata: [d]\nout: o\ndialect: xml", "dialect='xml' is not known"),
        ("model: m\ndata: [d]\nout: o\nrow_length: 8", "row_length=8 is below length=32768"),
        ("model: m\ndata: [d]\nout: o\nvalidation: 1.0", "validation=1.0 is not valid"),
        ("model: m\ndata: [d]\nout: o\noptimizer: {rl: 1}", "unknown setting optimizer.rl"),
        ("model: m\ndata: [d]\nout: o\nlora: 8", "lora=8 is not valid: it must be a section with rank"),
        ("model: m\ndata: [d]\nout: o\nfsdp: true\noptimizer: {name: muon}", "optimizer.name='muon' needs whole matrices"),
        ("- a", "holds no settings"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert words in str(caught.value)
    assert "train.yaml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml' cannot be read"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads(path: Path) -> None:
    config = load(path)
    assert config.shape is None or (ROOT / config.shape).is_file()
    assert config.shares
