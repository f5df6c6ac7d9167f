"""Wheel and sdist as they are built: the same bytes twice, and used from an empty folder. `make dist` runs this.

The wheel is unpacked beside the environment's own packages instead of being installed, which would fetch torch again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("build", reason="the extra [release] is not installed")

ROOT = Path(__file__).parents[1]


class Built(NamedTuple):
    wheel: Path
    sdist: Path


def build(source: Path, out: Path) -> Built:
    """Wheel and sdist of a source tree; the wheel is built from the tree, not from the sdist."""
    for kind in ("--wheel", "--sdist"):
        program = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(out), str(source)]
        subprocess.run(program, check=True, capture_output=True)
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the wheel's alone."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(folder)
    return folder


def test_two_builds_are_the_same_bytes(built: Built, tmp_path: Path) -> None:
    # Another folder, with other dates and modes: what is unpacked from the sdist.
    with tarfile.open(built.sdist) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    source = next((tmp_path / "unpacked").iterdir())
    for file in source.rglob("*"):
        if file.is_file():
            os.utime(file, (10**9, 10**9))
            file.chmod(0o600)
    again = build(source, tmp_path / "again")
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()
    for file in (ROOT / "dist").glob("*"):  # of `make dist`
        for own in built:
            if own.name == file.name:
                assert own.read_bytes() == file.read_bytes()


def test_metadata(built: Built) -> None:
    import multiverse

    with zipfile.ZipFile(built.wheel) as wheel:
        folder = f"multiverse_llm-{multiverse.__version__}.dist-info"
        metadata = message_from_bytes(wheel.read(f"{folder}/METADATA"))
        names = set(wheel.namelist())
    assert metadata["Name"] == "multiverse-llm"
    assert metadata["Version"] == multiverse.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    licences = {f"{folder}/licenses/{file}" for file in metadata.get_all("License-File")}
    assert len(licences) == 5
    assert licences <= names
    assert {"train", "serve", "eval"} <= set(metadata.get_all("Provides-Extra"))


def test_a_package_index_can_show_the_readme(built: Built) -> None:
    markdown = pytest.importorskip("readme_renderer.markdown", reason="the extra [release] is not installed")
    with zipfile.ZipFile(built.wheel) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        text = message_from_bytes(wheel.read(name)).get_payload()
    shown = markdown.render(text)
    assert shown is not None
    assert "<h1>" in shown
    assert "<table>" in shown
    assert "<img" not in shown or 'src="https://' in shown


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def run(site: Path, folder: Path, *args: str) -> str:
    """The output of a command of the wheel, in a folder that has nothing of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}
    program = [sys.executable, "-P", "-m", "multiverse", *args]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(site: Path, empty: Path) -> None:
    code = "import multiverse; print(multiverse.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=empty, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()) == site / "multiverse" / "__init__.py"


def test_commands_of_the_readme_from_an_empty_folder(site: Path, empty: Path) -> None:
    assert "lora-0.5b" in run(site, empty, "recipes", "list")
    run(site, empty, "recipes", "copy", "lora-0.5b")
    problems = run(site, empty, "tasks", "worksheet", "--limit", "200", "--split", "train")
    (empty / "problems.jsonl").write_text(problems)
    assert "200" in run(site, empty, "data", "stats", "problems.jsonl")
    settings = ("--set", "data=[problems.jsonl]", "--set", "validation=0.05")
    assert "documents" in run(site, empty, "train", "recipes/lora-0.5b.yaml", "--dry-run", *settings)
    question = (
        "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
        "What is the total?"
    )
    answer = json.loads(run(site, empty, "generate", question, "--json"))
    assert answer["answer"].strip() == "56"
    assert "worksheet" in run(site, empty, "eval", "worksheet", "--limit", "2", "--temperature", "0", "--out", "run")
    run(site, empty, "eval", "report", "run/multiverse", "--out", "report.html")
    assert (empty / "report.html").read_text().startswith("<!doctype html>")
    assert "The clock of both" in run(site, empty, "tour")
    sizes = ("--rows", "1", "--rows", "2", "--prefixes", "64", "--decode-steps", "2", "--rounds", "1")
    assert json.loads(run(site, empty, "bench", *sizes, "--out", "speed", "--json"))["documents"]
    assert (empty / "speed" / "report.html").is_file()
    assert run(site, empty, "curate", "--help")


def test_every_recipe_of_the_wheel_can_be_copied(site: Path, empty: Path) -> None:
    rows = json.loads(run(site, empty, "recipes", "list", "--json"))
    run(site, empty, "recipes", "copy", "all", "everything")
    for row in rows:
        assert all((empty / "everything" / "recipes" / file).is_file() for file in row["files"]), row["name"]


CONSUMER = """
from typing import assert_type

from multiverse import LLM, Generation, SamplingParams, Usage
from multiverse.structure import Document, parse


def first(question: str) -> str:
    llm = LLM()
    found = llm.generate([question], SamplingParams(temperature=0.0))
    assert_type(found, list[Generation])
    assert_type(found[0].usage, Usage)
    assert_type(found[0].usage.parallelism, float)
    assert_type(parse("Answer: 1"), Document)
    return found[0].answer
"""


@pytest.fixture(scope="module")
def consumer(site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program that uses the package, and the Python of an environment in which the wheel is."""
    folder = tmp_path_factory.mktemp("consumer")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "env" / "lib" / version / "site-packages"
    shutil.copytree(site / "multiverse", packages / "multiverse")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "program.py").write_text(CONSUMER)
    return folder / "program.py", python


def test_mypy_of_a_consumer_sees_the_types(consumer: tuple[Path, Path]) -> None:
    program, python = consumer
    options = ["--strict", "--python-executable", str(python), "--cache-dir", str(program.parent / "cache")]

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mypy", *options, program.name],
            cwd=program.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    done = check()
    assert done.returncode == 0, done.stdout
    program.write_text(CONSUMER.replace("return found[0].answer", "return found[0].usage"))
    try:
        assert 'got "Usage", expected "str"' in check().stdout
    finally:
        program.write_text(CONSUMER)


def test_pyright_of_a_consumer_sees_the_types(consumer: tuple[Path, Path]) -> None:
    if shutil.which("pyright") is None and not (Path(sys.executable).parent / "pyright").exists():
        pytest.skip("pyright is not installed")
    program, python = consumer
    command = [sys.executable, "-m", "pyright", "--pythonpath", str(python), "--outputjson", str(program)]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    errors = [
        f"{one['range']['start']['line']}: {one['message']}"
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    ]
    assert errors == []
    assert report["summary"]["filesAnalyzed"] == 1
