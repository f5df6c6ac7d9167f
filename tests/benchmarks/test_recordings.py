"""Recordings: what is masked, what counts as the same, and how a command is spelled for a checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recordings.checkout import Checkout
from benchmarks.recordings.compare import compare, differences, report
from benchmarks.recordings.evaluation import accuracies, points
from benchmarks.recordings.masks import mask_body, mask_lines
from benchmarks.recordings.requests import Problem, questions, refused
from benchmarks.recordings.streams import normalised
from benchmarks.recordings.training import settings

PROBLEM = Problem("What is 1+1?", "<Think>\nLet's think.\n1+1=2.\n</Think>\n\nAnswer: 2")
HELP = """
 Usage: multiverse eval tasks [OPTIONS]
 With --json, one object.
╭─ Options ────────────────────────────────────────────╮
│    --n       -n      N         Questions per family. │
│ *  --family  -f      NAME      See --other.          │
│ -t --short   T                                       │
│ --guard      --no-guard  <bool> Keep to the grammar. │
│ --help   -h      <bool>  Show this message and exit. │
╰──────────────────────────────────────────────────────╯
"""
GROUP = """
╭─ Commands ───────────────────────────────────────────╮
│ run        Ask a model the questions of benchmarks.  │
│ tasks      Ask a model the project's own problems.   │
╰──────────────────────────────────────────────────────╯
"""


def stream(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def delta(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


def test_ids_and_times_are_masked_and_nothing_else() -> None:
    body = b': ping\n\ndata: {"id":"chatcmpl-1f","created":17,"multiverse":{"seconds":1.5e-3,"id":"a"},"n":1}\n\n'
    assert mask_body(body) == b'data: {"id":"<masked>","created":0,"multiverse":{"seconds":0,"id":"a"},"n":1}\n\n'
    assert mask_lines('{"seconds": 3, "a": [{"date": "x", "n": 1}]}') == (
        '{"seconds": "<masked>", "a": [{"date": "<masked>", "n": 1}]}\n'
    )
    assert mask_lines('{"a": 1}\n{"a": 2}\n') == '{"a": 1}\n{"a": 2}\n'
    assert mask_lines("no JSON: 1\nusage: 9 tokens · 1.25 s\n") == "no JSON: 1\nusage: 9 tokens · <masked> s\n"


def test_streams_are_the_same_whatever_shares_a_chunk() -> None:
    usage = {"choices": [], "usage": {"completion_tokens": 3}}
    fine = stream(delta(0, "a"), delta(1, "x"), delta(0, "b"), delta(1, "y", "stop"), delta(0, "", "stop"), usage)
    coarse = stream(delta(0, "ab"), delta(0, "", "stop"), delta(1, "xy", "stop"), usage)
    other = stream(delta(0, "ba"), delta(0, "", "stop"), delta(1, "xy", "stop"), usage)
    assert normalised(fine) == normalised(coarse)
    assert normalised(fine) != normalised(other)
    assert [choice["delta"]["content"] for choice in normalised(fine)["choices"]] == ["ab", "xy"]


def test_the_order_of_branch_events_counts() -> None:
    first, second = ({"choices": [], "multiverse": {"event": "token", "branch": branch}} for branch in "12")
    assert normalised(stream(first, second)) != normalised(stream(second, first))


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    sides = tmp_path / "before", tmp_path / "after"
    for side in sides:
        (side / "streams").mkdir(parents=True)
        (side / "streams" / "same.sse").write_bytes(stream(delta(0, "a")))
        (side / "about.json").write_text(side.name)
    return sides


def test_compare(recorded: tuple[Path, Path]) -> None:
    before, after = recorded
    assert compare(before, after)[0].identical == ["same.sse"]
    (before / "streams" / "chunks.sse").write_bytes(stream(delta(0, "a"), delta(0, "b")))
    (after / "streams" / "chunks.sse").write_bytes(stream(delta(0, "ab")))
    (before / "streams" / "named.json").write_text('{"wound_up": 1, "n": 2}')
    (after / "streams" / "named.json").write_text('{"n": 2, "forced": 1}')
    (section,) = compare(before, after, {"wound_up": "forced"})
    assert section.equivalent == ["chunks.sse", "named.json"]
    assert section.same
    (section,) = compare(before, after, {})
    assert section.different == {"named.json": [".forced: only after", ".wound_up: only before"]}
    (after / "streams" / "new.json").write_text("{}")
    (section,) = compare(before, after)
    assert section.missing == ["new.json (only after)"]
    assert report([section]).endswith("NOT the same")


def test_a_difference_of_numbers_is_reported_with_its_size(recorded: tuple[Path, Path]) -> None:
    for side, loss in zip(recorded, (2.0, 2.5), strict=True):
        (side / "streams" / "losses.jsonl").write_text(f'{{"loss": 1}}\n{{"loss": {loss}}}\n')
    (section,) = compare(*recorded)
    assert section.different == {"losses.jsonl": ["[1].loss: 2.0 and 2.5 (+0.25 of it)"]}


def test_only_log_probabilities_may_be_rounded_otherwise() -> None:
    before, after = ({"logprobs": [{"logprob": -17.03951 + shift}], "n": shift} for shift in (0.0, 4e-6))
    assert list(differences(before, after)) == [".n: 0.0 and 4e-06"]
    assert list(differences({"logprob": -1.0}, {"logprob": -1.001})) == [".logprob: -1.0 and -1.001 (-0.001 of it)"]


def test_options_are_spelled_as_the_checkout_knows_them(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, tmp_path / "scratch")
    checkout._helps = {("eval", "tasks"): HELP, ("eval",): GROUP, ("eval", "run"): HELP.replace("--n ", "--limit ")}
    assert checkout.options(("eval", "tasks")) == {"--n", "--family", "--short", "--guard", "--no-guard", "--help"}
    assert checkout.spelled(["eval", "tasks", "{limit}", "3"]) == ["eval", "tasks", "--n", "3"]
    assert checkout.spelled(["eval", "aime24", "{limit}", "3"]) == ["eval", "aime24", "--limit", "3"]
    assert checkout.has("eval", "tasks")
    assert not checkout.has("eval", "budget")


def test_paths_are_masked(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "source", tmp_path / "scratch")
    assert checkout.mask(f"{tmp_path}/source/a {tmp_path}/scratch/b") == "<checkout>/a <scratch>/b"


def test_two_hundred_requests() -> None:
    asked = list(questions([PROBLEM]))
    assert len({one.name for one in asked}) == len(asked) == 200
    assert sum(bool(one.body.get("multiverse", {}).get("branches")) for one in asked) >= 60
    turn = next(one for one in asked if one.name == "turn-0").body["messages"][1]
    assert turn == {"role": "assistant", "reasoning": "Let's think.\n1+1=2.", "content": "Answer: 2"}
    assert len(list(refused())) == 10


def test_figures_of_an_evaluation_do_not_depend_on_the_layout_of_its_report() -> None:
    figures = {"accuracy": 0.5, "total_tokens": 3.0}
    expected = [{"task": "worksheet", "mode": "sequential", **figures}]
    assert list(accuracies({"family": "worksheet", "mode": "sequential", **figures, "seconds": 1})) == expected
    assert list(accuracies({"results": [{"benchmark": "worksheet", "prompt": "zero", **figures}]})) == expected
    point = {"budget": 96, "right": {"mean": 0.25, "low": 0.0}, "wound_up": 1.0}
    assert list(points({"points": {"parallel": [point]}})) == [{"system": "parallel", "budget": 96, "right": 0.25}]


def test_settings_have_earlier_names() -> None:
    present, earlier = settings("m", earlier=False), settings("m", earlier=True)
    assert list(present.values()) == [*list(earlier.values())[:-1], present["optimizer"]]
    assert (earlier["rows"], earlier["batch"], earlier["optimizer"]["clip"]) == (2, 4, 1.0)
