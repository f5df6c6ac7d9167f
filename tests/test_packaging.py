"""What is built and published: files of wheel and sdist, metadata, versions, notices, names of extras.

`make dist` builds both and tries them (tests/test_dist.py).
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import multiverse
from multiverse.errors import _DISTRIBUTIONS, ExtraError, preferred_extra

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "multiverse"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_written_once() -> None:
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    metadata = ProjectMetadata(str(ROOT), PluginManager())
    assert metadata.version == multiverse.__version__
    assert "version" in PROJECT["dynamic"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == multiverse.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changes
    assert multiverse.__version__ in changes


def files(folder: Path) -> set[str]:
    """Files below a folder of the repository, without what Python leaves there."""
    found = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder)) for file in found}


def test_a_wheel_holds_package_and_recipes_and_nothing_else() -> None:
    from hatchling.builders.wheel import WheelBuilder

    built = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    wanted = {f"multiverse/{file}" for file in files(SOURCE)} | {
        f"multiverse/recipes/{file}" for file in files(ROOT / "recipes")
    }
    assert built == wanted
    assert {
        "multiverse/py.typed",
        "multiverse/models/mini/model.safetensors",
        "multiverse/models/smol/adapter_model.safetensors",
        "multiverse/curation/compose/wordings.txt",
        "multiverse/backends/cpu/kernels.cpp",
        "multiverse/backends/cpu/quantised.cpp",
        "multiverse/serving/static/vendor/katex/LICENSE",
        "multiverse/recipes/serving/grafana.json",
    } <= built


def test_an_sdist_holds_what_tests_and_docs_need() -> None:
    from hatchling.builders.sdist import SdistBuilder

    built = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    for folder in ("src", "recipes", "docs", "examples"):
        missing = {f"{folder}/{file}" for file in files(ROOT / folder)} - built
        assert not missing, missing
    assert {"Makefile", "constraints.txt", "tests/conftest.py", "benchmarks/engine.py", "CHANGELOG.md", "mkdocs.yml"} <= built
    assert not [file for file in built if re.search(r"node_modules|__pycache__|\.venv|/runs/|\.mypy_cache", file)]


def long_description() -> str:
    """README.md as a package index gets it."""
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    text: str = ProjectMetadata(str(ROOT), PluginManager()).core.readme
    return text


def test_a_package_index_gets_a_readme_without_what_it_does_not_have() -> None:
    text = long_description()
    assert text.startswith("# Multiverse")
    assert "multiverse generate" in text
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert [target for target in targets if not target.startswith(("https://", "http://", "#"))] == []


def test_what_is_vendored_has_its_licence_and_is_named() -> None:
    vendor = SOURCE / "serving" / "static" / "vendor"
    notice = (ROOT / "NOTICE").read_text()
    rows = re.findall(r"^\| \[([^]]+)\]\([^)]+\) \| ([\d.]+) \| (\S+) \|", (vendor / "README.md").read_text(), re.MULTILINE)
    folders = sorted(path.name for path in vendor.iterdir() if path.is_dir())
    assert sorted(name.lower().removesuffix(".js") for name, _, _ in rows) == folders
    for name, version, license_name in rows:
        line = next(line for line in notice.splitlines() if line.startswith(f"{name} {version}"))
        assert line.endswith(f": {license_name}")
    for folder in folders:
        assert (vendor / folder / "LICENSE").stat().st_size > 500
        assert f"static/vendor/{folder})" in notice
    assert {"LICENSE", "NOTICE"} <= set(PROJECT["license-files"])


@cache
def installed_by(extra: str) -> frozenset[str]:
    """Distributions that an extra names, and those of the extras that it includes."""
    found: set[str] = set()
    for need in PROJECT["optional-dependencies"][extra]:
        name, _, inner = re.split(r"[<>=; ]", need)[0].partition("[")
        if name == PROJECT["name"]:
            for other in inner.rstrip("]").split(","):
                found |= installed_by(other)
        else:
            found.add(name.lower())
    return frozenset(found)


def wanted_extras() -> Iterator[tuple[str, str, str]]:
    """Place, library and extra of every `require("library", "extra")` and `ExtraError("library", "extra")` of the package."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("require", "ExtraError"):
                library, extra = (arg.value if isinstance(arg, ast.Constant) else None for arg in node.args[:2])
                if isinstance(library, str) and isinstance(extra, str):
                    module = library.partition(".")[0]
                    name = _DISTRIBUTIONS.get(module, module.replace("_", "-")).lower()
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", name, extra


