"""The reference pages are those that the declarations give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "modules.md"])
def test_pages_are_up_to_date(reference: ModuleType, name: str) -> None:
    assert (DOCS / name).read_text() == reference.PAGES[name](), "run: python docs/reference.py"


def test_pages_have_every_command_and_every_declared_option(reference: ModuleType) -> None:
    assert "## multiverse eval run\n" in reference.cli_page()
    assert "| `--max-critical-path-tokens` `N` | Longest chain of generated tokens altogether. | none |" in reference.cli_page()
    names = [kind.__name__ for kind in reference.option_classes()]
    assert {"SamplingParams", "ModelOptions", "Config"} <= set(names)
    page = reference.configuration_page()
    assert all(f"## {name}\n" in page for name in names)
    assert "| `min_p` | Drop tokens less likely than P times the likeliest. | `0.0` | from 0 to 1 |" in page


def test_every_module_is_listed_with_what_it_defines(reference: ModuleType) -> None:
    page = reference.modules_page()
    assert "| `limits.py` | The limits of one request" in page
    for file in reference.PACKAGE.rglob("*.py"):
        if file.stat().st_size and file.name != "__init__.py":
            assert f"| `{file.name}` |" in page, file
    assert "`Usage`, `Generation`, `build_generation`" in page
