"""Markdown, LaTeX and code on the page: what is drawn, that nothing a model writes is markup, and that streams are calm."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.serving.browser import new_page, wait_until
from tests.serving.imagined import Plan, generation
from tests.serving.pages import ask, finished, texts, visit
from tests.serving.playback import STATIC, Playback

DOCUMENT = """# Bread

Some **bold** and *slanted* text, `code`, ~~gone~~, and [a link](https://example.org/a?b=c "t").
A second line; 3*4*5 = 60, about ~5 to ~6, $5 and $10 &lt;b&gt; &copy;.

1. one
2. two
   - inner

- [x] done
- [ ] to do

| n | n² |
|--:|:---|
| 12 | $12^2$ |

> quoted

Inline $a^2 + b_1$ and \\(c\\), then

$$\\frac{1}{2}$$

\\[ x = 1 \\]

\\begin{align} a &= b \\\\ c &= d \\end{align}

```python
def f(x): return "<b>" + x
```

---
The end."""

WRITTEN = """<h4 data-depth="1">Bread</h4>
<p>Some <strong>bold</strong> and <em>slanted</em> text, <code>code</code>, <del>gone</del>, and
<a href="https://example.org/a?b=c" title="https://example.org/a?b=c" target="_blank" rel="noopener noreferrer nofollow">a
link</a>.<br>A second line; 3*4*5 = 60, about ~5 to ~6, $5 and $10 &lt;b&gt; ©.</p>
<ol><li>one</li><li>two<ul><li>inner</li></ul></li></ol>
<ul><li class="task"><input type="checkbox" disabled="" checked="">done</li>
<li class="task"><input type="checkbox" disabled="">to do</li></ul>
<div class="table"><table><thead><tr><th data-align="right">n</th><th data-align="left">n²</th></tr></thead>
<tbody><tr><td data-align="right">12</td><td data-align="left">FORMULA</td></tr></tbody></table></div>
<blockquote><p>quoted</p></blockquote>
<p>Inline FORMULA and FORMULA, then</p>
FORMULAFORMULAFORMULA
<figure>def f(x): return "&lt;b&gt;" + x</figure><hr><p>The end.</p>"""


@pytest.fixture(scope="module")
def lab(browser: Browser, played: Playback) -> Iterator[Page]:
    """A page with an element of its own to write in, and what it has asked the network for."""
    errors: list[str] = []
    with new_page(browser, errors) as page:
        visit(page, played)
        page.evaluate(
            "import('./static/markdown.js').then(m => { window.made = m; window.box = document.createElement('div');"
            " box.className = 'md'; document.body.append(box); })"
        )
        yield page
        assert errors == []


def write(lab: Page, *parts: str, open_: bool = False) -> None:
    """Show a text that comes in parts."""
    lab.evaluate(
        "([parts, open]) => { box.replaceChildren(); delete box.dataset.plain; window.view = new made.Markdown(box);"
        " let text = ''; for (const part of parts) view.update(text += part, true); if (!open) view.update(text, false); }",
        [list(parts), open_],
    )


def drawn(lab: Page) -> str:
    """The markup that is shown; of formulas and code, that there is one, and its text."""
    found: str = lab.evaluate(
        "(() => { const copy = box.cloneNode(true);"
        " for (const one of copy.querySelectorAll('.formula')) one.replaceWith('FORMULA');"
        " for (const one of copy.querySelectorAll('figure')) { const made = document.createElement('figure');"
        " made.textContent = one.querySelector('code').textContent; one.replaceWith(made); }"
        " return copy.innerHTML; })()"
    )
    return found


def test_markdown_becomes_elements(lab: Page) -> None:
    write(lab, DOCUMENT)
    assert drawn(lab) == re.sub(r">\n<", "><", WRITTEN).replace(">\nFORM", ">FORM").replace("FORMULA\n<", "FORMULA<").replace(
        "\n", " "
    )


def test_formulas_and_code_are_typeset(lab: Page) -> None:
    write(lab, DOCUMENT)
    wait_until(lab, "box.querySelectorAll('.katex').length === 6 && !!box.querySelector('.hljs-keyword')")
    assert lab.evaluate("box.querySelectorAll('.katex-display').length") == 3
    assert lab.evaluate("box.querySelector('.formula').textContent").startswith("122")
    assert lab.evaluate("box.querySelector('.hljs-string').textContent") == '"<b>"'
    assert lab.evaluate("box.querySelector('.code-head span').textContent") == "python"


def test_a_formula_that_cannot_be_read_stays_as_it_was_written(lab: Page) -> None:
    write(lab, "Wrong: $\\frac{1}$ here.")
    wait_until(lab, "!!box.querySelector('.formula[data-bad]')")
    assert lab.evaluate("box.textContent") == "Wrong: $\\frac{1}$ here."


HOSTILE = [
    "<script>document.title='gone'</script>",
    "<img src=x onerror=\"document.title='gone'\">",
    "![x](https://example.org/x.png) ![y](x onerror=alert)",
    "[click](javascript:document.title='gone') [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>alert(1)</script>)",
    "[d](vbscript:x) [e](&#106;avascript:alert(1)) <javascript:alert(1)> [f](\\x6aavascript:alert(1))",
    '<a href="javascript:alert(1)">x</a> <iframe srcdoc="<script>alert(1)</script>"></iframe><svg onload=alert(1)>',
    '[a](https://e.org/"onmouseover="alert(1)) [b](https://e.org "x\\" onload=\\"alert(1)")',
    "```js\"><img src=x onerror=alert(1)>\n</code></pre><script>document.title='gone'</script>\n```",
    "```python\n'''</span><img src=x onerror=alert(1)>'''\n```",
    "$\\href{javascript:alert(1)}{x}$ $\\url{javascript:alert(1)}$ $\\includegraphics{https://e.org/x.png}$",
    "$\\htmlStyle{position:fixed;inset:0}{x}$ $\\htmlData{a=b}{x}$ $\\htmlClass{lead}{x}$",
    "$</math><img src=x onerror=alert(1)>$ $\\text{</span><script>alert(1)</script>}$",
    "| <img src=x onerror=alert(1)> |\n|---|\n| <script>alert(1)</script> |",
    "# <svg/onload=alert(1)>\n\n> <math><mtext><img src=x onerror=alert(1)>\n\n1. <form action=//e.org><button>x",
    "&lt;img src=x onerror=alert(1)&gt; &#60;script&#62;alert(1)&#60;/script&#62;",
    '<style>*{display:none}</style><meta http-equiv="refresh" content="0;url=//e.org"><base href=//e.org>',
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_model_writes_is_markup(lab: Page, text: str) -> None:
    asked: list[str] = []
    lab.on("request", lambda request: asked.append(request.url))
    write(lab, text)
    write(lab, *text)  # letter by letter
    lab.wait_for_timeout(60)
    assert lab.evaluate("document.title") == "Multiverse"
    found = lab.evaluate(
        "[...box.querySelectorAll('*')].map(e => [e.localName, [...e.attributes].map(a => a.name), e.href?.baseVal ?? e.href])"
    )
    names = {name for name, _, _ in found}
    assert not names & {"script", "img", "iframe", "form", "style", "meta", "base", "object", "embed", "link", "video", "audio"}
    assert not [name for _, names, _ in found for name in names if name.startswith("on") or name in ("src", "srcdoc", "action")]
    assert all(re.match(r"(https?|mailto):", href) for _, _, href in found if href)
    assert not lab.evaluate("[...box.querySelectorAll('.katex *')].some(e => getComputedStyle(e).position === 'fixed')")
    assert not lab.evaluate("!!box.querySelector('.lead')")
    assert [url for url in asked if "/static/" not in url] == []


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "*a **b " * 5_000, "- " * 2_000 + "x", "$" * 9_999, "|" * 9_999],
    ids=["brackets", "stars", "items", "dollars", "cells"],
)
def test_text_that_is_made_to_be_slow_is_not(lab: Page, text: str) -> None:
    began = lab.evaluate("performance.now()")
    write(lab, text)
    assert lab.evaluate("performance.now()") - began < 3000
    assert lab.evaluate("box.textContent.length") > 0


def test_huge_formulas_do_not_leave_their_place(lab: Page) -> None:
    write(lab, "$\\rule{5000em}{5000em}$ $\\def\\a{\\a\\a}\\a$ $\\kern{-900em}x$")
    lab.wait_for_timeout(100)
    assert lab.evaluate("box.getBoundingClientRect().height") < 1500
    assert lab.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ---- streams


def test_a_text_that_comes_letter_by_letter_ends_as_one_that_comes_at_once(lab: Page) -> None:
    write(lab, DOCUMENT)
    at_once = drawn(lab)
    write(lab, *DOCUMENT)
    assert drawn(lab) == at_once
    write(lab, *re.findall(r"\s*\S+", DOCUMENT))
    assert drawn(lab) == at_once


def test_what_has_been_written_is_not_touched_again(lab: Page) -> None:
    head, tail = DOCUMENT.split("> quoted")
    write(lab, head, open_=True)
    wait_until(lab, "!!box.querySelector('table .katex')")
    changed = lab.evaluate(
        "async ([head, letters]) => { const before = [...box.children].slice(0, -1); const seen = [];"
        " const watch = new MutationObserver(all => seen.push(...all));"
        " const all = {subtree: true, childList: true, characterData: true, attributes: true};"
        " for (const node of before) watch.observe(node, all);"
        " let text = head; for (const letter of letters) { view.update(text += letter, true); await null; }"
        " seen.push(...watch.takeRecords());"
        " return [seen.length, before.every((node, i) => box.children[i] === node)]; }",
        [head, list("> quoted" + tail)],
    )
    assert changed == [0, True]


def test_the_end_of_a_text_grows_in_place(lab: Page) -> None:
    write(lab, "A **bold** word and", open_=True)
    kept = lab.evaluate(
        "(() => { const p = box.firstChild, strong = p.querySelector('strong'), last = p.lastChild;"
        " view.update('A **bold** word and another', true);"
        " return [box.firstChild === p, p.querySelector('strong') === strong, p.lastChild === last]; })()"
    )
    assert kept == [True, True, True]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("so **bol", "<p>so <strong>bol</strong></p>"),
        ("call `f(", "<p>call <code>f(</code></p>"),
        ("2 ** 3", "<p>2 ** 3</p>"),
        ("a\n\n```py\nx = **", "<p>a</p><figure>x = **</figure>"),
    ],
)
def test_marks_that_are_open_at_the_end_are_closed_while_it_is_written(lab: Page, text: str, shown: str) -> None:
    write(lab, text, open_=True)
    assert drawn(lab) == shown


# ---- on the page


def test_lanes_conclusions_answers_and_titles_are_rendered(page: Page, server: Playback) -> None:
    lane = ["A list:\n\n- $x^2$\n- **b**"]
    server.answer = lambda _: generation(
        ["Two *parts*.", Plan([("of $x$", lane), ("`b`", ["plain"])], "So **both**.")], "**4**"
    )
    ask(page)
    assert texts(page, ".trunk > .text em") == ["parts"]
    assert texts(page, ".lane li strong") == ["b"]
    assert texts(page, ".is-conclusion strong") == ["both"]
    assert texts(page, ".answer strong") == ["4"]
    assert texts(page, ".lane .title code") == ["b"]
    wait_until(page, "document.querySelectorAll('.lane .katex').length === 2")
    page.evaluate("document.querySelector('.head').click()")
    wait_until(page, "document.querySelectorAll('#lane-dialog .katex').length === 2")


def test_an_earlier_turn_is_rendered_too(page: Page, server: Playback) -> None:
    server.answer = lambda _: generation(["Thinking."], "It is **4**:\n\n```json\n{}\n```")
    ask(page)
    page.fill("#question", "And?")
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelectorAll('.turn').length === 2")
    finished(page)
    assert texts(page, ".said strong") == ["4"]
    assert texts(page, ".said pre") == ["{}"]


def test_libraries_come_with_their_licences_and_the_versions_that_are_stated() -> None:
    vendor = STATIC / "vendor"
    stated = dict(re.findall(r"^\| \[([\w.]+)\].*?\| ([\d.]+) \|", (vendor / "README.md").read_text(), re.MULTILINE))
    files = {"marked": "marked/marked.esm.js", "KaTeX": "katex/katex.min.js", "highlight.js": "highlight/highlight.min.js"}
    assert stated.keys() == files.keys()
    for name, file in files.items():
        path = vendor.joinpath(*file.split("/"))
        assert stated[name] in path.read_text(), name
        licence = (vendor / file.split("/")[0] / "LICENSE").read_text()
        assert "Permission is hereby granted" in licence or "Redistribution and use" in licence
    fonts = set(re.findall(r"fonts/(KaTeX_[\w-]+\.woff2)", (vendor / "katex" / "katex.min.css").read_text()))
    assert fonts
    assert fonts == {file.name for file in (vendor / "katex" / "fonts").iterdir()}
    assert {file.name for file in vendor.iterdir()} == {"README.md", *(file.split("/")[0] for file in files.values())}
