"""The pictures of docs/page.md: `python -m tests.serving.pictures docs`.

What the embedded model writes is recorded first and played back then, so that a picture can be taken at any event. The
two large ones are written by hand: no model in a package forks into twenty branches.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.serving.browser import chromium, find_chromium, new_page, wait_until
from tests.serving.imagined import Moment, Plan, generation
from tests.serving.playback import Playback

SIDE_BY_SIDE = (
    "Mia: start with 16, halve it, halve it, double it and halve it. Tom: start with 16, take away 7, add 8, double it and "
    "take away 10. Ana: start with 30, add 20, take away 14, add 4, halve it and double it. Ben: start with 24, add 13, double "
    "it, add 9 and add 15. What do all the results add up to?"
)
TEAMS = (
    "Red team: Mia begins at 30, then doubles it and adds 19; Tom begins at 15, then adds 11 and halves it; Ana begins at 26, "
    "then triples it and adds 14. Blue team: Ben begins at 20, then triples it and takes away 3; Eva begins at 8, then triples "
    "it and halves it. Add up the results of both teams."
)
REMAINDERS = "Show that n and its fifth power always end in the same digit."
SQUARES = "What is the sum of the squares from 1 to 16?"


def record(llm: Any, question: str, mode: Any) -> list[Moment]:
    """What the model writes, with the seconds that it took."""
    from multiverse import SamplingParams
    from multiverse.prompting import ask
    from multiverse.streaming import wire_events

    begin = time.perf_counter()
    moments: list[Moment] = [{"event": "start", "branch": "", "parent": None, "id": "recorded", "model": "multiverse-mini"}]
    for event in llm.stream(ask(question, mode), SamplingParams(temperature=0, max_tokens=2000)):
        for wired in wire_events(event):
            moments.append({**wired.to_json(), "seconds": round(time.perf_counter() - begin, 4)})
    return moments


def remainders() -> list[Moment]:
    """Twenty branches."""

    def case(r: int) -> str:
        square, fourth, fifth = r**2 % 20, r**4 % 20, r**5 % 20
        return (
            f"Write n = 20k + {r}. Then n² leaves {square} when divided by 20, so n⁴ leaves {square}² = {square**2}, which is "
            f"{fourth}, and n⁵ leaves {fourth} · {r} = {fourth * r}, which is {fifth}. So n⁵ ends in {fifth % 10}, and n "
            f"itself ends in {r % 10}: the same digit, whatever k is."
        )

    plan = Plan(
        [(f"n leaves {r}", [case(r)]) for r in range(20)],
        "No remainder is left over, and in none of them do the digits differ.",
    )
    return generation(
        ["Whatever n is, it leaves one of twenty remainders when divided by 20. I look at each by itself.", plan], "They do."
    )


def squares(first: int, last: int) -> list[str | Plan]:
    """The sum of these squares by halves."""
    if first == last:
        return [f"{first}² = {first} · {first} = {first * first}."]
    middle = (first + last) // 2
    halves = [(first, middle), (middle + 1, last)]
    sums = [sum(n * n for n in range(low, high + 1)) for low, high in halves]
    lanes = [(f"{low} to {high}" if low < high else f"square of {low}", squares(low, high)) for low, high in halves]
    return ["Half by half.", Plan(lanes, f"{sums[0]} + {sums[1]} = {sum(sums)}.")]


def put(page: Page, server: Playback, question: str, runs: dict[str, list[Moment]], until: int | None = None) -> None:
    """Ask, and play up to this event."""
    server.answer = lambda body: runs[body["multiverse"]["mode"]]
    server.hold(until)
    page.goto(server.url)
    if len(runs) > 1:
        page.evaluate("document.querySelector('#compare').checked = true")
    page.evaluate(f"document.querySelector('#question').value = {json.dumps(question)}")
    page.evaluate("document.querySelector('#ask-form').requestSubmit()")
    if until is None:
        wait_until(page, f"document.querySelectorAll('.run[data-state=over]').length === {len(runs)}")
    else:
        wait_until(
            page, f"document.querySelector('#chart').getAttribute('aria-valuetext').includes(' {shown_tokens(runs, until)} ')"
        )
    time.sleep(1.5)  # until all transitions have ended


def shown_tokens(runs: dict[str, list[Moment]], until: int) -> int:
    """Tokens by then."""
    return int(runs["parallel"][until - 1]["tokens"]["total"])


def take(folder: Path, recorded: dict[str, dict[str, list[Moment]]]) -> None:
    """Take all pictures."""
    path = find_chromium()
    if path is None:
        raise SystemExit("Chromium is not installed: name one with CHROMIUM=/path/to/it")
    side, teams = recorded["side"], recorded["teams"]
    alone = {"parallel": teams["parallel"]}
    inner = [n for n, moment in enumerate(alone["parallel"]) if moment["event"] == "join"][1]
    wide, deep = {"parallel": remainders()}, {"parallel": generation(squares(1, 16), "1496")}
    with Playback() as server, chromium(path) as browser:

        def shot(name: str, *what: Any, width: int = 1440, height: int = 900, **screen: Any) -> None:
            with new_page(browser, [], width, height, still=False, **screen) as page:
                put(page, server, *what)
                page.screenshot(path=folder / f"page-{name}.png")
                server.go()

        shot("fork", SIDE_BY_SIDE, {"parallel": side["parallel"]}, int(len(side["parallel"]) * 0.62))
        shot("nested", TEAMS, alone, inner + 12)
        shot("dark", TEAMS, alone, inner - 30, dark=True)
        shot("phone", TEAMS, alone, inner - 30, width=390, height=844, scale=2, phone=True)
        shot("compare", TEAMS, teams)
        shot("wide", REMAINDERS, wide, int(len(wide["parallel"]) * 0.75), width=1280, height=1080)
        shot("deep", SQUARES, deep, int(len(deep["parallel"]) * 0.8), height=1150)
        server.answer = lambda _: alone["parallel"]
        take_document(browser, server.url, "".join(document(alone["parallel"])), folder / "page-document.png")


def take_document(browser: Browser, url: str, text: str, file: Path) -> None:
    """The document viewer with this text."""
    with new_page(browser, [], still=False) as page:
        page.goto(url + "#document")
        page.evaluate(f"document.querySelector('#source').value = {json.dumps(text.strip())}")
        page.evaluate("document.querySelector('#document-form').requestSubmit()")
        wait_until(page, "!!document.querySelector('.run[data-state=over]')")
        time.sleep(1.5)
        page.screenshot(path=file)


def document(moments: list[Moment], branch: str = "") -> list[str]:
    """The text of a branch and those below it, in the order of the document."""
    parts: list[str] = []
    for moment in moments:
        if moment["branch"] == branch and moment["event"] == "token":
            parts.append(moment["text"])
        elif moment["branch"] == branch and moment["event"] == "fork":
            for label in moment["labels"]:
                parts += document(moments, label)
    return parts


def main() -> None:
    """Record, then take the pictures."""
    from multiverse import LLM

    llm = LLM()
    record(llm, "Warm up.", "parallel")
    questions = {"side": SIDE_BY_SIDE, "teams": TEAMS}
    modes = ("parallel", "sequential")
    take(Path(sys.argv[1]), {name: {mode: record(llm, text, mode) for mode in modes} for name, text in questions.items()})


if __name__ == "__main__":
    main()
