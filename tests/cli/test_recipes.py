"""`multiverse recipes`: listed, copied with what they use, and run from an empty folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.cli import recipes
from multiverse.training.config import load
from tests.cli.conftest import Result

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2] / "recipes"


def test_every_recipe_is_listed_and_says_what_it_is(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("recipes", "list", "--json").out)}
    entries = [path for path in ROOT.iterdir() if not path.name.startswith("__")]
    assert set(rows) == {path.stem if path.is_file() else path.name for path in entries}
    assert rows["lora-0.5b"]["about"] == "Adapters on a 0.5B model: one small GPU (16 GiB), or a patient CPU."
    assert rows["mini"]["about"] == "The recipe of multiverse-mini: tokenizer, model shape and training data."
    assert rows["serving"]["about"].startswith("Serving: Prometheus")
    assert all(row["about"] and row["files"] for row in rows.values())
    shown = run("recipes", "list").out
    assert all(name in shown for name in rows)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("lora-0.5b", ["lora-0.5b.yaml", "shapes/qwen2.5-0.5b.json"]),
        ("measure", ["__init__.py", "measure.py"]),
        ("demo", ["__init__.py", "demo.py"]),
        ("from_sequential", ["from_sequential/run.py", "mini/start.py", "mini/tokenizer.py", "measure.py"]),
        ("all", ["paper/start/model.safetensors", "serving/grafana.json", "smol/questions/topics.txt"]),
    ],
)
def test_a_copy_has_what_the_recipe_uses(run: Run, tmp_path: Path, name: str, files: list[str]) -> None:
    copied = json.loads(run("recipes", "copy", name, str(tmp_path), "--json").out)["files"]
    assert {str(tmp_path / "recipes" / file) for file in files} <= set(copied)
    assert not [file for file in copied if "__pycache__" in file]
    for file in copied:
        assert Path(file).read_bytes() == (ROOT / Path(file).relative_to(tmp_path / "recipes")).read_bytes()


def test_a_copied_configuration_is_read_in_its_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = run("train", "recipes/lora-0.5b.yaml", "--dry-run")
    assert before.code == 2
    assert "'recipes/lora-0.5b.yaml': multiverse recipes copy lora-0.5b copies the recipe" in before.err
    copied = run("recipes", "copy", "lora-0.5b")
    assert copied.out.splitlines() == ["recipes/lora-0.5b.yaml", "recipes/shapes/qwen2.5-0.5b.json"]
    assert copied.err == "try it with  multiverse train recipes/lora-0.5b.yaml --dry-run\n"
    config = load(Path("recipes/lora-0.5b.yaml"))
    assert config.shape is not None
    assert Path(config.shape).is_file()


def test_what_was_changed_is_kept_unless_it_may_be_overwritten(run: Run, tmp_path: Path) -> None:
    assert run("recipes", "copy", "7b", str(tmp_path)).code == 0
    assert run("recipes", "copy", "7b", str(tmp_path)).code == 0  # the same files
    own = tmp_path / "recipes" / "7b.yaml"
    own.write_text("model: mine\n")
    refused = run("recipes", "copy", "7b", str(tmp_path))
    assert refused.code == 2
    assert f"error: '{own}' is there and differs from the recipe's" in refused.err
    assert own.read_text() == "model: mine\n"
    assert run("recipes", "copy", "7b", str(tmp_path), "--overwrite").code == 0
    assert own.read_bytes() == (ROOT / "7b.yaml").read_bytes()


def test_errors(run: Run, tmp_path: Path) -> None:
    assert "unknown recipe 'lora': did you mean 'lora-0.5b'?" in run("recipes", "copy", "lora").err
    assert "is where the recipes are" in run("recipes", "copy", "7b", str(ROOT.parent)).err
    assert "cannot be read" in run("train", str(tmp_path / "mine.yaml")).err  # no recipe's name
    (tmp_path / "recipes").write_text("a file")
    assert str(tmp_path / "recipes") in run("recipes", "copy", "7b", str(tmp_path)).err


def test_an_installed_package_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "multiverse"
    monkeypatch.setattr(recipes, "__file__", str(package / "cli" / "recipes.py"))
    with pytest.raises(recipes.InputError, match="there are no recipes beside"):
        recipes.folder()
    assert recipes.hint(Path("7b.yaml")) == ""
    (package / "recipes").mkdir(parents=True)
    (package / "recipes" / "__init__.py").touch()
    assert recipes.folder() == package / "recipes"
