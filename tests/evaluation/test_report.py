"""Reports: what is counted, what is compared, and the way from a number to its samples."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from multiverse.errors import DataError
from multiverse.evaluation import markdown
from multiverse.evaluation.markdown import cell, write_report
from multiverse.evaluation.recording import LONGEST_LINK, link, recording
from multiverse.evaluation.report import compare, report
from multiverse.evaluation.sample import Sample, read_run, write_run
from multiverse.structure import DIALECTS, MULTIVERSE, Block, Dialect, parse, place, render
from tests.evaluation.samples import TEXT, run, sample


def both_modes(shift: int = 0) -> list[Sample]:
    """Eight questions in both modes, twice each; the sequential answers are longer and less often right."""
    return [
        made
        for number in range(shift, 8 + shift)
        for epoch in range(2)
        for made in (
            sample(number, number % 4 > 0, epoch=epoch),
            sample(number, number % 2 > 0, epoch=epoch, mode="sequential", forks=0, critical_path_tokens=100 + number),
        )
    ]


# ---- numbers


def test_each_task_and_mode_is_a_group_and_a_question_a_cluster() -> None:
    made = report([run("a", [*both_modes(), *(replace(one, task="cases") for one in both_modes())])])
    assert [(group.task, group.mode) for group in made.groups] == [
        ("worksheet", "sequential"),
        ("worksheet", "parallel"),
        ("cases", "sequential"),
        ("cases", "parallel"),
    ]
    sequential, parallel = made.groups[:2]
    right = parallel.estimates["pass@1"]
    assert (right.mean, right.samples, right.questions) == (0.75, 16, 8)
    # Both samples of a question are alike, so there are eight independent ones.
    assert right.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 7))
    assert sequential.estimates["parallelism"].mean == 1
    assert parallel.estimates["parallelism"].mean == pytest.approx(fmean((100 + n) / 50 for n in range(8)))
    assert parallel.estimates["forks"].mean == 1
    assert parallel.pass_at_k is not None
    assert parallel.pass_at_k[0] == 2
    assert parallel.to_json()["pass@2"]["mean"] == 0.75


def test_pass_at_k_is_there_only_where_every_question_was_asked_again() -> None:
    once = report([run("a", [sample(number, True) for number in range(3)])]).groups[0]
    assert once.pass_at_k is None
    apart = report([run("a", [sample(0, True), sample(0, False, epoch=1), sample(1, False), sample(1, False, epoch=1)])])
    assert apart.groups[0].pass_at_k is not None
    assert apart.groups[0].pass_at_k[1].mean == 0.5
    assert apart.groups[0].estimates["pass@1"].mean == 0.25


def test_pass_at_k_for_the_powers_of_two_and_all_samples() -> None:
    rights = [(True, False, False, False, True, False), (False,) * 6]  # of six samples: two right, none right
    made = [sample(number, right, epoch=epoch) for number, all_ in enumerate(rights) for epoch, right in enumerate(all_)]
    group = report([run("a", made)]).groups[0]
    assert list(group.passes) == [2, 4, 6]
    # 1 - C(4, k) / C(6, k) for the first question, 0 for the second.
    assert group.passes[2].mean == pytest.approx((1 - 6 / 15) / 2)
    assert group.passes[4].mean == pytest.approx((1 - 1 / 15) / 2)
    assert group.passes[6].mean == pytest.approx(1 / 2)
    assert group.summary()["pass@2"] == pytest.approx(0.3)
    assert group.to_json()["pass@4"]["mean"] == pytest.approx(7 / 15)


def test_one_run_in_both_modes_is_compared_with_itself() -> None:
    (comparison,) = report([run("a", both_modes())]).comparisons
    assert (comparison.first.mode, comparison.second.mode, comparison.questions) == ("sequential", "parallel", 8)
    assert comparison.differences["pass@1"].mean == 0.25
    path = comparison.differences["critical_path_tokens"]
    assert path.mean == pytest.approx(-(50 + 3.5))
    assert path.low < path.mean < path.high < 0
    assert path.p == 2**-7  # the least that eight differences can show


def test_two_runs_are_compared_on_common_questions_in_the_same_mode() -> None:
    first, second = run("a", both_modes()), run("b", [replace(one, right=True) for one in both_modes(shift=4)])
    comparisons = compare(first, second)
    assert [(one.first.mode, one.second.mode, one.questions) for one in comparisons] == [
        ("sequential", "sequential", 4),
        ("parallel", "parallel", 4),
    ]
    assert comparisons[1].differences["pass@1"].mean == 0.25


def test_runs_of_one_mode_each_are_compared_across_modes() -> None:
    parallel = run("p", [one for one in both_modes() if one.mode == "parallel"])
    sequential = run("s", [one for one in both_modes() if one.mode == "sequential"])
    (comparison,) = compare(sequential, parallel)
    assert comparison.differences["pass@1"].mean == 0.25


def test_the_same_id_with_another_text_is_another_question() -> None:
    first, second = run("a", both_modes()), run("b", [replace(one, question="Another?") for one in both_modes()])
    assert report([first, second]).comparisons == ()
    with pytest.raises(DataError, match="'a' and 'b' cannot be compared"):
        compare(first, second)


def test_runs_of_one_name_are_distinguished_and_empty_ones_refused() -> None:
    assert [one.name for one in report([run("a", both_modes()), run("a", both_modes())]).runs] == ["a", "a (2)"]
    with pytest.raises(DataError, match="'empty' holds no samples"):
        report([run("empty", [])])


def test_a_single_question_has_no_error_and_json_says_null() -> None:
    values = report([run("a", [sample(0, True)])]).to_json()
    assert values["results"][0]["total_tokens"]["stderr"] is None
    json.dumps(values, allow_nan=False)


def test_texts_with_unusual_line_ends_survive_a_run_s_file(tmp_path: Path) -> None:
    odd = [sample(0, True, text="one\u2028two\x85three\x0bfour\nfive"), sample(1, False)]
    write_run(tmp_path, run("a", odd))
    assert list(read_run(tmp_path).samples) == odd


def test_samples_of_earlier_versions_have_as_many_steps_as_tokens(tmp_path: Path) -> None:
    write_run(tmp_path, run("a", [sample(0, True)]))
    path = tmp_path / "samples.jsonl"
    old = json.loads(path.read_text())
    del old["critical_path_steps"]
    path.write_text(json.dumps(old) + "\n")
    (read,) = read_run(tmp_path).samples
    assert read.critical_path_steps == read.critical_path_tokens == 50


# ---- files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    awkward = sample(8, False, id="../a|b c/8", answer="x|y\n*z*", text=MULTIVERSE.path.open)
    write_report(report([run("a", [*both_modes(), awkward, sample(9, True, text="é" * 9000)])]), out)
    return out


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def test_every_number_leads_to_a_list_whose_mean_it_is(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert all((folder / to).is_file() for to in links(text))
    row = next(line for line in text.splitlines() if "| parallel |" in line)
    cells = [part.strip() for part in row.strip("|").split("|")]
    linked = [part for part in cells if "](" in part]
    assert len(linked) == 1 + 8  # samples, and every measure
    (target,) = {links(part)[0] for part in linked}
    lines = [line for line in (folder / target).read_text().splitlines() if "[file](" in line]
    assert len(lines) == 18
    columns = list(zip(*([part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines), strict=True))
    for cell_, column in zip(linked[1:], columns[5:13], strict=True):
        told = float(re.search(r"\[([\d.,]+)", cell_).group(1).replace(",", ""))  # type: ignore[union-attr]
        assert told == pytest.approx(fmean(float(value.replace(",", "")) for value in column), abs=0.51)


def test_every_sample_of_a_list_is_a_file_and_most_are_links(folder: Path) -> None:
    (path,) = folder.glob("samples/*-parallel/list.md")
    text = path.read_text()
    files = [to for to in links(text) if to.endswith(".json")]
    assert len(set(files)) == 18
    for name in files:
        assert (path.parent / name).resolve().parent == path.parent.resolve()
        assert json.loads((path.parent / name).read_text())["format"] == "multiverse-recording"
    addresses = [to for to in links(text) if to.startswith("http")]
    assert len(addresses) >= 17
    assert max(map(len, addresses)) <= LONGEST_LINK
    packed = addresses[0].partition("#sample=")[2]
    assert json.loads(zlib.decompress(base64.urlsafe_b64decode(packed + "=="))) == json.loads(
        (path.parent / files[0]).read_text()
    )


def test_the_folder_holds_json_and_plots(folder: Path) -> None:
    values = json.loads((folder / "report.json").read_text())
    assert [result["mode"] for result in values["results"]] == ["sequential", "parallel"]
    assert all((folder / result["list"]).is_file() for result in values["results"])
    assert values["comparisons"][0]["pass@1"]["questions"] == 8
    for name in ("accuracy.svg", "parallelism.svg"):
        assert "<svg" in (folder / name).read_text()
        assert name in links((folder / "report.md").read_text())


def test_a_report_replaces_a_report_but_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "PLOTS", {})  # they take the longest
    one = report([run("b", [sample(0, True), sample(1, False)])])
    write_report(report([run("a", both_modes())]), tmp_path / "out")
    write_report(one, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("samples/*/*.json"))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(DataError, match="something else than a report"):
        write_report(one, tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(one, tmp_path / "file")


def test_the_same_report_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(report([run("a", both_modes())]), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 30
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_text_in_a_cell_stays_there_and_is_no_markup() -> None:
    assert cell("a|b\n<b>*x*</b>") == r"a\|b \<b\>\*x\*\</b\>"
    assert len(cell("x" * 100)) == 60


# ---- recordings


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_recording_names_the_dialect_of_its_text(dialect: Dialect) -> None:
    block = Block(("Mia", "Tom"), (("1.",), ("2.",)), "3." if dialect.conclusion is not None else "")
    text = render(place(("Two.", block), "Answer: 12" if dialect.think is not None else "", dialect), dialect)
    (recorded,) = recording(sample(0, True, text=text), "m")["runs"]
    assert recorded == {"mode": "parallel", "text": text, "dialect": dialect.name}


def test_a_thinking_that_the_prompt_has_opened_is_opened_again() -> None:
    think = MULTIVERSE.think
    assert think is not None
    (recorded,) = recording(sample(0, True, text=TEXT.removeprefix(think.open + "\n")), "m")["runs"]
    assert recorded["text"] == TEXT
    assert parse(recorded["text"]).branches == 2


def test_what_does_not_parse_is_kept_as_it_is() -> None:
    broken = f"x{MULTIVERSE.path.open}y"
    assert recording(sample(0, False, text=broken), "m")["runs"] == [{"mode": "parallel", "text": broken}]


def test_a_link_replaces_the_fragment_and_is_left_out_where_it_would_be_long() -> None:
    recorded = recording(sample(0, True), "m")
    address = link(recorded, "https://example.org/prefix/#ask")
    assert address is not None
    assert address.startswith("https://example.org/prefix/#sample=")
    noise = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(6000))
    assert link({**recorded, "note": noise}) is None
