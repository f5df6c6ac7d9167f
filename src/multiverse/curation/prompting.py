"""Load and fill the prompts.

A prompt is a file under `prompts/`: the system message, a line of three dashes, the user's message. Every user's message
says in lines of its own which stage asks and about which row.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExtraError

if TYPE_CHECKING:
    import jinja2

PROMPTS = Path(__file__).parent / "prompts"

Messages = tuple[tuple[str, str], ...]


def fill(name: str, **inputs: Any) -> Messages:
    """The messages of a prompt (`ExtraError` if the library that fills it is not installed)."""
    # The system message of `retry` is empty: its file begins with the dashes.
    system, _, user = f"\n{_environment().get_template(f'{name}.md').render(**inputs)}".partition("\n---\n")
    return ("system", system.strip()), ("user", user.strip())


def prompt_hashes() -> dict[str, str]:
    """SHA-256 of every prompt file by its name."""
    return {path.stem: sha256(path.read_bytes()).hexdigest() for path in sorted(PROMPTS.glob("*.md"))}


def numbered(sentences: tuple[str, ...]) -> list[str]:
    """Sentences as prompts show them: numbered, each on a line of its own."""
    return [f"[{number}] {' '.join(sentence.split())}" for number, sentence in enumerate(sentences, 1)]


def quoted(answer: str, length: int) -> str:
    """An answer as it is shown again: cut to this length, with nothing in it that cannot be sent."""
    sent = answer[:length].encode("utf-8", "replace").decode()
    sent = "".join(character if character.isprintable() or character in "\n\t" else "?" for character in sent)
    if len(answer) > length:
        sent += f"\n(cut here; {len(answer)} characters in all)"
    return sent if sent.strip() else "(an empty answer)"


@lru_cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError as error:
        raise ExtraError("jinja2", "curate") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROMPTS),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment
