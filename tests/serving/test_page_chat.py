"""Conversations on the page: turns, versions, history, links, options; what stays when the server or the page goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.serving.browser import new_page, wait_until
from tests.serving.conftest import Site
from tests.serving.imagined import Plan, generation
from tests.serving.pages import LINE, NESTED, QUESTION, ask, at, finished, give, texts, view_documents, visit
from tests.serving.playback import Playback

SECOND = "And with Ana?"
OTHER = generation(["Three people.", Plan([("Ana", ["Ana has 2."]), ("Mia and Tom", ["10, as before."])], "12 in all")], "12")


def ask_on(page: Page, question: str, turns: int) -> None:
    page.fill("#question", question)
    page.keyboard.press("Enter")
    wait_until(page, f"document.querySelectorAll('.turn').length === {turns}")
    finished(page)


def sent(server: Playback) -> list[list[dict[str, str]]]:
    """The messages of each question."""
    return [body["messages"] for path, body in server.requests if path == "/v1/chat/completions"]


def reply(moments: list[dict[str, Any]]) -> dict[str, str]:
    tokens = [moment for moment in moments if moment["event"] == "token"]
    content = "".join(moment["text"] for moment in tokens if moment["role"] == "answer")
    reasoning = "".join(moment["text"] for moment in tokens if moment["role"] != "answer")
    return {"role": "assistant", "content": content, "reasoning": reasoning}


# ---- several turns


def test_a_second_question_sends_the_first_answer_with_its_reasoning(page: Page, server: Playback) -> None:
    ask(page)
    server.answer = lambda _: OTHER
    ask_on(page, SECOND, 2)
    user = {"role": "user", "content": QUESTION}
    assert sent(server) == [[user], [user, reply(NESTED), {"role": "user", "content": SECOND}]]
    assert texts(page, ".bubble") == [QUESTION, SECOND]
    assert texts(page, ".said") == ["10"]  # the first answer, with the headings of its branches
    assert texts(page, ".lane-chip") == ["1 Mia", "2 Tom"]
    assert texts(page, ".answer .text") == ["12"]


def test_an_earlier_turn_opens_as_a_tree(page: Page, server: Playback) -> None:
    ask(page)
    server.answer = lambda _: OTHER
    ask_on(page, SECOND, 2)
    page.click(".summary")
    finished(page)
    assert texts(page, ".turn[data-open] .bubble") == [QUESTION]
    assert texts(page, ".lane .title") == ["Mia", "left hand", "right hand", "Tom"]
    assert texts(page, ".said") == ["12"]


def test_an_edited_question_makes_another_version_and_both_stay(page: Page, server: Playback) -> None:
    ask(page)
    ask_on(page, SECOND, 2)
    server.answer = lambda _: OTHER
    page.click(".turn:first-child button:text-is('Edit')")
    page.fill(".editing textarea", "What do three people have?")
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelectorAll('.turn').length === 1")
    finished(page)
    assert sent(server)[-1] == [{"role": "user", "content": "What do three people have?"}]
    assert texts(page, ".versions") == ["‹2 of 2›"]
    assert texts(page, ".answer .text") == ["12"]
    page.click(".versions button:first-child")
    wait_until(page, "document.querySelectorAll('.turn').length === 2")
    assert texts(page, ".bubble") == [QUESTION, SECOND]


def test_what_is_pressed_stays_under_the_pointer(page: Page, server: Playback) -> None:
    page.set_viewport_size({"width": 900, "height": 420})
    server.hold(at("fork"))
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane .head').length > 0")
    head = page.locator(".lane .head").first.bounding_box()
    assert head is not None
    page.mouse.move(head["x"] + 20, head["y"] + 10)
    page.mouse.down()
    server.go()
    finished(page)
    page.evaluate("new Promise((done) => setTimeout(done, 300))")  # the page follows for 200 ms after the last change
    assert page.evaluate("document.documentElement.scrollHeight - innerHeight - scrollY") > 50  # there is something to follow
    page.mouse.up()
    wait_until(page, "document.querySelector('#lane-dialog').open")


def test_keys_that_scroll_end_the_following(page: Page, server: Playback) -> None:
    page.set_viewport_size({"width": 900, "height": 420})
    server.hold(at("fork"))
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane .head').length > 0")
    page.keyboard.press("j")
    server.go()
    finished(page)
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    box = page.evaluate("(({top, bottom}) => ({top, bottom}))(document.activeElement.getBoundingClientRect())")
    assert 0 <= box["top"] < box["bottom"] <= 420


def test_asking_again_keeps_the_first_answer(page: Page, server: Playback) -> None:
    ask(page)
    server.answer = lambda _: OTHER
    page.click("button:text-is('Ask again')")
    wait_until(page, "document.querySelector('.versions').textContent.includes('2 of 2')")
    finished(page)
    assert texts(page, ".answer .text") == ["12"]
    assert sent(server)[0] == sent(server)[1]
    page.click(".versions button:first-child")
    wait_until(page, "document.querySelector('.answer .text').textContent === '10'")


def test_a_turn_that_was_stopped_is_not_sent_again(page: Page, server: Playback) -> None:
    server.hold(at("fork"))
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane').length > 0")
    page.keyboard.press("Escape")
    wait_until(page, "!document.body.hasAttribute('data-busy')")
    server.hold(None)
    ask_on(page, SECOND, 2)
    assert sent(server)[-1] == [{"role": "user", "content": SECOND}]


def test_answers_and_branches_can_be_copied(page: Page, server: Playback) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    ask(page)
    page.click("button:text-is('Copy answer')")
    wait_until(page, "document.querySelector('#status').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == "10"
    page.evaluate("document.querySelector('.head').click()")
    page.click("#lane-copy")
    assert page.evaluate("navigator.clipboard.readText()") == (
        "Mia counts twice.\n\n## 1.1 left hand\n\none two three four\n\n## 1.2 right hand\n\none two\n\n"
        "four and two make six\n\nMia has 6."
    )


def test_options_go_with_the_question_and_stay(page: Page, server: Playback) -> None:
    page.click("#options summary")
    page.select_option("#mode", "as-is")
    page.fill("#top-p", "0.9")
    page.fill("#system", "Be short.")
    ask(page)
    _, body = server.requests[0]
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert body["top_p"] == 0.9
    assert body["multiverse"]["mode"] == "as-is"
    page.reload()
    assert page.input_value("#top-p") == "0.9"
    page.fill("#question", SECOND)
    page.evaluate("document.querySelector('#temperature').value = 7")
    page.keyboard.press("Enter")  # a value out of its range is shown, not sent
    assert page.evaluate("document.querySelector('#options').open")
    assert len(server.requests) == 1


def test_turns_at_a_real_server_read_the_earlier_ones_from_its_cache(
    browser: Browser, scripted: Site, errors: list[str]
) -> None:
    with new_page(browser, errors) as page:
        page.goto(scripted.url)
        page.fill("#question", "the nested one")
        page.keyboard.press("Enter")
        finished(page)
        answer = texts(page, ".answer .text")
        ask_on(page, "nested, once more", 2)
        assert not page.is_visible("#notice")
        assert texts(page, ".answer .text") == answer
        usage = page.evaluate(
            "import('./static/scene.js').then(scene => scene.player.tracks[0].moments.at(-1).usage)",
        )
        assert usage["cached_tokens"] > usage["prompt_tokens"] / 2


# ---- what stays


def test_asking_while_the_server_is_down_keeps_the_last_result(page: Page, server: Playback, errors: list[str]) -> None:
    ask(page)
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    page.fill("#question", SECOND)
    page.keyboard.press("Enter")
    wait_until(page, "!document.querySelector('#notice').hidden && !document.body.hasAttribute('data-busy')")
    assert texts(page, ".answer .text") == ["10"]
    assert texts(page, ".bubble") == [QUESTION]
    assert page.input_value("#question") == SECOND
    page.click("button:text-is('Ask again')")  # another version of the first: that fails too, and loses nothing
    wait_until(page, "!document.querySelector('#notice').hidden && !document.body.hasAttribute('data-busy')")
    assert texts(page, ".answer .text") == ["10"]
    page.unroute("**/v1/chat/completions")
    page.fill("#question", "")
    server.answer = lambda _: OTHER
    page.click("#notice button")
    wait_until(page, "document.querySelector('.answer .text').textContent === '12'")
    assert all("ERR_CONNECTION_REFUSED" in error for error in errors)
    errors.clear()


def test_a_reload_keeps_questions_answers_and_what_is_being_typed(page: Page, server: Playback) -> None:
    ask(page)
    server.answer = lambda _: OTHER
    ask_on(page, SECOND, 2)
    before = page.evaluate("document.querySelector('#turns').textContent")
    page.fill("#question", "not yet as")
    page.reload()
    wait_until(page, f"document.querySelector('#turns').textContent === {json.dumps(before)}")
    assert page.input_value("#question") == "not yet as"
    assert len(server.requests) == 2


def test_a_reload_in_the_middle_keeps_what_was_written(page: Page, server: Playback) -> None:
    server.hold(at("fork", branch="1"))
    ask(page, over=False)
    wait_until(page, "document.querySelectorAll('.lane').length === 4 && !!history.state?.chat", 20)
    page.reload()
    wait_until(page, "document.querySelectorAll('.lane').length === 4")
    assert texts(page, ".bubble") == [QUESTION]
    assert texts(page, ".ending") == ["Stopped."]


def test_the_history_opens_renames_searches_and_deletes(page: Page, server: Playback) -> None:
    ask(page)
    page.click("#new")
    assert page.is_visible(".lead")
    server.answer = lambda _: OTHER
    ask_on(page, SECOND, 1)
    page.click("#history")
    wait_until(page, "document.querySelectorAll('#history-list .open').length === 2")
    assert texts(page, "#history-list .open span") == [SECOND, QUESTION]
    page.fill("#history-search", "mia tom")
    assert texts(page, "#history-list .open span") == [QUESTION]
    page.click("#history-list button:text-is('Rename')")
    page.keyboard.insert_text("Two people")
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#history-list .open span')?.textContent === 'Two people'")
    page.click("#history-list .open")
    wait_until(page, "document.querySelector('.bubble').textContent.includes('Mia and Tom')")  # the other one is over, too
    finished(page)
    assert texts(page, ".bubble") == [QUESTION]
    assert texts(page, ".answer .text") == ["10"]
    page.keyboard.press("h")
    page.click("#history-list li[aria-current] button:text-is('Delete')")
    wait_until(page, "document.querySelectorAll('#history-list .open').length === 1")
    assert page.is_visible(".lead")  # what was deleted is not shown any more
    page.click("#history-clear")
    page.click("#history-clear")
    wait_until(page, "document.querySelectorAll('#history-list .open').length === 0")


def test_a_press_on_another_row_ends_the_renaming_and_counts(page: Page) -> None:
    ask(page)
    page.click("#new")
    ask_on(page, SECOND, 1)
    page.click("#history")
    wait_until(page, "document.querySelectorAll('#history-list .open').length === 2")
    page.click("#history-list li:last-child button:text-is('Rename')")
    page.keyboard.insert_text("Two people")
    page.click("#history-list li:first-child button:text-is('Delete')", delay=300)
    wait_until(page, "document.querySelectorAll('#history-list .open').length === 1")
    assert texts(page, "#history-list .open span") == ["Two people"]


def test_a_link_holds_the_conversation(browser: Browser, page: Page, server: Playback, errors: list[str]) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    ask(page)
    server.answer = lambda _: OTHER
    ask_on(page, SECOND, 2)
    before = page.evaluate("document.querySelector('#turns').textContent")
    page.keyboard.press("l")
    wait_until(page, "document.querySelector('#status').textContent === 'Link copied'")
    address = page.evaluate("navigator.clipboard.readText()")
    assert address.startswith(f"{server.url}#sample=")
    assert len(address) < 2500
    with new_page(browser, errors) as other:
        other.goto(address)
        finished(other)
        shown = other.evaluate("document.querySelector('#turns').textContent")
        # How long the first token took is known only where it was asked.
        assert texts(other, ".bubble") == [QUESTION, SECOND]
        assert texts(other, ".answer .text") == ["12"]
        assert shown.split(" tokens")[0] == before.split(" tokens")[0]
        other.reload()
        finished(other)
        assert texts(other, ".bubble") == [QUESTION, SECOND]


def test_columns_give_the_moments_back(page: Page) -> None:
    for moments in (NESTED, LINE, [{k: v for k, v in moment.items() if k != "seconds"} for moment in NESTED]):
        found = page.evaluate(
            "import('./static/columns.js').then(({ fromColumns, toColumns }) =>"
            f" fromColumns(JSON.parse(JSON.stringify(toColumns({json.dumps(moments)})))))"
        )
        kept = [{k: v for k, v in moment.items() if k not in ("forced", "id") and v is not None} for moment in moments]
        assert [{k: v for k, v in moment.items() if v is not None} for moment in found] == kept


def test_a_saved_conversation_opens_with_all_turns(page: Page) -> None:
    ask(page)
    ask_on(page, SECOND, 2)
    with page.expect_download() as download:
        page.click("#save")
    saved = json.loads(download.value.path().read_text())
    assert saved["question"] == SECOND
    assert [turn["question"] for turn in saved["turns"]] == [QUESTION, SECOND]
    page.click("#new")
    give(page, "two.json", json.dumps(saved))
    finished(page)
    assert texts(page, ".bubble") == [QUESTION, SECOND]


def test_a_document_leaves_the_conversation_as_it_was(page: Page, server: Playback) -> None:
    ask(page)
    server.answer = lambda _: OTHER
    view_documents(page)
    page.fill("#source", "some document")
    page.click("#document-form .primary")
    wait_until(page, "!!document.querySelector('.run[data-mode=document]')")
    assert texts(page, ".bubble") == []
    page.keyboard.press("Escape")
    page.click("#tab-ask")
    wait_until(page, "!!document.querySelector('.run[data-mode=parallel]')")
    assert texts(page, ".bubble") == [QUESTION]
    assert texts(page, ".answer .text") == ["10"]


# ---- nothing covers anything


@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180), (1440, 560)])
def test_nothing_sticky_covers_the_options(
    browser: Browser, server: Playback, errors: list[str], width: int, height: int
) -> None:
    with new_page(browser, errors, width, height) as page:
        ask(visit(page, server), compare=True)
        page.evaluate("scrollTo(0, 0)")
        page.click("#options summary")
        fields = ["mode", "temperature", "top-p", "max-tokens", "budget", "seed", "system", "key-button"]
        for field in fields:
            page.evaluate(f"document.querySelector('#{field}').scrollIntoView({{block: 'nearest'}})")
            assert page.evaluate(
                f"(() => {{ const f = document.querySelector('#{field}'); const b = f.getBoundingClientRect();"
                " return f === document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2); })()"
            ), field
        page.mouse.click(5, height // 3)
        assert not page.is_visible("#options-panel")


def test_what_is_focused_does_not_lie_below_the_dock(page: Page) -> None:
    page.set_viewport_size({"width": 820, "height": 620})
    ask(page, compare=True)
    page.evaluate("scrollTo(0, 0)")
    for _ in range(4):
        page.keyboard.press("j")
        hidden = page.evaluate(
            "document.activeElement.getBoundingClientRect().bottom"
            " - document.querySelector('#dock').getBoundingClientRect().top"
        )
        assert hidden <= 0


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_counts_of_the_time_line_touch_neither_line_nor_tick(
    browser: Browser, server: Playback, errors: list[str], width: int
) -> None:
    with new_page(browser, errors, width, 900) as page:
        ask(visit(page, server), compare=True)
        found = page.evaluate(
            "[...document.querySelectorAll('.measured')].map(text => {"
            " const box = text.getBBox(); const d = text.previousElementSibling.getAttribute('d');"
            " return [box.x, box.x + box.width, d, text.ownerSVGElement.clientWidth]; })"
        )
        assert len(found) == 3
        for left, right, path, room in found:
            assert left >= 0
            assert right <= room
            ticks, lines = [0.5], []
            for part in path.split("M")[1:]:
                start = float(part.split(" ")[0])
                if "v" in part:
                    ticks.append(start)
                else:
                    lines.append((start, float(part.split("H")[1])))
            assert all(tick <= left - 3 or tick >= right + 3 for tick in ticks), (left, right, path)
            assert all(end <= left - 3 or start >= right + 3 for start, end in lines), (left, right, path)


def test_a_phone_has_help_and_everything_else(phone: Page) -> None:
    page = phone
    for name in ("history", "new", "more", "help"):
        box = page.locator(f"#{name}").bounding_box()
        assert box is not None, name
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    page.click("#help")
    assert page.is_visible("#help-dialog .legend")
    page.click("#help-dialog .bare")
    ask(page)
    page.click("#more")
    assert page.is_visible("#save")
    assert page.is_visible("#link")
    page.click("#theme")
    assert not page.is_visible("#save")
