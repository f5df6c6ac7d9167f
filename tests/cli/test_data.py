"""`multiverse data`: normal use and error messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from pyarrow import parquet

from multiverse.cli import main
from multiverse.data import read
from multiverse.structure import MULTIVERSE, NPR, Block, Document, parse, render, sequential_baseline
from tests.cli.conftest import Result
from tests.cli.test_commands import SAMPLES, Terminal
from tests.conftest import build_tokenizer

Run = Callable[..., Result]

FORK = Document((Block(("a", "b"), (("x",), ("y",)), "z"),), "Answer: 1")
UNCLOSED = render(FORK).replace("2: b\n</Outline>", "2: b")


def write_lines(file: Path, *texts: str) -> Path:
    lines = (json.dumps({"question": f"question {number}", "structured": text}) for number, text in enumerate(texts, 1))
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "good.jsonl", *[render(FORK)] * 19, "only text")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "bad.jsonl", render(FORK), UNCLOSED, "only text", UNCLOSED)


def refused(result: Result, *wanted: str) -> list[str]:
    """The faults that were listed before the error."""
    assert (result.code, result.out) == (2, "")
    *faults, last, end = result.err.split("\n")
    assert end == ""
    assert last.startswith("error: ")
    assert all(text in last for text in wanted), last
    return faults


@pytest.mark.parametrize(
    "args",
    [
        (),
        *(
            ("--help",),
            ("build", "-h"),
            ("validate", "-h"),
            ("convert", "-h"),
            ("sequential", "-h"),
            ("stats", "-h"),
            ("publish", "-h"),
        ),
    ],
)
def test_help(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run("data", *args)
    assert (code, err) == (0, "")
    assert "Example" in out
    assert "multiverse data" in out


def test_build(run: Run, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    code, printed, err = run("data", "build", str(good), "--out", str(out), "--validation", "0.3", "--seed", "1")
    assert (code, err) == (0, "")
    train, held = (read(out, split=name).rows for name in ("train", "validation"))
    assert printed.endswith(f"{out}: {len(train)} to train on, {len(held)} for validation\n")
    assert {row.question for row in [*train, *held]} == {f"question {number}" for number in range(1, 21)}
    assert 0 < len(held) < 15
    assert "20 documents, 95% fork · tokens of multiverse-mini" in printed
    assert "# set" in (out / "README.md").read_text()


def test_build_the_same_again(run: Run, good: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("data", "build", str(good), "--out", str(tmp_path / name), "--validation", "0.3").code == 0
    a, b = ([(row.question, row.document) for row in read(tmp_path / name).rows] for name in ("a", "b"))
    assert a == b
    printed = json.loads(run("data", "build", str(tmp_path / "a"), "--out", str(tmp_path / "a"), "--json").out)
    assert (printed["train"] + printed["validation"], printed["faults"]) == (20, 0)
    assert printed["statistics"]["documents"] == 20


def test_build_of_sequential_baselines(run: Run, good: Path, tmp_path: Path) -> None:
    for name, option in (("parallel", "--json"), ("sequential", "--sequential-baseline")):
        assert run("data", "build", str(good), "--out", str(tmp_path / name), "--validation", "0.3", option).code == 0
    for split in ("train", "validation"):
        parallel, sequential = (read(tmp_path / name, split=split).rows for name in ("parallel", "sequential"))
        assert [row.prompt for row in parallel] == [row.prompt for row in sequential]
        assert [sequential_baseline(row.document) for row in parallel] == [row.document for row in sequential]


def test_build_stops_at_faults(run: Run, good: Path, bad: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = run("data", "build", str(good), str(bad), "--out", str(out))
    faults = refused(result, "2 faults beside 22 good documents", "nothing is written", "--on-error skip")
    problem = "line 9 of the document, offset 67: found </Goal>, expected </Outline>"
    assert faults == [f"{bad}:{line}: {problem}" for line in (2, 4)]
    assert not out.exists()


def test_build_keeps_going(run: Run, bad: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    code, printed, err = run("data", "build", str(bad), "--out", str(out), "--validation", "0", "--on-error", "skip")
    assert code == 0
    assert err.count(f"{bad}:") == 2
    assert "2 to train on, 0 for validation, 2 faults in faults.jsonl" in printed
    assert [json.loads(line)["line"] for line in (out / "faults.jsonl").read_text().splitlines()] == [2, 4]
    assert len(read(out).rows) == 2


def test_build_with_nothing_left(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    args = ("data", "build", str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "set"))
    refused(run(*args, "--on-error", "skip"), "no document is left")
    write_lines(tmp_path / "empty.jsonl", "only text")
    refused(run(*args, "--validation", "0.99"), "leaves no document to train on")
    assert not (tmp_path / "set").exists()


def test_build_does_not_overwrite(run: Run, good: Path, tmp_path: Path) -> None:
    refused(run("data", "build", str(good), "--out", str(tmp_path)), "holds 'good.jsonl', which does not belong to a data set")


def test_documents_over_the_limit(run: Run, good: Path, model_folders: dict[str, Path]) -> None:
    args = ("data", "validate", str(good), "--model", str(model_folders["qwen3"]), "--max-length")
    longest = len("question 10") + len("user: \nassistant: ") + 1
    longest += len(build_tokenizer().encode(render(FORK), add_special_tokens=False))
    assert run(*args, str(longest)).out == "20 documents, no fault\n"
    faults = refused(run(*args, str(longest - 1)), "10 faults beside 10 good documents")
    assert faults[0] == (
        f"{good}:10: it has {longest} tokens with its prompt, over the limit of {longest - 1}: shorten it, or raise the limit"
    )


def test_validate(run: Run, good: Path, bad: Path) -> None:
    assert run("data", "validate", str(good)) == (0, "20 documents, no fault\n", "")
    told = refused(run("data", "validate", str(bad), str(good)), "2 faults beside 22 good documents")
    assert [line.partition(":")[0] == "warning" for line in told] == [True, True, False, False]  # one document is in both
    code, out, err = run("data", "validate", str(bad), "--json")
    assert (code, err) == (2, "")
    printed = json.loads(out)
    assert printed["documents"] == 2
    assert [(fault["source"], fault["line"]) for fault in printed["faults"]] == [(str(bad), 2), (str(bad), 4)]
    assert json.loads(run("data", "validate", str(good), "--json").out) == {
        "documents": 20,
        "faults": [],
        "duplicates": [],
    }


def test_validate_a_missing_file(run: Run) -> None:
    assert refused(run("data", "validate", "missing.jsonl"), "1 fault beside 0 good documents") == [
        "missing.jsonl:1: there is no such file: give the path of a file or folder, or a hub id"
    ]


def test_faults_cannot_harm_a_terminal(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"\x1b[2Jquestions\n": "Q"}))
    (fault,) = refused(run("data", "validate", str(file)))
    assert "\x1b" not in fault


def test_documents_without_a_question(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "one.xml"
    file.write_text(render(FORK))
    (fault,) = refused(run("data", "validate", str(file)))
    assert "in a .txt file of the same name" in fault
    assert run("data", "validate", str(file), "--promptless").code == 0
    (tmp_path / "one.txt").write_text("Q")
    assert run("data", "validate", str(file)).out == "1 document, no fault\n"


def test_another_dialect(run: Run, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "npr.jsonl", render(Document(FORK.thinking), NPR))
    (fault,) = refused(run("data", "validate", str(file)))
    assert "it is written in dialect 'npr'" in fault
    assert run("data", "validate", str(file), "--dialect", "npr").code == 0
    refused(run("data", "validate", str(file), "--dialect", "nrp"), "did you mean 'npr'?")


def test_convert(run: Run, tmp_path: Path) -> None:
    file, out = write_lines(tmp_path / "npr.jsonl", render(Document(FORK.thinking), NPR), "only text"), tmp_path / "out.jsonl"
    assert run("data", "convert", str(file), "--dialect", "npr", "--to", "multiverse", "--out", str(out)).out == (
        f"{out}: 2 documents in dialect multiverse\n"
    )
    assert [row.document for row in read(out).rows] == [Document(FORK.thinking), Document(None, "only text")]
    back = tmp_path / "back.jsonl"
    told = run("data", "convert", str(out), "--to", "npr", "--out", str(back), "--json")
    assert json.loads(told.out) == {"out": str(back), "documents": 2, "faults": 0}
    assert [row.document for row in read(back, NPR).rows] == [row.document for row in read(file, NPR).rows]


def test_convert_names_what_the_other_dialect_cannot_express(run: Run, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    faults = refused(run("data", "convert", str(good), "--to", "threadweaver", "--out", str(out)), "19 faults beside 1 good")
    assert "dialect 'threadweaver' has no conclusion tag, but a block has a conclusion" in faults[0]
    assert not out.exists()
    kept = run("data", "convert", str(good), "--to", "threadweaver", "--out", str(out), "--on-error", "skip")
    assert kept.out == f"{out}: 1 document in dialect threadweaver, 19 faults in faults.jsonl\n"
    assert len((tmp_path / "faults.jsonl").read_text().splitlines()) == 19
    refused(run("data", "convert", str(good), "--to", "multivers", "--out", str(out)), "did you mean 'multiverse'?")


def test_convert_reads_broken_blocks_as_it_is_told(run: Run, tmp_path: Path) -> None:
    gap = render(Document(FORK.thinking), NPR).replace("2:", "3:")
    file, out = write_lines(tmp_path / "gap.jsonl", gap), tmp_path / "out.jsonl"
    args = ("data", "convert", str(file), "--dialect", "npr", "--to", "npr", "--out", str(out))
    assert "expected the label 2:" in refused(run(*args))[0]
    assert "does not keep a block as it was written" in refused(run(*args, "--malformed", "as-released"))[0]
    assert "text may not hold the tag" in refused(run(*args, "--malformed", "sequential"))[0]


def test_broken_blocks_are_shown_as_the_family_reads_them(run: Run, tmp_path: Path) -> None:
    gap = render(Document(FORK.thinking), NPR).replace("2:", "3:")
    file, text = write_lines(tmp_path / "gap.jsonl", gap), tmp_path / "gap.txt"
    text.write_text(gap)
    assert "expected the label 2:" in refused(run("data", "validate", str(file), "--dialect", "npr"))[0]
    shown = json.loads(run("show", str(text), "--dialect", "npr", "--malformed", "as-released", "--json").out)
    assert shown["tree"]["thinking"][0]["as_written"]["paths"] == ["1", "3"]
    assert "3 b" in run("show", str(text), "--dialect", "npr", "--malformed", "as-released").out
    assert json.loads(run("show", str(text), "--dialect", "npr", "--malformed", "sequential", "--json").out)["branches"] == 0


def test_a_tokenizer_that_splits_the_tags(run: Run, good: Path, tmp_path: Path) -> None:
    build_tokenizer(None).save_pretrained(tmp_path / "plain")
    args = ("data", "validate", str(good), "--model", str(tmp_path / "plain"))
    assert (
        refused(run(*args), "has none of the tags", "the tag <Think> of dialect 'multiverse' is 7 tokens", "--add-tags") == []
    )
    assert run(*args, "--add-tags").code == 0


def test_a_template_that_refuses(run: Run, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must\nalternate') }}"
    tokenizer.save_pretrained(tmp_path / "strict")
    file = write_lines(tmp_path / "rows.jsonl", "only text")
    (fault,) = refused(run("data", "validate", str(file), "--model", str(tmp_path / "strict")))
    assert fault.startswith(f"{file}:1: the chat template of")
    assert "roles must alternate" in fault


def test_a_tokenizer_without_a_template(run: Run, good: Path, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    assert run("data", "validate", str(good), "--model", str(tmp_path / "plain"), "--max-length", "1000").code == 0


def test_a_model_that_is_not_there(run: Run, good: Path) -> None:
    refused(run("data", "stats", str(good), "--model", "/no/such/folder"), "'/no/such/folder' does not exist")


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_sequential(run: Run, good: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    assert run("data", "sequential", str(good), "--out", str(out)) == (0, f"{out}: 20 documents\n", "")
    rows = read(out).rows
    assert [row.question for row in rows] == [f"question {number}" for number in range(1, 21)]
    assert rows[0].document == Document(("x\ny",), "Answer: 1")
    run("data", "sequential", str(good), "--out", str(out), "--conclusions")
    assert read(out).rows[0].document == Document(("x\ny\nz",), "Answer: 1")


def test_the_earlier_name_of_sequential_is_refused(run: Run, good: Path) -> None:
    assert run("data", "twin", str(good)) == (2, "", "error: data twin is now called data sequential\n")


def test_sequential_refuses_faults(run: Run, bad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert len(refused(run("data", "sequential", str(bad), "--out", str(out)), "correct them first")) == 2
    assert not out.exists()
    refused(run("data", "sequential", str(bad), "--out", str(tmp_path / "out.csv")), ".jsonl or .parquet")


def test_stats(run: Run, good: Path, tmp_path: Path) -> None:
    plot = tmp_path / "shape.svg"
    code, out, err = run("data", "stats", str(good), "--plot", str(plot))
    assert (code, err) == (0, "")
    assert "20 documents, 95% fork · tokens of multiverse-mini" in out
    assert [line.split()[0] for line in out.splitlines()[2:]] == [
        *("tokens", "critical", "steps", "parallelism", "blocks", "paths", "paths", "depth")
    ]
    assert "20 documents" in plot.read_text()
    printed = json.loads(run("data", "stats", str(good), "--json").out)
    assert (printed["documents"], printed["forked"], printed["counted"]) == (20, 0.95, "tokens of multiverse-mini")
    assert printed["paths_per_block"]["mean"] == 2
    assert set(printed["parallelism"]) == {"n", "mean", "median", "min", "max", "p90"}


def test_stats_of_faults(run: Run, bad: Path, tmp_path: Path) -> None:
    assert len(refused(run("data", "stats", str(bad)), "2 faults beside 2 good documents: correct them first")) == 2
    refused(run("data", "stats", str(bad), "--plot", str(tmp_path / "shape.jpg")), ".svg, .png or .pdf")


def test_stats_in_a_models_tokens(run: Run, good: Path, model_folders: dict[str, Path]) -> None:
    folder = str(model_folders["qwen3"])
    printed = json.loads(run("data", "stats", str(good), "--json", "--model", folder).out)
    assert printed["total_tokens"]["min"] == len("only text")  # a token a byte
    assert printed["counted"] == f"tokens of {folder}"


@pytest.mark.skipif(not SAMPLES, reason="no sample documents beside the repository")
def test_samples(run: Run, tmp_path: Path) -> None:
    folder = str(SAMPLES[0].parent)
    printed = json.loads(run("data", "stats", folder, "--json").out)
    assert (printed["documents"], printed["forked"]) == (len(SAMPLES), 1.0)
    assert printed["parallelism"]["min"] > 1
    assert run("data", "build", folder, "--out", str(tmp_path / "set"), "--promptless").code == 0
    assert {row.document for row in read(tmp_path / "set").rows} == {
        parse(file.read_text().removesuffix("\n")) for file in SAMPLES
    }


def test_what_tasks_print_can_be_built(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text(run("tasks", "worksheet", "--limit", "5", "--split", "train").out)
    assert run("data", "build", str(file), "--out", str(tmp_path / "set"), "--validation", "0").code == 0
    rows = read(tmp_path / "set").rows
    assert [row.sequential for row in rows] == [parse(json.loads(line)["sequential"]) for line in file.read_text().splitlines()]


def test_publish(run: Run, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Hub:
        def create_repo(self, repo_id: str, **options: Any) -> None:
            asked.append({"repo_id": repo_id, **options})

        def upload_folder(self, **options: Any) -> None:
            asked.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    folder = tmp_path / "set"
    run("data", "build", str(good), "--out", str(folder))
    code, out, err = run("data", "publish", str(folder), "owner/name", "--private")
    assert (code, out, err) == (0, "https://huggingface.co/datasets/owner/name\n", "")
    assert asked[0]["private"]
    assert asked[1]["repo_id"] == "owner/name"
    shutil.rmtree(folder / "data")
    refused(run("data", "publish", str(folder), "owner/name"), "holds no data set")


def test_an_interrupt_leaves_nothing(run: Run, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parquet, "write_table", interrupt)
    assert run("data", "build", str(good), "--out", str(tmp_path / "set")) == (130, "", "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["good.jsonl"]


def test_a_bar_on_a_terminal(good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["data", "stats", str(good), "--json"]) == 0
    assert "counting" in terminal.getvalue()
    json.loads(capsys.readouterr().out)
    assert not any(tag in terminal.getvalue() for tag in MULTIVERSE.tags)


def test_exact_duplicates_are_reported(run: Run, good: Path, tmp_path: Path) -> None:
    twice = (str(good), str(good))
    code, out, err = run("data", "validate", *twice)
    assert (code, out) == (0, "40 documents, no fault, 20 duplicates\n")
    told = err.splitlines()
    assert told[0] == f"warning: {good}:1: the same as {good}:1"
    assert told[-2:] == ["warning: … and 10 more", "warning: 20 documents of 40 are exact duplicates"]
    assert len(json.loads(run("data", "validate", *twice, "--json").out)["duplicates"]) == 20
    assert json.loads(run("data", "stats", *twice, "--json").out)["duplicates"] == 20
    assert "exact duplicates" in run("data", "stats", *twice).err
    code, out, err = run("data", "build", *twice, "--out", str(tmp_path / "set"), "--validation", "0")
    assert code == 0
    assert "40 to train on" in out
    assert err.endswith("20 documents of 40 are exact duplicates; --unique leaves them out\n")
    code, out, err = run("data", "build", *twice, "--out", str(tmp_path / "set"), "--validation", "0", "--unique")
    assert "20 to train on" in out
    assert err.endswith("20 documents of 40 are exact duplicates; they are left out\n")
