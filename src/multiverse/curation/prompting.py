"""Load and fill the prompts.

A prompt is a jinja2 template under `prompts/`: the system message, a line of three dashes, the user message. Every user message
names stage and row in lines of their own. Manifests hold the hash of each file, and completions are stored by the filled text.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import require

PROMPTS = Path(__file__).parent / "prompts"

Messages = tuple[tuple[str, str], ...]


def fill(name: str, **inputs: Any) -> Messages:
    """The messages of a prompt (`ExtraError` if jinja2 is not installed)."""
    # The system message of `retry` is empty: its file begins with the dashes.
    system, _, user = f"\n{_environment().get_template(f'{name}.md').render(**inputs)}".partition("\n---\n")
    return ("system", system.strip()), ("user", user.strip())


def prompt_hashes() -> dict[str, str]:
    """SHA-256 of every prompt file, by name."""
    return {path.stem: sha256(path.read_bytes()).hexdigest() for path in sorted(PROMPTS.glob("*.md"))}


def numbered(sentences: tuple[str, ...]) -> list[str]:
    """Sentences as prompts show them: numbered, one a line."""
    return [f"[{number}] {' '.join(sentence.split())}" for number, sentence in enumerate(sentences, 1)]


def quoted(answer: str, length: int) -> str:
    """A completion as it is quoted in a retry: truncated to this length, without characters that cannot be sent."""
    sent = answer[:length].encode("utf-8", "replace").decode()
    sent = "".join(character if character.isprintable() or character in "\n\t" else "?" for character in sent)
    if len(answer) > length:
        sent += f"\n(cut here; {len(answer)} characters in all)"
    return sent if sent.strip() else "(an empty answer)"


@lru_cache
def _environment() -> Any:
    jinja2 = require("jinja2", "curate")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROMPTS),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment
