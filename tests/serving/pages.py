"""What tests of the page share: recorded generations, and what a user does."""

from __future__ import annotations

import json

from playwright.sync_api import Page

from tests.serving.browser import wait_until
from tests.serving.imagined import Moment, Plan, generation
from tests.serving.playback import Playback

QUESTION = "What do Mia and Tom have together?"

NESTED = generation(
    [
        "Two people.",
        Plan(
            [
                (
                    "Mia",
                    [
                        "Mia counts twice.",
                        Plan([("left hand", ["one two three four"]), ("right hand", ["one two"])], "four and two make six"),
                        "Mia has 6.",
                    ],
                ),
                ("Tom", ["Tom counts slowly and has, after a long while in which nothing else happens at all, exactly 4."]),
            ],
            "six and four make ten",
        ),
    ],
    "10",
)

LINE = generation(["Mia has 6 and Tom has 4 which makes ten in all, slowly counted."], "10")


def at(event: str, moments: list[Moment] = NESTED, *, branch: str = "") -> int:
    """Number of events up to and including this one."""
    return next(n for n, moment in enumerate(moments, 1) if (moment["event"], moment["branch"]) == (event, branch))


def visit(page: Page, server: Playback) -> Page:
    page.goto(server.url)
    wait_until(page, "document.querySelector('#model').textContent === 'multiverse-mini'")
    return page


def ask(page: Page, *, compare: bool = False, over: bool = True) -> None:
    """Ask the question as a user would."""
    if compare:
        page.click("label.switch")
    page.click("#question")
    page.keyboard.insert_text(QUESTION)
    page.keyboard.press("Enter")
    if over:
        finished(page, 2 if compare else 1)


def finished(page: Page, runs: int = 1, seconds: float = 60) -> None:
    wait_until(
        page,
        f"document.querySelectorAll('.run[data-state=over]').length === {runs} && !document.body.hasAttribute('data-busy')",
        seconds,
    )


def texts(page: Page, selector: str) -> list[str]:
    """The text of everything that a selector finds and that can be seen."""
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility())"
        ".map(e => e.textContent.trim())"
    )
    return found


def give(page: Page, name: str, text: str) -> None:
    """Open a file."""
    page.evaluate(
        "(() => { const all = new DataTransfer();"
        f" all.items.add(new File([{json.dumps(text)}], {json.dumps(name)}));"
        " const input = document.querySelector('#file');"
        " input.files = all.files; input.dispatchEvent(new Event('change')); })()"
    )


def view_documents(page: Page) -> None:
    page.keyboard.press("d")
    wait_until(page, "document.querySelector('#document-form').checkVisibility()")
