"""The site's navigation, its pictures, and what it says about the package.

`make docs` builds it, and takes every warning for an error.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which tags name functions of Python."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SITE: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # which its dataclasses ask for
    spec.loader.exec_module(found)
    return found


def test_the_navigation_has_pages_that_there_are_each_once() -> None:
    hooks = module("hooks")
    listed = list(hooks.entries(SITE["nav"]))
    assert len(set(listed)) == len(listed)
    assert all((ROOT / source).is_file() for source in hooks.PAGES)
    assert set(listed) - set(hooks.PAGES.values()) <= {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(hooks.PAGES.values()) <= set(listed)


def test_a_page_without_a_place_is_found_all_the_same() -> None:
    config = SimpleNamespace(nav=[{"Home": "index.md"}, {"Start": ["guide.md"]}])
    module("hooks").on_config(config)
    assert config.nav[:2] == [{"Home": "index.md"}, {"Start": ["guide.md"]}]
    assert "serving.md" in config.nav[2]["More"]
    assert "guide.md" not in config.nav[2]["More"]


def test_links_to_what_is_no_page_are_text_or_lead_to_the_repository() -> None:
    rewrite = module("hooks").on_page_markdown
    page = SimpleNamespace(file=SimpleNamespace(src_uri="operation.md"))
    files = SimpleNamespace(get_file_from_path=lambda name: name)
    text = "see [it](../Dockerfile), [how](../CONTRIBUTING.md#the-oracle-rule), [this](serving.md#api), `f[a](x)`"

    def rewritten(address: str) -> str:
        return str(rewrite(text, page=page, config=SimpleNamespace(repo_url=address), files=files))

    assert rewritten("") == "see it, [how](contributing.md#the-oracle-rule), [this](serving.md#api), `f[a](x)`"
    assert "[it](https://host/a/b/blob/main/Dockerfile)" in rewritten("https://host/a/b/")


def test_pictures_are_those_of_the_code() -> None:
    for path, content in module("pictures").pictures():
        assert path.read_text() == content, "run: python docs/pictures.py"
        assert f"figures/{path.name}" in (DOCS / "concepts.md").read_text()


def test_tables_of_figures_are_those_of_the_json_files() -> None:
    measured = module("measured")
    placed: list[str] = []
    for page in measured.pages():
        text = page.read_text()
        placed += measured.names(text)
        assert text.count("<!-- figures: ") == text.count("<!-- /figures -->") == len(measured.names(text)), page
        assert measured.filled(text) == text, f"{page.name}: run: python docs/measured.py"
    assert set(placed) == set(measured.TABLES)


def test_a_figure_that_was_changed_by_hand_is_found() -> None:
    measured = module("measured")
    text = (DOCS / "results.md").read_text()
    assert "98.2%" in text
    assert measured.filled(text.replace("98.2%", "99.2%")) == text
    assert "| **0.65** |" in measured.ratios("engine")


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & SITE.keys()
    # The theme fetches this library where a page has such a block.
    assert not [page for page in DOCS.rglob("*.md") if "```mermaid" in page.read_text()]


def test_examples_of_the_site_are_all_that_there_are() -> None:
    shown = re.findall(r'^--8<-- "examples/(\w+\.(?:py|mjs))"$', (DOCS / "examples.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(path.name for kind in ("py", "mjs") for path in (ROOT / "examples").glob(f"*.{kind}"))


def test_extras_of_the_installation_page() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (DOCS / "install.md").read_text().partition("## Extras")[2].partition("## Platforms")[0]
    named = {name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(extras)


PACKAGE = ROOT / "src" / "multiverse"


@cache
def parsed() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py"))


def raised() -> set[str]:
    """Names of all errors of the package that users may see."""
    found = {"MultiverseError"}
    classes = [node for tree in parsed() for node in tree.body if isinstance(node, ast.ClassDef)]
    while more := {
        node.name
        for node in classes
        if node.name not in found and {ast.unparse(base).rpartition(".")[2] for base in node.bases} & found
    }:
        found |= more
    return found - {"MultiverseError"}


def served_codes() -> set[str]:
    """The fields `code` of what the server answers."""
    places = {"invalid": 2, "server_error": 2, "ApiError": 4, "_unauthorized": 1}
    found = set()
    for tree in parsed():
        for call in ast.walk(tree):
            called = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
            if isinstance(call, ast.Call) and (place := places.get(called)) is not None:
                given = [keyword.value for keyword in call.keywords if keyword.arg == "code"] or call.args[place : place + 1]
                found |= {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
            elif isinstance(call, ast.Dict):
                pairs = zip(call.keys, call.values, strict=True)
                named = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "code"]
                found |= {one.value for one in named if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def test_every_error_leads_to_a_section() -> None:
    page = (DOCS / "errors.md").read_text()
    headings = re.findall(r"^##+ (\w+)$", page, re.MULTILINE)
    assert len(set(headings)) == len(headings)
    assert raised() - {"ValidationError"} == set(headings)


def test_every_code_of_the_server_is_in_the_table() -> None:
    rows = re.findall(r"^\| (?:\d{3}|stream) \| (.*?) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    listed = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    codes = served_codes()
    assert len(codes) > 15
    assert listed == codes


def test_messages_that_are_quoted_are_those_of_the_code() -> None:
    said = "\n".join(
        node.value
        for tree in parsed()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    quoted = [quote for name in ("errors.md", "faq.md") for quote in re.findall(r"`([^`]*…[^`]*)`", (DOCS / name).read_text())]
    assert len(quoted) > 12
    for quote in quoted:
        for piece in quote.split("…"):
            # Without what belongs to the sentence around it.
            if len(piece.strip(" :;,.'")) > 6 and not piece.startswith("error"):
                assert piece.strip(" ") in said, f"no message says {piece!r}"
