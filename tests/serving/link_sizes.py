"""How long links are, as docs/page.md says: `python -m tests.serving.link_sizes` prints the table."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page

from multiverse import LLM
from tests.serving.browser import chromium, find_chromium, new_page
from tests.serving.pictures import SIDE_BY_SIDE, TEAMS, record
from tests.serving.playback import Playback

ASKED = (
    "What is a glacier, and what is a volcano?",
    "How do I keep bread fresh, and how do I keep cheese fresh?",
    "What is copper used for, what is tin used for, and what is zinc used for?",
    "Why is the sky blue, and why is grass green?",
)


def tokens_of(turns: list[dict[str, Any]]) -> int:
    """The tokens of all runs."""
    return sum(run["moments"][-1]["usage"]["total_tokens"] for turn in turns for run in turn["runs"])


def length(page: Page, turns: list[dict[str, Any]]) -> int:
    """Characters of what a link to these turns holds."""
    packed: str = page.evaluate(f"import('./static/recording.js').then(({{ packLink }}) => packLink({json.dumps(turns)}))")
    return len(packed)


def turn(llm: LLM, question: str, *modes: str) -> dict[str, Any]:
    """A question and its answers."""
    runs = [{"mode": mode, "moments": record(llm, question, mode)} for mode in modes]
    return {"question": question, "model": "multiverse", "note": "", "runs": runs}


def main() -> None:
    """Ask, and print the sizes as Markdown."""
    path = find_chromium()
    assert path is not None, "this needs Chromium"
    mini, smol = LLM(), LLM("multiverse-smol")
    sums = [turn(mini, text, "parallel", "sequential") for text in (SIDE_BY_SIDE, TEAMS)]
    prose = [turn(smol, text, "parallel") for text in ASKED]
    cases = {
        "a sum of multiverse-mini": [{**sums[0], "runs": sums[0]["runs"][:1]}],
        "the same, also asked sequentially": sums[:1],
        "an answer of multiverse-smol in prose": prose[:1],
        "four of them": prose,
        "a conversation of twenty": prose * 5,
    }
    errors: list[str] = []
    with Playback() as playback, chromium(path) as browser, new_page(browser, errors) as page:
        page.goto(playback.url)
        print("| what | tokens | characters | characters per token |\n|---|---|---|---|")
        for name, turns in cases.items():
            tokens, size = tokens_of(turns), length(page, turns)
            print(f"| {name} | {tokens:,} | {size:,} | {size / tokens:.1f} |")
    assert not errors, errors


if __name__ == "__main__":
    main()
