"""Blocks of code in README.md and the pages of docs/: found, told apart, and taken to pieces.

``<!-- not run: REASON -->`` in front of a block says why it is not run; nobody sees it on the page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {"cli.md", "configuration.md", "modules.md"}  # from the code itself
HISTORY = {"log.md"}  # which tells of commands as they were
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "recipes/serving/README.md")
    ),
    ROOT / "src/multiverse/models/mini/README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name not in GENERATED | HISTORY),
]
PROGRAMS = {"multiverse", "make", "python", "python3", "pip", "pytest", "curl", "docker", "kubectl", "openssl", "torchrun"}
PROGRAMS |= {"vllm", "llama-server", "lm_eval", "npm", "inspect", "export", "cd", "jq", "rm", "node", "taskset"}
_FENCE = re.compile(r"^```\s*(?:\{\s*\.)?(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}[^\n]*\n|\n(?= {4}))+", re.MULTILINE)
_REASON = re.compile(r"<!-- not run: ([^>]+) -->\s*\Z")
_COMMENT = re.compile(r"(?:^|\s)#", re.MULTILINE)
_SUBSTITUTION = re.compile(r"\$\([^)]*\)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_SEPARATORS = {"|", "||", "&&", ";", "&"}


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        page: relative to the repository.
        line: of its first line of code, from 1.
        language: ``sh``, ``python``, ``yaml``, ``json``, ``js`` or what else the fence says; ``text`` if none of them.
        reason: why it is not run; empty if it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    """Of all pages, in order."""
    return [block for page in PAGES for block in of_page(page)]


def of_page(page: Path) -> Iterator[Block]:
    text = page.read_text()
    name = str(page.relative_to(ROOT))

    def block(start: int, code_start: int, language: str, code: str) -> Block:
        reason = _REASON.search(text, 0, start)
        return Block(name, text.count("\n", 0, code_start) + 1, language, code, reason[1] if reason else "")

    without = text
    for found in _FENCE.finditer(text):
        yield block(found.start(), found.start(2), found[1] or "text", found[2])
        without = without[: found.start()] + re.sub(r"[^\n]", "x", found[0]) + without[found.end() :]
    for found in _INDENTED.finditer(without):
        start = found.start()
        for part in re.split(r"(?<=\n)(?=\n)", found[0]):  # a paragraph may be in another language than the one before
            code = "\n".join(line[4:] for line in part.strip("\n").split("\n")) + "\n"
            if code.strip():
                yield block(found.start(), start + len(part) - len(part.lstrip("\n")), _language(code), code)
            start += len(part)


def _language(code: str) -> str:
    """What an indented block is."""
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    words = lines[0].removeprefix("$ ").split() if lines else []
    first = next((word for word in words if not _ASSIGNMENT.match(word)), "")
    if first in PROGRAMS:
        return "sh"
    if first in {"from", "import"}:
        return "python"
    return "json" if first.startswith("{") else "text"


def commands(code: str) -> list[list[str]]:
    """The commands of a block of shell, each as its words; pipes, lists and redirections are taken apart."""
    found: list[list[str]] = []
    pending = ""
    lines = code.splitlines()
    if any(line.startswith("$ ") for line in lines):  # the others are what it prints
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        pending = f"{pending}\n{line}" if pending else line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        words = _words(pending)
        if words is None:  # a quotation goes on in the next line
            continue
        pending = ""
        found += _split(words)
    assert not pending, pending
    return found


def _words(text: str) -> list[str] | None:
    """What a line says up to a comment; `None` if it is not complete."""
    ends = [*(comment.start() for comment in _COMMENT.finditer(text)), len(text)]
    for end in ends:
        lexer = shlex.shlex(_SUBSTITUTION.sub("VALUE", text[:end]), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            return list(lexer)
        except ValueError:
            continue
    return None


def _split(words: list[str]) -> Iterator[list[str]]:
    own: list[str] = []
    for word in words:
        if word in _SEPARATORS:
            if own:
                yield own
            own = []
        elif own or not _ASSIGNMENT.match(word):
            own.append(word)
    if own:
        yield own[3:] if own[0] == "taskset" else own


def without_redirections(words: list[str]) -> list[str]:
    """A command's own words."""
    at = next((index for index, word in enumerate(words) if word in {"<", ">", ">>"}), len(words))
    return words[:at]
