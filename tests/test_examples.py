"""The examples, the notebooks and the Python of the quickstart, run as they stand.

Those that talk to a server are in tests/serving/test_clients_example.py.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

import multiverse
from multiverse import LLM
from multiverse.structure import Block, Document, parse
from multiverse.tasks import generate

FOLDER = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mini() -> LLM:
    return LLM()


@pytest.fixture
def one_model(mini: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LLM()` is the same model in every example."""
    monkeypatch.setattr(multiverse, "LLM", lambda *_, **__: mini, raising=False)
    monkeypatch.setattr(mini, "close", lambda: None)


def test_every_example_is_in_the_table() -> None:
    table = (FOLDER / "README.md").read_text()
    files = [*FOLDER.glob("*.py"), *FOLDER.glob("*.mjs"), *FOLDER.glob("*.ipynb")]
    assert all(f"[{file.name}]({file.name})" in table for file in files)


@pytest.mark.usefixtures("one_model")
def test_hello_fork(capsys: pytest.CaptureFixture[str]) -> None:
    example("hello_fork").main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "answer: 56"
    assert shown[1].startswith("  Mia: ")
    assert shown[2].startswith("  Tom: ")
    assert "41" in shown[2]
    assert float(shown[-1].split(": ")[1].split()[0]) > 1.2


@pytest.mark.usefixtures("one_model")
def test_stream_lanes(capsys: pytest.CaptureFixture[str]) -> None:
    example("stream_lanes").main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("fork into 1, 2, 3, ")
    assert sorted(line[:3] for line in shown[1:4]) == ["1: ", "2: ", "3: "]
    assert shown[4].startswith("join, ")
    assert shown[-1] == "answer: 97"


def test_write_a_dialect(capsys: pytest.CaptureFixture[str]) -> None:
    example("write_a_dialect").main()
    shown = capsys.readouterr().out
    assert "<lanes>\n<plan>\n<lane>\n1: bread" in shown
    assert "a wrong label: " in shown


@pytest.mark.usefixtures("one_model")
def test_batch_with_pandas(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = example("batch_with_pandas").main("4")
    assert list(table["right"]) == [True] * 4
    assert (table["longest_chain"] < table["tokens"]).all()
    assert capsys.readouterr().out.splitlines()[-1].startswith("100% right, ")


@pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")  # inspect's
@pytest.mark.usefixtures("one_model")
def test_evaluate_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
    example("evaluate_and_compare").main(str(tmp_path), "3")
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("pass@1", "critical_path_tokens"))]
    assert len(shown) == 2
    change = float(shown[1].split("difference ")[1].split(",")[0])
    assert change < -20  # tokens: the longest chain is shorter


@pytest.mark.usefixtures("one_model")
def test_write_a_reward(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("write_a_reward")
    module.main()
    _, parallel, line = capsys.readouterr().out.splitlines()
    assert all(0.5 < float(value) <= 1 for value in parallel.partition(": ")[2].split(", "))
    assert line == "sequential: 0.00, 0.00, 0.00, 0.00"
    document = Document((Block(("a", "b"), (("abc",), ("abcdefghi",)), "both"),), "Answer: 1")
    rollout = SimpleNamespace(generation=SimpleNamespace(tree=document))
    assert module.even(None, rollout) == pytest.approx((3 + 9) / 2 / 9)
    assert module.even(None, rollout, least=3) == 0


def test_the_reward_is_one_that_a_run_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra [train] is not installed")
    from multiverse.training.rl.config import load

    monkeypatch.chdir(FOLDER)
    page = (FOLDER / "write_a_reward.py").read_text()
    found = re.search(r'multiverse rl (\S+) --set "rewards=(.*)"$', page, re.MULTILINE)
    assert found is not None
    config = load(Path(found[1]), {"rewards": yaml.safe_load(found[2]), "out": str(tmp_path)})
    assert [reward.name for reward in config.rewards] == ["correct", "write_a_reward:even"]


def test_write_a_backend(mini: LLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("write_a_backend")
    # `LLM.of` makes a model of its own, `LLM()` is the one of all tests.
    monkeypatch.setattr(module, "LLM", type("Both", (), {"of": LLM.of, "__new__": lambda _: mini}))
    module.main()
    answer, differ = capsys.readouterr().out.splitlines()
    assert answer == "answer: 56"
    assert float(differ.split("differ by ")[1].split()[0]) < 1e-4
    assert float(differ.split("; ")[1].split()[0]) > 1


def test_curate_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="the extra [curate] is not installed")
    from tests.curation import endpoint
    from tests.curation.annotator import answer, plant_problems

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    module = example("curate_traces")
    # The endpoint knows these traces by heart: in each, a sentence is a step.
    planted = [
        plant_problems(f"traces.jsonl:{number}", [problem])
        for number, problem in enumerate(generate("worksheet", 10, seed=5, split="train"), 1)
    ]
    told = [
        SimpleNamespace(
            question=one.trace.question, answer=one.trace.answer, sequential=SimpleNamespace(thinking=(one.trace.reasoning,))
        )
        for one in planted
    ]
    monkeypatch.setattr(module, "generate", lambda *_, **__: told)
    rows = {one.trace.id: one for one in planted}
    with endpoint.serving(endpoint.Endpoint(answer, rows)) as up:
        assert module.main(up.url, "stand-in", str(tmp_path)) == 0
    assert "10 documents in " in capsys.readouterr().out


def cells(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_what_they_print(notebook: Path) -> None:
    content = json.loads(notebook.read_text())
    assert content["nbformat"] == 4
    assert content["cells"][0]["cell_type"] == "markdown"
    for cell in content["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.usefixtures("one_model")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_of_notebooks_run(notebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    names: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(cells(notebook)):
        tree = ast.parse(code)
        exec(compile(tree, f"{notebook.name}, cell {number}", "exec"), names)
        if tree.body and isinstance(tree.body[-1], ast.Expr):  # what a notebook would draw
            value = eval(compile(ast.Expression(tree.body[-1].value), notebook.name, "eval"), names)
            if hasattr(value, "_repr_html_"):
                assert value._repr_html_()
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_in_a_kernel(notebook: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the extra [examples] is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    shown = nbclient.NotebookClient(nbformat.read(notebook, 4), timeout=300, kernel_name="python3").execute()
    assert any(cell.get("outputs") for cell in shown.cells)


def test_write_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    example("write_a_task").main("5")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    for row in rows:
        document = parse(row["structured"])
        assert document.branches == row["question"].count(" by ")
        assert row["structured"].endswith(f"Answer: {row['answer']}")


@pytest.mark.usefixtures("one_model")
def test_the_quickstart_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (FOLDER.parent / "docs" / "quickstart.md").read_text()
    found = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", page, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "quickstart.md", "exec"), {})
    assert capsys.readouterr().out == found[2]