# What another dependency brings along, of the core or of the extra that is named.
BROUGHT_ALONG = {"huggingface-hub"}


def test_every_error_about_a_missing_library_names_an_extra_that_installs_it() -> None:
    found = list(wanted_extras())
    assert len(found) > 40
    assert {extra for _, _, extra in found} >= {"train", "gguf", "curate", "json", "serve", "eval", "chat", "cuda", "ray"}
    wrong = [one for one in found if one[1] not in BROUGHT_ALONG and one[1] not in installed_by(one[2])]
    assert not wrong, wrong


def test_every_optional_import_at_the_top_of_a_module_is_guarded() -> None:
    core = {"multiverse", "torch", "transformers", "tokenizers", "safetensors", "numpy", "typer", "rich"}
    optional = {name.replace("-", "_") for extra in PROJECT["optional-dependencies"] for name in installed_by(extra)} - core
    optional |= {"yaml", "starlette", "pydantic"} - core
    assert {"fastapi", "uvicorn", "pyarrow", "ray", "matplotlib"} <= optional
    # Who imports these asks for the extra before: tests/test_errors.py does so for commands.
    guarded = ("serving/", "evaluation/", "training/trainer.py", "training/rl/trainer.py", "backends/cuda/")
    wrong = [
        f"{file.relative_to(SOURCE)}:{node.lineno} imports {name}"
        for file in sorted(SOURCE.rglob("*.py"))
        if not str(file.relative_to(SOURCE)).startswith(guarded)
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if not (isinstance(node, ast.ImportFrom) and node.level) and name.partition(".")[0] in optional
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("extra", sorted(set(PROJECT["optional-dependencies"]) - {"dev", "docs", "release"}))
def test_every_extra_is_named_by_its_own_library(extra: str) -> None:
    library = next(name for name in sorted(installed_by(extra)) if extra != "ray" or name == "ray")
    token = preferred_extra.set(extra)
    try:
        said = str(ExtraError(library, extra))
    finally:
        preferred_extra.reset(token)
    assert said == f"this needs {library}, which is not installed: pip install 'multiverse-llm[{extra}]'"


def test_extras_that_are_pinned_are_pinned_once() -> None:
    pins = [line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert sorted(set(pins)) == sorted(pins)


def test_the_sbom_has_what_users_install_and_what_is_vendored() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("sbom", ROOT / "tools" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    names = {"numpy": ["tiny"], "tiny": [], "pytest": ["other"], "other": [], "inspect_ai": []}
    installed = {
        "metadata": {"component": {"bom-ref": "root", "name": "multiverse-llm"}},
        "components": [{"bom-ref": f"{name}==1", "name": name} for name in names],
        "dependencies": [{"ref": f"{name}==1", "dependsOn": [f"{need}==1" for need in needs]} for name, needs in names.items()],
    }
    found = tool.sbom(installed, PROJECT, "0.9")
    assert found["metadata"]["component"]["purl"] == "pkg:pypi/multiverse-llm@0.9"
    assert [entry["name"] for entry in found["components"]] == [
        "numpy",
        "tiny",
        "inspect_ai",
        "marked",
        "KaTeX",
        "highlight.js",
    ]
    assert found["components"][4]["purl"].startswith("pkg:npm/katex@")
    references = {entry["ref"] for entry in found["dependencies"]}
    assert references == {"root", *(entry["bom-ref"] for entry in found["components"])}
    assert found["dependencies"][0]["dependsOn"][:2] == ["numpy==1", "inspect_ai==1"]
