"""What MkDocs is told beyond mkdocs.yml: pages of the repository's root, and links to files that are no pages."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "src/multiverse/models/mini/README.md": "mini.md",
}
"""Files outside of docs/ that are pages of the site."""
ALSO = {"examples": "examples.md", "examples/README.md": "examples.md"}
"""What else has a page that says the same."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_INDENTED = re.compile(r"^( {4}|\t)")


def on_config(config: Any) -> Any:
    """Add a tab with the pages that the navigation does not have yet, so that a new page is found before it has its place."""
    listed = set(entries(config.nav))
    if more := sorted(path.name for path in DOCS.glob("*.md") if path.name not in listed):
        config.nav.append({"More": more})
    return config


def entries(item: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(item, str):
        yield item
    else:
        for inner in item.values() if isinstance(item, dict) else item:
            yield from entries(inner)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Let links to files of the repository that are no pages lead to the repository, or be text where it has no address."""
    pages = {page_name: source for source, page_name in PAGES.items()}
    source = pages.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    here, shown = posixpath.dirname(source), posixpath.dirname(page.file.src_uri)

    def replaced(link: re.Match[str]) -> str:
        title, path, anchor = link[2], link[3], link[4] or ""
        target = posixpath.normpath(posixpath.join(here, path))
        if link[1]:  # a picture, which lies in docs/
            return f"![{title}]({posixpath.relpath(target, posixpath.join('docs', shown))})"
        name = PAGES.get(target) or ALSO.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if name is not None and files.get_file_from_path(name) is not None:
            return f"[{title}]({posixpath.relpath(name, shown or '.')}{'' if target in ALSO else anchor})"
        # Also where a form of words looks like a link: only what is there is one.
        if not (ROOT / target).exists():
            return link[0]
        return f"[{title}]({config.repo_url.rstrip('/')}/blob/main/{target})" if config.repo_url else title

    return "\n".join(line if _INDENTED.match(line) else _LINK.sub(replaced, line) for line in markdown.split("\n"))
