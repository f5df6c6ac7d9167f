"""How the view is drawn: readable at any width, and never with a tag or a control character in it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from multiverse.cli.picture import MIN_LANE, Frame, columns, ending, picture, usage_line
from multiverse.cli.style import clean
from multiverse.cli.view import Lane, Split, Stage, View
from multiverse.engine import Event
from multiverse.streaming import wire_events
from multiverse.structure import MULTIVERSE


def drawn(renderable: object, width: int, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.fixture
def view(nested_events: list[Event]) -> View:
    view = View()
    for event in nested_events:
        for moment in wire_events(event):
            view.feed(moment)
    return view


def wide_view(lanes: int, text: str = "some text", outline: str = "task") -> View:
    view = View()
    children = [Lane(str(n + 1), f" {outline}\n", [text], Stage.RUNNING, 7) for n in range(lanes)]
    view.trunk.items = ["Before.", Split(children)]
    return view


def test_nested_document(view: View) -> None:
    text = "\n".join(drawn(picture(view), 100))
    for wanted in ("Two teams.", "1 Red team", "2 Blue team", "1.1 Mia", "1.2 Tom", "⇒ 3+10=13.", "⇒ 13+21=34.", "Answer: 34"):
        assert wanted in text
    assert "Answer: Answer" not in text


@pytest.mark.parametrize("width", [12, 20, 36, 52, 80, 120, 200])
def test_every_width_is_kept_and_no_tag_shows(view: View, width: int) -> None:
    lines = drawn(picture(view), width)
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert not any(tag in line for tag in MULTIVERSE.tags for line in lines)


def test_lanes_stand_side_by_side_where_they_fit() -> None:
    lines = drawn(picture(wide_view(3)), 120)
    assert any(all(f"{n} task" in line for n in (1, 2, 3)) for line in lines)


def test_lanes_that_do_not_fit_wrap_into_rows() -> None:
    lines = drawn(picture(wide_view(5)), 80)
    titles = [line for line in lines if "task" in line]
    assert [sum(f"{n} task" in line for n in range(1, 6)) for line in titles] == [2, 2, 1]


@pytest.mark.parametrize(
    ("lanes", "width", "expected"),
    [(1, 120, 1), (3, 120, 3), (4, 120, 2), (7, 120, 3), (2, 80, 2), (3, 80, 2), (5, 40, 1), (3, 5, 1), (9, 3000, 9)],
)
def test_columns(lanes: int, width: int, expected: int) -> None:
    assert columns(lanes, width) == expected
    assert expected == 1 or (width + 1) // expected - 1 >= MIN_LANE


def test_long_outline_stands_inside_the_lane() -> None:
    outline = "work out how much is owed after four years with interest compounded annually"
    text = " ".join(" ".join(drawn(picture(wide_view(2, outline=outline)), 80)).split())
    assert "╭─ 1 ─" in text
    assert "compounded" in text
    assert "annually" in text


def test_frame_keeps_to_the_terminal_and_shows_the_ends() -> None:
    view = wide_view(3, text="\n".join(f"line {n}" for n in range(100)))
    lines = drawn(Frame(view), 120, height=20)
    assert len(lines) < 20
    assert any("1 task" in line for line in lines)
    assert any(line.count("line 99") == 3 for line in lines)
    assert any("⋮" in line for line in lines)


def test_frame_of_a_small_picture_is_the_picture(view: View) -> None:
    assert drawn(Frame(view), 100, height=60) == drawn(picture(view), 100)


@pytest.mark.parametrize("reason", ["stop", "length", "budget", "deadline", "malformed", "error"])
def test_it_is_said_why_a_generation_stopped_early(view: View, reason: str) -> None:
    assert view.finish is not None
    finish = replace(view.finish, finish_reason=reason, structure_error="not-a-number")
    assert bool(ending(finish)) == (reason != "stop")
    assert ("not-a-number" in ending(finish)) == (reason in ("malformed", "error"))
    assert ("--max-tokens" in ending(finish)) == (reason == "length")


def test_usage_is_shown_as_far_as_it_is_known() -> None:
    assert usage_line({"total_tokens": 3, "critical_path_tokens": 2, "parallelism": 1.5, "seconds": 0.25}) == (
        "3 tokens · critical path 2 · parallelism 1.50 · 0.25 s"
    )
    assert usage_line({"total_tokens": 3, "seconds": None}) == "3 tokens"


def test_nothing_yet() -> None:
    assert drawn(picture(View()), 80) == ["…"]


def test_control_characters_and_markup_of_the_model_are_harmless() -> None:
    view = wide_view(1, text="\x1b[2J[bold]\x07\x9b5A", outline="[red]o[/red]")
    text = "\n".join(drawn(picture(view), 80))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "[bold]" in text
    assert "[red]o[/red]" in text


def test_clean() -> None:
    assert clean("  a\r\nb\x00\tc \n") == "a\nb�\tc"
