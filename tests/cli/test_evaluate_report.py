"""`multiverse eval report`, `compare` and `budget`, as they are meant to be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.cli.loading import ModelOptions
from multiverse.evaluation.sample import write_run
from multiverse.structure import Block, Document
from tests.cli.conftest import Result
from tests.cli.scripted import scripted_llm
from tests.evaluation.samples import run as made
from tests.evaluation.samples import sample

Run = Callable[..., Result]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two runs over eight questions; the second is right more often."""
    for name, every in (("before", 2), ("after", 8)):
        write_run(tmp_path / name, made(name, [sample(number, number % every > 0) for number in range(8)]))
    return [str(tmp_path / "before"), str(tmp_path / "after")]


def test_report_prints_and_writes(run: Run, folders: list[str], tmp_path: Path) -> None:
    code, out, err = run("eval", "report", *folders, "--out", str(tmp_path / "out"), "--page-url", "http://127.0.0.1:9/")
    assert code == 0
    assert "before · some/model" in out
    assert "50.0 ± 18.9" in out
    assert "worksheet, parallel: after less before, 8 questions" in out
    assert "+37.5" in out
    assert err == f"wrote {tmp_path / 'out' / 'report.md'} and {tmp_path / 'out' / 'report.html'}\n"
    (path, _) = (tmp_path / "out").glob("samples/*/list.md")
    assert "](http://127.0.0.1:9/#sample=" in path.read_text()


def test_a_page_alone(run: Run, folders: list[str], tmp_path: Path) -> None:
    code, _, err = run("eval", "report", *folders, "--out", str(tmp_path / "compared.html"))
    assert (code, err) == (0, f"wrote {tmp_path / 'compared.html'}\n")
    assert (tmp_path / "compared.html").read_text().startswith("<!doctype html>")


def test_report_as_json(run: Run, folders: list[str]) -> None:
    code, out, err = run("eval", "report", *folders, "--json")
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert [result["pass@1"]["mean"] for result in values["results"]] == [0.5, 0.875]
    assert [one["name"] for one in values["runs"]] == ["before", "after"]


def test_compare(run: Run, folders: list[str]) -> None:
    code, out, err = run("eval", "compare", *folders)
    assert (code, err) == (0, "")
    assert "after less before" in out
    (comparison,) = json.loads(run("eval", "compare", *folders, "--json").out)["comparisons"]
    assert comparison["pass@1"]["mean"] == 0.375
    assert comparison["second"] == {"run": "after", "task": "worksheet", "mode": "parallel"}


def test_what_is_no_run_is_told(run: Run, folders: list[str], tmp_path: Path) -> None:
    code, _, err = run("eval", "report", str(tmp_path))
    assert code == 2
    assert err.startswith(f"error: {tmp_path} is no evaluation")
    write_run(tmp_path / "other", made("other", [sample(0, True, task="cases")]))
    code, _, err = run("eval", "compare", folders[0], str(tmp_path / "other"))
    assert code == 2
    assert "cannot be compared" in err


# inspect is behind the newest release of a library that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")


@pytest.fixture
def loaded(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Models that were loaded; all of them answer 12."""
    parallel = Document((Block(("a", "b"), (("1.",), ("2.",)), "12."),), "Answer: 12")
    llm = scripted_llm(model_folders["qwen3"], lambda prompt: parallel if "in parallel" in prompt else "12")
    names: list[str | None] = []

    def load(options: ModelOptions) -> object:
        names.append(options.model)
        return llm

    monkeypatch.setattr(ModelOptions, "load", load)
    monkeypatch.setattr(ModelOptions, "asked", lambda _options: (llm.family, llm.prompting))
    return names


def test_budget_runs_once_and_then_only_draws(run: Run, loaded: list[str | None], tmp_path: Path) -> None:
    args = ("eval", "budget", "--out", str(tmp_path), "worksheet", "chain", "--limit", "2", "--budgets", "40,300")
    code, out, err = run(*args)
    assert (code, err) == (0, f"wrote {tmp_path / 'budget.md'}\n")
    assert loaded == [None]  # one model for both systems
    assert "mean" in out
    assert sorted(path.name for path in (tmp_path / "points").iterdir()) == [
        *("parallel-300", "parallel-40", "sequential-300", "sequential-40")
    ]
    again = run(*args, "--json")
    assert loaded == [None]
    values = json.loads(again.out)
    assert values["systems"] == ["parallel", "sequential"]
    assert values["budgets"] == [40, 300]
    assert values["points"]["parallel"][1]["critical_path_tokens"]["mean"] > 40


def test_answers_that_another_bound_has_cut_are_told_of(run: Run, loaded: list[str | None], tmp_path: Path) -> None:
    args = ("chain", "--limit", "2", "--budgets", "60", "--max-tokens", "60")
    code, _, err = run("eval", "budget", "--out", str(tmp_path), *args)
    assert code == 0
    assert err.startswith("2 answers reached --max-tokens before their budget")
    assert loaded == [None]


def test_two_models_are_named_by_their_folders(run: Run, loaded: list[str | None], tmp_path: Path) -> None:
    args = ("chain", "--limit", "2", "--budgets", "60", "-m", "x/mine", "--against-model", "y/theirs", "--json")
    result = run("eval", "budget", "--out", str(tmp_path), *args, "--against-mode", "parallel")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert values["systems"] == ["mine", "theirs"]
    assert loaded == ["x/mine", "y/theirs"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--budgets", "64,x"), "'64,x' is not valid"),
        (("--budgets", "64,32"), "smallest first"),
        (("--mode", "paralel"), "did you mean 'parallel'?"),
        (("--against-mode", "parallel"), "both systems are the same"),
        (("worksheet", "nope"), "unknown benchmark 'nope'"),
    ],
)
def test_bad_options_are_told_before_anything_is_loaded(
    run: Run, loaded: list[str | None], tmp_path: Path, args: tuple[str, ...], named: str
) -> None:
    code, out, err = run("eval", "budget", "--out", str(tmp_path / "out"), *args)
    assert (code, out, loaded) == (2, "", [])
    assert named in err
    assert not (tmp_path / "out").exists()
