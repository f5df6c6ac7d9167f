"""The page in a real browser: live generations, replay, files, keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from multiverse.evaluation.recording import link, recording
from multiverse.evaluation.sample import Sample
from multiverse.serving.parse import replay
from multiverse.structure import DIALECTS, MULTIVERSE, MULTIVERSE_ANSWER, render
from tests.cli.scripted import FORKED
from tests.serving.browser import new_page, wait_until
from tests.serving.conftest import Site
from tests.serving.imagined import Moment, Plan, generation
from tests.serving.pages import (
    LINE,
    NESTED,
    QUESTION,
    ask,
    at,
    finished,
    give,
    texts,
    view_documents,
    visit,
)
from tests.serving.playback import STATIC, Playback

# ---- watching


def test_lanes_fill_side_by_side_while_they_are_written(page: Page, server: Playback) -> None:
    server.hold(at("fork", branch="1") - 1)
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.trunk > .block > .lanes > .lane[data-stage=running]').length === 2")
    assert texts(page, ".trunk > .text") == ["Two people."]
    assert texts(page, ".lane .chip")[0] == "1"
    assert texts(page, ".trunk > .block > .lanes > .lane > .card > .head > .title") == ["Mia", "Tom"]
    assert page.evaluate("document.querySelector('.trunk > .block').dataset.stage") == "running"
    mia, tom = (texts(page, f".lanes > .lane:nth-child({n}) > .card > .body > .text")[0] for n in (1, 2))
    assert mia == "Mia counts twice."
    assert tom.startswith("Tom counts")
    assert not tom.endswith("4.")
    tops = page.evaluate(
        "[...document.querySelectorAll('.trunk > .block > .lanes > .lane')].map(e => e.getBoundingClientRect().top)"
    )
    assert tops[0] == tops[1]
    assert texts(page, ".answer") == []


def test_an_answer_that_forks_stands_in_the_tree_with_its_blocks(page: Page, server: Playback) -> None:
    moments = replay(render(FORKED, MULTIVERSE_ANSWER), MULTIVERSE_ANSWER)["events"]
    server.answer = lambda _: moments
    ask(page)
    assert texts(page, ".trunk > .text") == ["Two questions.", "And a third.", "Answer: 3"]
    assert texts(page, ".trunk > .block > .lanes > .lane > .card > .head > .title") == ["Bread", "The sky", "Magnets"]
    assert texts(page, ".lane .lane .title") == ["Flour", "Water"]
    assert texts(page, ".trunk > .block > .is-conclusion") == ["One is made, one is seen."]
    assert texts(page, ".answer") == []  # nothing of it twice
    assert page.evaluate("document.querySelector('#status').textContent").startswith("Answer: Two questions.")


def test_outlines_are_seen_before_the_fork(page: Page, server: Playback) -> None:
    server.hold(at("fork") - 1)
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane[data-stage=planned]').length === 2")
    assert texts(page, ".lane .title") == ["Mia", "Tom"]
    assert page.evaluate("document.querySelector('.block').dataset.stage") == "planned"


def test_a_nested_block_joins_while_its_parent_s_sibling_goes_on(page: Page, server: Playback) -> None:
    server.hold(at("join", branch="1"))
    ask(page, over=False)
    wait_until(page, "!!document.querySelector('.lane .block[data-stage=joined]')")
    assert texts(page, ".lane .lane .title") == ["left hand", "right hand"]
    assert texts(page, ".lane .lane .text") == ["one two three four", "one two"]
    stages = page.evaluate("[...document.querySelectorAll('.trunk > .block > .lanes > .lane')].map(e => e.dataset.stage)")
    assert stages == ["running", "running"]
    assert page.evaluate("document.querySelector('.trunk > .block').dataset.stage") == "running"
    server.go()
    finished(page)
    assert texts(page, ".lane .is-conclusion") == ["four and two make six"]
    assert texts(page, ".lane .block + .text") == ["Mia has 6."]


def test_the_end_shows_the_join_the_conclusion_and_the_answer(page: Page) -> None:
    ask(page)
    assert texts(page, ".trunk > .block > .is-conclusion") == ["six and four make ten"]
    assert texts(page, ".answer .text") == ["10"]
    assert page.evaluate("document.querySelector('.trunk > .block').dataset.stage") == "joined"
    assert set(page.evaluate("[...document.querySelectorAll('.lane')].map(e => e.dataset.stage)")) == {"ended"}
    assert texts(page, ".lane .count") == [str(n) for n in own_tokens("1", "1.1", "1.2", "2")]
    assert page.evaluate("document.querySelector('#status').textContent") == "Answer: 10"


def own_tokens(*branches: str) -> list[int]:
    return [max(m["tokens"]["branch"] for m in NESTED if "tokens" in m and m["branch"] == branch) for branch in branches]


def test_the_page_says_what_the_model_is_and_what_it_is_not_for(browser: Browser, server: Playback, errors: list[str]) -> None:
    example = "What is 7 times 7?"
    server.about = {"text": "A model of squares.", "example": example, "otherwise": "Else: big.", "least_logprob": -3.0}
    server.notice = "This is no question for it."
    with new_page(browser, errors) as page:
        visit(page, server)
        assert texts(page, "#about") == [f"A model of squares. For example: {example} Else: big."]
        ask(page)
        wait_until(page, "!document.querySelector('#notice').hidden")
        assert texts(page, "#notice") == [server.notice]
        assert ("/familiarity", {"question": QUESTION, "model": "multiverse-mini"}) in server.requests
        assert not page.is_visible("#about .example")
        server.notice = None
        page.keyboard.press("n")  # another conversation
        page.click("#about button")
        finished(page)
        assert texts(page, ".bubble") == [example]
        assert not page.is_visible("#notice")


def test_requests_of_the_page(page: Page, server: Playback) -> None:
    page.click("#options summary")
    for field, value in (("temperature", "0.5"), ("max-tokens", "99"), ("budget", "50"), ("seed", "7")):
        page.evaluate(f"document.querySelector('#{field}').value = '{value}'")
    ask(page)
    assert server.requests == [
        (
            "/v1/chat/completions",
            {
                "model": "multiverse-mini",
                "messages": [{"role": "user", "content": QUESTION}],
                "temperature": 0.5,
                "max_tokens": 99,
                "seed": 7,
                "stream": True,
                "multiverse": {"branches": True, "mode": "parallel", "thinking_budget": 50},
            },
        )
    ]


def test_the_sequential_run_is_shown_with_its_own_clock(page: Page, server: Playback) -> None:
    ask(page, compare=True)
    assert [body["multiverse"]["mode"] for _, body in server.requests] == ["parallel", "sequential"]
    assert texts(page, ".run-head h2") == ["Parallel", "Sequential"]
    clocks = [f"{moments[-1]['seconds']:.2f} s" for moments in (NESTED, LINE)]
    assert texts(page, ".run-head .clock") == clocks
    assert texts(page, ".line .clock") == clocks
    assert texts(page, ".answer .text") == ["10", "10"]
    assert all(clock in texts(page, "#saving")[0] for clock in clocks)
    left, right = page.evaluate("[...document.querySelectorAll('.run')].map(e => e.getBoundingClientRect().left)")
    assert left < right


def test_a_phone_shows_one_of_two_runs_and_both_clocks(phone: Page) -> None:
    page = phone
    ask(page, compare=True)
    assert texts(page, ".run[data-mode=sequential] .answer") == []
    assert len(texts(page, ".line .clock")) == 2
    page.click("#run-tabs button:nth-child(2)")
    assert texts(page, ".run[data-mode=sequential] .answer .text") == ["10"]
    assert texts(page, ".run[data-mode=parallel] .answer") == []


def test_runs_cut_by_a_limit_are_marked(page: Page, server: Playback) -> None:
    server.answer = lambda _: [*NESTED[:-1], {**NESTED[-1], "finish_reason": "length"}]
    ask(page)
    assert "most tokens" in texts(page, ".ending")[0]


def test_a_model_that_does_not_think_is_shown_too(page: Page, server: Playback) -> None:
    server.answer = lambda _: [moment if moment.get("role") != "answer" else {**moment, "role": "text"} for moment in LINE]
    ask(page)
    assert texts(page, ".trunk > .text")[0].endswith("slowly counted.Answer: 10")
    assert texts(page, ".answer") == []
    assert texts(page, "#saving") == ["Nothing was forked."]


def test_generated_markup_is_shown_as_text(page: Page, server: Playback) -> None:
    nasty = "<img src=x onerror=document.title='gone'><script>document.title='gone'</script>"
    server.answer = lambda _: generation([nasty, Plan([(nasty, [nasty]), ("b", ["b"])], nasty)], nasty)
    ask(page)
    assert texts(page, ".trunk > .text") == [nasty]
    assert texts(page, ".answer .text") == [nasty]
    page.evaluate("document.querySelector('.head').click()")
    assert texts(page, "#lane-title") == [nasty]
    assert page.evaluate("document.title") == "Multiverse"
    assert page.evaluate("document.querySelectorAll('main img, main script, dialog img').length") == 0


# ---- the time line


def test_the_axis_shows_the_critical_path_against_all_tokens(page: Page) -> None:
    ask(page)
    usage = NESTED[-1]["usage"]
    assert texts(page, ".measured.chain .count") == [str(usage["critical_path_tokens"])]
    assert texts(page, ".measured.sum .count") == [str(usage["total_tokens"])]
    width = page.evaluate("document.querySelector('.ruler').clientWidth")
    rights = page.evaluate(
        "[...document.querySelectorAll('.bar:not(.strip)')].map(e => +e.getAttribute('x') + +e.getAttribute('width'))"
    )
    assert max(rights) == pytest.approx(width * usage["critical_path_tokens"] / usage["total_tokens"], abs=1.5)
    strip = page.evaluate("[...document.querySelectorAll('.bar.strip')].map(e => +e.getAttribute('width'))")
    assert sum(strip) == pytest.approx(width, abs=5)
    assert f"{usage['parallelism']:.2f}× parallel" in texts(page, ".line .facts")


def test_in_seconds_both_runs_share_one_axis(page: Page) -> None:
    ask(page, compare=True)
    page.keyboard.press("a")
    wait_until(page, "document.querySelector('#axis-seconds').getAttribute('aria-pressed') === 'true'")
    wait_until(page, "document.querySelectorAll('.bar.strip').length === 0")
    width = page.evaluate("document.querySelector('.ruler').clientWidth")
    ends = page.evaluate(
        "[...document.querySelectorAll('.line[data-mode] > svg')].map(s => Math.max(...[...s.querySelectorAll('.bar')]"
        ".map(e => +e.getAttribute('x') + +e.getAttribute('width'))))"
    )
    longest = max(NESTED[-1]["seconds"], LINE[-1]["seconds"])
    for end, moments in zip(ends, (NESTED, LINE), strict=True):
        assert end == pytest.approx(width * moments[-1]["seconds"] / longest, rel=0.1)


def test_a_replay_ends_where_it_began(page: Page) -> None:
    ask(page)
    before = page.evaluate("document.querySelector('#stage').textContent")
    page.keyboard.press("Space")
    wait_until(page, "document.body.dataset.player === 'playing'")
    assert page.evaluate("document.querySelector('#stage').textContent") != before
    page.evaluate(
        "(() => { const s = document.querySelector('#speed'); s.value = '8'; s.dispatchEvent(new Event('change')); })()"
    )
    wait_until(page, "document.body.dataset.player === 'paused'")
    assert page.evaluate("document.querySelector('#stage').textContent") == before


def test_seeking_along_the_time_line(page: Page) -> None:
    ask(page)
    page.keyboard.press("Home")
    wait_until(page, "document.querySelectorAll('.lane').length === 0")
    page.keyboard.press("Shift+ArrowRight")
    wait_until(page, "document.querySelectorAll('.lane').length > 0")
    few = len(texts(page, ".lane"))
    page.keyboard.press("Shift+ArrowRight")
    wait_until(
        page, f"document.querySelectorAll('.lane').length > {few} || document.querySelectorAll('.lane .text').length > 0"
    )
    assert page.evaluate("document.querySelectorAll('.bar.ghost').length") > 0
    page.keyboard.press("End")
    wait_until(page, "!!document.querySelector('.run[data-state=over]')")
    assert texts(page, ".answer .text") == ["10"]
    box = page.evaluate(
        "(() => { const b = document.querySelector('.ruler').getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
    )
    page.mouse.click(box[0] + 2, box[1] - 20)
    wait_until(page, "document.querySelectorAll('.lane').length === 0 && !document.querySelector('.run[data-state=over]')")


def test_pausing_a_live_generation_loses_no_events(page: Page, server: Playback) -> None:
    server.hold(at("fork"))
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane[data-stage=running]').length === 2")
    page.click("#play")
    wait_until(page, "document.body.dataset.player === 'paused'")
    server.go()
    wait_until(page, "!document.body.hasAttribute('data-busy')")
    assert texts(page, ".answer") == []
    page.keyboard.press("End")
    wait_until(page, "!!document.querySelector('.answer:not([hidden])')")


# ---- files and documents


def test_a_saved_generation_opens_again(page: Page, server: Playback, tmp_path: Path) -> None:
    ask(page, compare=True)
    before = page.evaluate("document.querySelector('#stage').textContent")
    with page.expect_download() as download:
        page.click("#save")
    wait_until(page, "document.querySelector('#status').textContent.startsWith('Saved')")
    name = page.evaluate("document.querySelector('#status').textContent").removeprefix("Saved as ")
    download.value.save_as(tmp_path / name)
    saved = json.loads((tmp_path / name).read_text())
    assert [run["mode"] for run in saved["runs"]] == ["parallel", "sequential"]
    assert saved["runs"][0]["moments"] == NESTED
    page.goto("about:blank")
    page.goto(server.url)
    give(page, name, json.dumps(saved))
    finished(page, 2)
    assert page.evaluate("document.querySelector('#stage').textContent") == before
    assert texts(page, ".bubble") == [QUESTION]


def test_a_plain_list_of_events_opens_too(page: Page) -> None:
    give(page, "moments.json", json.dumps(NESTED))
    finished(page)
    assert texts(page, ".answer .text") == ["10"]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"runs": [{"moments": [{}]}]}',
        '{"version": 9, "runs": [{"moments": []}]}',
        '[{"event": "fork", "branch": ""}]',
    ],
)
def test_a_file_of_something_else_is_refused(page: Page, content: str) -> None:
    give(page, "other.json", content)
    wait_until(page, "!document.querySelector('#notice').hidden")
    assert texts(page, "#notice")[0].startswith("other.json: ")


# ---- samples of an evaluation


def sample() -> Sample:
    return Sample(
        *("worksheet", "7", 0, "parallel", QUESTION, "10", "10", "what was written: 6 · 4", True, "stop", False),
        **{"forks": 2, "total_tokens": 40, "critical_path_tokens": 20, "critical_path_steps": 16, "seconds": 1.5},
    )


def parsing(server: Playback) -> None:
    server.answer = lambda _: [{k: v for k, v in moment.items() if k != "seconds"} for moment in NESTED]


NOTE = "worksheet 7, epoch 0: right, expected 10, answered 10 (stop); 40 tokens, critical path 20 in 16 steps"


def test_a_sample_s_file_is_parsed_and_drawn(page: Page, server: Playback) -> None:
    parsing(server)
    give(page, "0001-7-0.json", json.dumps(recording(sample(), "some/model")))
    finished(page)
    assert server.requests == [("/parse", {"text": "what was written: 6 · 4"})]
    assert texts(page, ".answer .text") == ["10"]
    assert texts(page, ".bubble") == [QUESTION]
    assert texts(page, "#notice") == [NOTE]
    assert page.evaluate("document.querySelector('#notice').dataset.kind") == "note"
    ask(page)
    assert texts(page, "#notice") == []


def test_a_sample_opens_from_its_address(page: Page, server: Playback) -> None:
    parsing(server)
    address = link({**recording(sample(), "m"), "runs": [{"mode": "parallel", "text": "…", "dialect": "npr"}]}, server.url)
    assert address is not None
    for before in ("about:blank", server.url):  # a page that is opened with it, and one that is open already
        server.requests.clear()
        page.goto(before)
        page.goto(address)
        finished(page)
        assert server.requests == [("/parse", {"text": "…", "dialect": "npr"})]
        assert texts(page, "#notice") == [NOTE]
        assert texts(page, ".answer .text") == ["10"]
        assert page.evaluate("location.hash") == "#ask"


def test_a_sample_that_breaks_the_grammar_is_shown_as_text_with_its_fault(
    page: Page, server: Playback, errors: list[str]
) -> None:
    server.refusal = (400, {}, "line 1, offset 6: found 'x', expected a goal")
    give(page, "sample.json", json.dumps(recording(sample(), "m")))
    wait_until(page, "!document.querySelector('#source-problem').hidden")
    assert page.evaluate("document.querySelector('#source').value") == "what was written: 6 · 4"
    assert texts(page, "#source-problem") == ["line 1, offset 6: found 'x', expected a goal"]
    expect_failed_requests(errors, "400")


@pytest.mark.parametrize("packed", ["eJxTAQ", "not base64!", "e30"])
def test_a_truncated_address_is_reported(page: Page, server: Playback, packed: str) -> None:
    page.goto(f"{server.url}#sample={packed}")
    wait_until(page, "!document.querySelector('#notice').hidden")
    assert "cut short" in texts(page, "#notice")[0]


def test_a_document_is_drawn_as_the_server_parses_it(page: Page, server: Playback) -> None:
    # The server that parses gives no seconds, and no finish.
    server.answer = lambda _: [{k: v for k, v in moment.items() if k != "seconds"} for moment in NESTED[:-1]]
    view_documents(page)
    page.click("#source")
    page.keyboard.insert_text("some document")
    page.evaluate("document.querySelector('#dialect').value = 'npr'")
    page.click("#document-form .primary")
    wait_until(page, "!!document.querySelector('.run[data-state=over]')")
    assert server.requests == [("/parse", {"text": "some document", "dialect": "npr"})]
    assert texts(page, ".lane .title") == ["Mia", "left hand", "right hand", "Tom"]
    assert texts(page, ".answer .text") == ["10"]
    assert texts(page, ".line .clock") == [""] or texts(page, ".line .clock") == []
    page.keyboard.press("Home")
    wait_until(page, "document.querySelectorAll('.lane').length === 0")


def test_an_error_in_a_document_is_located(page: Page, server: Playback, errors: list[str]) -> None:
    server.refusal = (400, {}, "line 2, offset 6: found 'x', expected a goal")
    view_documents(page)
    page.evaluate("document.querySelector('#source').value = 'first\\nsecond\\nthird'")
    page.click("#document-form .primary")
    wait_until(page, "!document.querySelector('#source-problem').hidden")
    assert texts(page, "#source-problem") == ["line 2, offset 6: found 'x', expected a goal"]
    assert (
        page.evaluate(
            "(() => { const s = document.querySelector('#source'); return s.value.slice(s.selectionStart, s.selectionEnd); })()"
        )
        == "second"
    )
    expect_failed_requests(errors, "400")


def test_the_generation_shown_can_be_exported_as_text(page: Page) -> None:
    ask(page)
    view_documents(page)
    page.click("#current")
    text = page.evaluate("document.querySelector('#source').value")
    assert text.startswith("Two people.")
    order = [
        text.index(part)
        for part in ("Mia counts", "one two three four", "four and two", "Mia has 6", "Tom counts", "Answer: 10")
    ]
    assert order == sorted(order)


# ---- what goes wrong


def expect_failed_requests(errors: list[str], reason: str) -> None:
    """Clear the failed requests that the browser reports, after checking that there are some and all for this reason."""
    assert errors
    assert all(reason in error for error in errors)
    errors.clear()


def test_a_key_is_requested_and_kept_in_the_tab_only(page: Page, server: Playback, errors: list[str]) -> None:
    server.key = "secret"
    ask(page, over=False)
    wait_until(page, "document.querySelector('#key-dialog').open")
    page.keyboard.insert_text("wrong")
    with page.expect_response("**/v1/chat/completions"):  # refused again, after the dialog has closed
        page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#key-dialog').open")
    page.evaluate("document.querySelector('#key').value = ''")
    page.keyboard.insert_text("secret")
    page.keyboard.press("Enter")
    finished(page)
    assert texts(page, ".answer .text") == ["10"]
    assert page.evaluate("Object.values(sessionStorage)") == ["secret"]
    assert "secret" not in page.evaluate("Object.values(localStorage).join()")
    expect_failed_requests(errors, "401")


def test_a_busy_server_is_reported_and_the_request_can_be_repeated(page: Page, server: Playback, errors: list[str]) -> None:
    server.refusal = (429, {"retry-after": "3"}, "the queue is full")
    ask(page, over=False)
    wait_until(page, "!document.querySelector('#notice').hidden")
    assert "wait 3 s" in texts(page, "#notice")[0]
    assert page.evaluate("document.querySelector('#dock').hidden")
    server.refusal = None
    page.click("#notice button")
    finished(page)
    expect_failed_requests(errors, "429")


def test_an_error_within_a_stream_keeps_the_tokens_before_it(page: Page, server: Playback) -> None:
    server.answer = lambda _: [*NESTED[: at("fork") + 6], {"error": {"message": "the model gave no numbers"}}]
    ask(page, over=False)
    wait_until(page, "!document.querySelector('#notice').hidden")
    assert texts(page, "#notice")[0].startswith("the model gave no numbers")
    wait_until(page, "document.querySelector('.ending')?.textContent === 'Stopped.'")
    assert texts(page, ".lane .title") == ["Mia", "Tom"]


def test_stopping_closes_the_connection(page: Page, server: Playback) -> None:
    server.hold(at("fork"))
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane[data-stage=running]').length === 2")
    page.keyboard.press("Escape")
    wait_until(page, "!document.body.hasAttribute('data-busy')")
    assert server.hung_up.wait(60)
    wait_until(page, "document.querySelector('.ending')?.textContent === 'Stopped.'")
    assert texts(page, "#notice") == []


def test_an_unreachable_server(page: Page, server: Playback, errors: list[str]) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    ask(page, over=False)
    wait_until(page, "!document.querySelector('#notice').hidden")
    assert "cannot be reached" in texts(page, "#notice")[0]
    assert server.requests == []
    expect_failed_requests(errors, "ERR_CONNECTION_REFUSED")


# ---- keyboard, dark, small, large


def test_everything_by_keyboard(page: Page, server: Playback) -> None:
    page.keyboard.press("c")
    assert page.evaluate("document.querySelector('#compare').checked")
    page.keyboard.press("c")
    page.keyboard.press("/")
    page.keyboard.insert_text("by hand")
    page.keyboard.press("Enter")
    finished(page)
    assert server.requests[0][1]["messages"][0]["content"] == "by hand"
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Branch 1 Mia, closed"
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Branch 1.1 left hand, closed"
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#lane-dialog').open")
    assert texts(page, "#lane-title") == ["Mia"]
    assert texts(page, "#lane-text p") == [
        "Mia counts twice.",
        "one two three four",
        "one two",
        "four and two make six",
        "Mia has 6.",
    ]
    page.keyboard.press("ArrowRight")
    assert texts(page, "#lane-title") == ["left hand"]
    page.keyboard.press("Escape")
    wait_until(page, "!document.querySelector('#lane-dialog').open")
    page.keyboard.press("?")
    assert page.evaluate("document.querySelector('#help-dialog').open")
    page.keyboard.press("Escape")
    speed = page.evaluate("document.querySelector('#speed').value")
    page.keyboard.press(">")
    wait_until(page, f"document.querySelector('#speed').value !== '{speed}'")


def lightness(page: Page) -> float:
    """Of the ground, from 0 to 1."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    found = re.match(r"oklch\(([0-9.]+)", color)
    assert found is not None, color
    return float(found[1])


def test_the_theme_follows_the_system_unless_chosen(page: Page) -> None:
    assert lightness(page) > 0.9
    page.emulate_media(color_scheme="dark")
    assert lightness(page) < 0.3
    page.keyboard.press("t")
    assert lightness(page) > 0.9
    page.emulate_media(color_scheme="light")
    page.keyboard.press("t")
    assert lightness(page) < 0.3
    page.reload()
    wait_until(page, "document.documentElement.dataset.theme === 'dark'")
    page.keyboard.press("t")
    assert lightness(page) > 0.9


WIDE = generation(
    [
        "Case by case.",
        Plan([(f"case {n} of a long list of cases", ["so we go on and on " * (8 + 20 * (n % 4))]) for n in range(20)], "All."),
    ],
    "yes",
)


def deep(levels: int) -> list[str | Plan]:
    if not levels:
        return ["at the bottom of it all there is still something to be said"]
    return ["down", Plan([(f"{side} side of level {levels}", deep(levels - 1)) for side in ("this", "that")], "up again")]


DEEP = generation(deep(4), "through")


@pytest.mark.parametrize(
    ("moments", "width", "phone"),
    [(WIDE, 1440, False), (WIDE, 390, True), (DEEP, 1440, False), (DEEP, 820, False), (DEEP, 390, True)],
    ids=["20 lanes", "20 lanes on a phone", "depth 4", "depth 4 on a tablet", "depth 4 on a phone"],
)
def test_nothing_overflows_the_window(
    browser: Browser, server: Playback, errors: list[str], moments: list[Moment], width: int, phone: bool
) -> None:
    server.answer = lambda _: moments
    with new_page(browser, errors, width, 844, phone=phone) as page:
        ask(visit(page, server))
        check_edges(page, width, phone, cards=30 if moments is DEEP else 20)


def check_edges(page: Page, width: int, phone: bool, cards: int) -> None:
    wait_until(
        page,
        "Math.min(...[...document.querySelectorAll('.card')].map(e => e.clientWidth))" + (" >= 140" if phone else " >= 165"),
    )
    assert len(texts(page, ".card")) == cards
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    out = page.evaluate(
        f"[...document.querySelectorAll('.card, .text')].filter(e => e.getBoundingClientRect().right > {width}).length"
    )
    assert out == 0


def test_long_branches_show_their_ends_and_can_be_read_whole(page: Page, server: Playback) -> None:
    server.answer = lambda _: WIDE
    ask(page)
    heights = page.evaluate(
        "[...document.querySelectorAll('.lane .text')].map(e => [e.clientHeight, e.scrollHeight, e.scrollTop])"
    )
    assert max(height for height, _, _ in heights) < 330
    cut = [(height, all_of_it, top) for height, all_of_it, top in heights if all_of_it > height]
    assert cut
    assert all(top == pytest.approx(all_of_it - height, abs=2) for height, all_of_it, top in cut)
    page.evaluate("document.querySelectorAll('.head')[3].click()")
    assert texts(page, "#lane-text") == [("so we go on and on " * 68).strip()]


def test_lanes_are_spread_evenly_over_the_rows_that_they_take(page: Page) -> None:
    columns = page.evaluate(
        "import('./static/stage.js').then(({columns}) =>"
        " [[20, 1400, 208], [4, 1400, 208], [7, 1400, 208], [4, 380, 172],"
        " [2, 340, 172], [2, 380, 172], [3, 380, 172], [1, 90, 172]]"
        ".map(each => columns(...each)))"
    )
    assert columns == [5, 4, 4, 2, 1, 2, 1, 1]


# ---- the files


def own_files() -> list[Any]:
    """The page's files without the libraries that it comes with."""
    return [file for file in STATIC.iterdir() if file.is_file()]


def test_the_page_is_whole_and_loads_nothing_from_elsewhere() -> None:
    files = {file.name: file.read_text() for file in own_files()}
    index = files["index.html"]
    for name in re.findall(r'(?:src|href)="static/([^"]+)"', index):
        assert name in files
    for name, text in files.items():
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert STATIC.joinpath(*imported.split("/")).is_file(), f"{name} imports {imported}"
        addresses = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, f"{name} speaks of {addresses}"
        assert not re.findall(r'(?:src|href|action)="/', text), f"{name} has an address that a path prefix would break"
        assert len(text.splitlines()) < 600, name


def test_only_the_dialects_spell_tags() -> None:
    tags = {tag for dialect in DIALECTS.values() for tag in dialect.tags} | set(MULTIVERSE.tags)
    for file in own_files():
        if file.name != "index.html":  # there, tags of other dialects would be HTML's own
            assert not [tag for tag in tags if tag in file.read_text()], file.name
    index = (STATIC / "index.html").read_text()
    assert not [tag for tag in MULTIVERSE.tags if tag in index]


def test_a_running_generation_does_not_leave_the_document_viewer(page: Page, server: Playback) -> None:
    page.set_viewport_size({"width": 1440, "height": 500})
    server.hold(at("fork") - 1)
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.trunk > .text').length > 0")
    view_documents(page)
    server.go()
    finished(page)
    page.evaluate("new Promise((done) => setTimeout(done, 300))")  # the page follows for 200 ms after the last change
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("d")
    wait_until(page, "document.querySelector('#ask-form').checkVisibility()")


def test_security_headers_of_the_page() -> None:
    for file in own_files():
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), file.name


# ---- the real server


@pytest.fixture
def real(browser: Browser, mini: Site, errors: list[str]) -> Iterator[Page]:
    with new_page(browser, errors) as page:
        page.goto(mini.url)
        wait_until(page, "document.querySelector('#model').textContent !== ''")
        yield page


def test_the_model_of_the_package_answers_and_its_text_is_a_document(real: Page) -> None:
    real.click("#examples li:nth-child(3) button")
    finished(real, seconds=180)
    assert texts(real, ".answer .text") == ["6"]
    lanes = texts(real, ".lane .title")
    assert len(lanes) == 5
    view_documents(real)
    real.click("#current")
    source = real.evaluate("document.querySelector('#source').value")
    assert MULTIVERSE.goal.open in source
    real.click("#document-form .primary")
    wait_until(real, "!!document.querySelector('.run[data-mode=document][data-state=over]')")
    assert texts(real, ".lane .title") == lanes
    assert texts(real, ".answer .text") == ["6"]
