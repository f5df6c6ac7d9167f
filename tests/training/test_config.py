"""Configurations are read strictly: every error names the setting and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse.errors import ConfigError
from multiverse.training.config import Config, Lora, Optimizer, dump, load, load_stored

ROOT = Path(__file__).parents[2]
# Those of reinforcement learning have questions, those of a server no model to train.
RECIPES = sorted(
    path
    for path in (ROOT / "recipes").rglob("*.yaml")
    if "\nquestions:" not in path.read_text() and "serving" not in path.parts
)


def write(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


START = "model: m\ndata: [d]\nout: o\n"


def test_three_settings_are_enough_and_the_rest_is_the_papers(tmp_path: Path) -> None:
    config = load(write(tmp_path, "model: m\ndata: [d.jsonl]\nout: o\n"))
    assert config == Config("m", ["d.jsonl"], "o")
    assert (config.optimizer.lr, config.optimizer.warmup, config.optimizer.weight_decay) == (1e-5, 0.05, 1e-4)
    assert (config.max_length, config.global_batch_size, config.optimizer.betas) == (32768, 16, [0.9, 0.95])
    assert config.shares == (0.0, 0.0, 0.1, 0.5, 0.5, 0.9, 1.0, 1.0)


def test_a_dumped_configuration_reads_back(tmp_path: Path) -> None:
    config = Config("m", ["d"], "o", lora=Lora(rank=3), validation=0.1, share_every=8, mixture=[0.0, 0.5])
    assert load(write(tmp_path, dump(config))) == config
    assert load(write(tmp_path, dump(Config("m", ["d"], "o")))) == Config("m", ["d"], "o")


def test_overrides_reach_into_sections(tmp_path: Path) -> None:
    config = load(write(tmp_path, START), {"optimizer.lr": "2e-5", "lora.rank": 4, "global_batch_size": 8})
    assert (config.optimizer.lr, config.global_batch_size) == (2e-5, 8)
    assert config.lora == Lora(rank=4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modell: m\ndata: [d]\nout: o", "unknown setting modell: did you mean 'model'?"),
        ("data: [d]\nout: o", "model is missing"),
        ("model: m\ndata: d\nout: o", "data='d' is not valid: it must be a list, each a text"),
        ("model: m\ndata: []\nout: o", "data is empty"),
        (START + "global_batch_size: 0", "global_batch_size=0 is not valid: it must be a whole number of 1 or more"),
        (START + "global_batch_size: 1.5", "global_batch_size=1.5 is not valid: it must be a whole number"),
        (START + "fsdp: 1", "fsdp=1 is not valid: it must be true or false"),
        (START + "attention: sparse", "attention='sparse' is not valid: it must be 'structured', 'causal'"),
        (START + "attention: causal\nshare_every: 2", "share_every=2 needs structured attention"),
        (START + "share_every: 0", "share_every=0 is not valid"),
        (START + "mixture: papre", "mixture='papre' is not known"),
        (START + "mixture: [2]", "mixture=[2.0] is not valid: it must be a text or a list, each a number from 0 to 1"),
        (START + "mixture: []", "mixture=[] is not valid"),
        (START + "dialect: xml", "dialect='xml' is not known"),
        (START + "packing: true\npacked_length: 8", "packed_length=8 is below max_length=32768"),
        (START + "validation: 1.0", "validation=1.0 is not valid: it must be a number of 0 or more and below 1 or a list"),
        (START + "seed: -1", "seed=-1 is not valid: it must be a whole number from 0 to 4,294,967,295"),
        (START + "optimizer: {rl: 1}", "unknown setting optimizer.rl"),
        (START + "optimizer: {betas: [0.9]}", "optimizer.betas=[0.9] is not valid: AdamW needs exactly two"),
        (START + "optimizer: {betas: [0.9, 1]}", "optimizer.betas=[0.9, 1.0] is not valid"),
        (START + "optimizer: {lr: .nan}", "optimizer.lr=nan is not valid: it must be a number of 0 or more"),
        (START + "optimizer: {lr: .inf}", "optimizer.lr=inf is not valid"),
        (START + "optimizer: {warmup: -1}", "optimizer.warmup=-1.0 is not valid: it must be a number from 0 to 1"),
        (START + "optimizer: {schedule: wsd, stable_ratio: 1}", "optimizer.stable_ratio=1.0 is not valid"),
        (START + "optimizer: {schedule: wsd, warmup: 0.4}", "optimizer.stable_ratio=0.3 is below warmup=0.4"),
        (START + "optimizer: {weight_decay: -0.1}", "optimizer.weight_decay=-0.1 is not valid"),
        (START + "optimizer: {max_grad_norm: -1}", "optimizer.max_grad_norm=-1.0 is not valid"),
        (START + "lora: 8", "lora=8 is not valid: it must be a section with rank"),
        (START + "lora: {rank: 0}", "lora.rank=0 is not valid: it must be a whole number of 1 or more"),
        (START + "lora: {alpha: 0}", "lora.alpha=0.0 is not valid: it must be a number above 0"),
        (START + "lora: {dropout: 1}", "lora.dropout=1.0 is not valid: it must be a number of 0 or more and below 1"),
        (START + "lora: {targets: []}", "lora.targets=[] is empty"),
        (START + "fsdp: true\noptimizer: {name: muon}", "optimizer.name='muon' needs whole matrices"),
        ("- a", "holds no settings"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_errors_name_the_setting_and_the_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert words in str(caught.value)
    assert "train.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows: 2", "rows is now called micro_batch_size"),
        ("batch: 2", "batch is now called global_batch_size"),
        ("length: 2", "length is now called max_length"),
        ("row_length: 2", "row_length is now called packed_length"),
        ("phases: 2", "phases is now called epochs"),
        ("checkpointing: true", "checkpointing is now called gradient_checkpointing"),
        ("faults: skip", "faults is now called on_error"),
        ("optimizer: {clip: 2}", "optimizer.clip is now called optimizer.max_grad_norm"),
        ("optimizer: {steady: 0.5}", "optimizer.steady is now called optimizer.stable_ratio"),
        ("optimizer: {schedule: steady}", "optimizer.schedule='steady' is now called 'wsd'"),
    ],
)
def test_earlier_names_are_refused_with_the_present_one(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load(write(tmp_path, START + text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("packed_length: 65536", "packed_length=65536 has no effect: it needs packing: true"),
        ("epochs: 8", "epochs=8 has no effect: it needs mixture parallel, sequential or half"),
        ("mixture: [0.5]\nepochs: 3", "epochs=3 has no effect"),
        ("eval_every: 10", "eval_every=10 has no effect: it needs a validation set"),
        ("optimizer: {muon_lr: 1.0e-3}", "optimizer.muon_lr=0.001 has no effect: it needs optimizer.name: muon"),
        ("optimizer: {stable_ratio: 0.3}", "optimizer.stable_ratio=0.3 has no effect: it needs optimizer.schedule: wsd"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load(write(tmp_path, START + text))


def test_an_override_may_leave_a_setting_of_the_file_without_effect(tmp_path: Path) -> None:
    path = write(tmp_path, f"{START}optimizer: {{name: muon, muon_lr: 1.0e-3}}")
    assert load(path, {"optimizer.name": "adamw"}).optimizer.name == "adamw"
    with pytest.raises(ConfigError, match=r"muon_lr=0\.002 has no effect"):
        load(path, {"optimizer.name": "adamw", "optimizer.muon_lr": 2e-3})


def test_a_stored_configuration_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old = """
        {model: m, data: [d], out: o, dialect: multiverse, validation: 0.0, mixture: half, phases: 3, shuffle: true,
         length: 512, row_length: null, packing: true, batch: 4, rows: 2, max_steps: null,
         optimizer: {name: muon, lr: 0.003, muon_lr: 0.005, schedule: steady, warmup: 0.05, steady: 0.4, weight_decay: 0.0001,
                     betas: [0.9, 0.95], clip: 0.5},
         lora: null, precision: fp32, checkpointing: true, mask: auto, fsdp: false, faults: skip, seed: 0}
    """
    assert load_stored(write(tmp_path, old)) == Config(
        "m",
        ["d"],
        "o",
        mixture="half",
        epochs=3,
        max_length=512,
        packing=True,
        global_batch_size=4,
        micro_batch_size=2,
        optimizer=Optimizer(name="muon", lr=3e-3, schedule="wsd", stable_ratio=0.4, max_grad_norm=0.5),
        precision="fp32",
        gradient_checkpointing=True,
        on_error="skip",
    )


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml' cannot be read"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads(path: Path) -> None:
    config = load(path)
    assert config.shape is None or (ROOT / config.shape).is_file()
    assert config.shares
