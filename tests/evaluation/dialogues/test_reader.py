"""Rows as dialogues: MultiVerse's schema in every form in which it comes, images by their content, and what is refused."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="the extra [eval] is not installed")
pytest.importorskip("pyarrow", reason="the extra [eval] is not installed")

from multiverse.errors import DataError
from multiverse.evaluation.dialogues.dialogue import Dialogue
from multiverse.evaluation.dialogues.images import ImageLimits, Picture, read_picture
from multiverse.evaluation.dialogues.reader import HUB, dialogue_of, read_dialogues
from multiverse.evaluation.dialogues.rules import ContainsRule, decide, resembles, rule_of, rule_record
from multiverse.tasks import ExpressionRule, IntegerRule

from . import made

ROWS = [made.row(number) for number in range(3)]
LIMITS = ImageLimits()


def read(path: Path, **options: Any) -> list[Dialogue]:
    loaded = read_dialogues(str(path), **options)
    assert loaded.faults == []
    return loaded.dialogues


def test_every_form_of_a_file_is_the_same_dialogue(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number, row in enumerate(ROWS):
        (tmp_path / "pictures" / f"{number}.bin").write_bytes(row["image"]["bytes"])
    by_path = [row | {"image": f"pictures/{number}.bin"} for number, row in enumerate(ROWS)]
    (tmp_path / "data").mkdir()
    made.write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", ROWS)
    found = [
        read(tmp_path / "data" / "train-00000-of-00001.parquet"),
        read(tmp_path / "data"),
        read(made.write_jsonl(tmp_path / "a.jsonl", [made.as_json(row) for row in ROWS])),
        read(made.write_jsonl(tmp_path / "b.jsonl", [made.parallel(made.as_json(row)) for row in ROWS], "\r\n")),
        read(made.write_jsonl(tmp_path / "c.jsonl", by_path)),
    ]
    first = found[0]
    assert [one.id for one in first] == ["made-0", "made-1", "made-2"]
    assert all([one.digest for one in own] == [one.digest for one in first] for own in found)
    dialogue = first[1]
    assert dialogue.image is not None
    assert (dialogue.image.format, dialogue.image.width, dialogue.image.height) == ("JPEG", 64, 48)
    assert dialogue.image.data == ROWS[1]["image"]["bytes"]
    assert dialogue.image.url.startswith("data:image/jpeg;base64,")
    assert [turn.utterance for turn in dialogue.turns] == [f"Question 1.{turn}: what is there?" for turn in (1, 2, 3)]
    assert dialogue.turns[0].reference.startswith("Reference 1.1")
    assert [len(turn.checklist) for turn in dialogue.turns] == [3, 1, 2]
    assert dialogue.turns[0].checklist[1].main_criteria == "Factual Correctness"
    assert dialogue.persona["character"] == "A painter, number 1"
    assert dialogue.categories["main_task_category"] == "Perception"
    assert Dialogue.of(dialogue.record()).turns == dialogue.turns


def test_the_hub_s_library_returns_the_same(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = made.write_parquet(tmp_path / "train.parquet", ROWS)
    table = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(table[0]["conversation"], dict)
    assert dialogue_of(table[0], None, LIMITS).digest == read(path)[0].digest


def test_images_of_the_hub_are_sent_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [made.parallel(row) for row in ROWS]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    assert table[0]["image"].size == (64, 48)  # decoded, unless it is asked for as it is
    monkeypatch.setattr("multiverse.evaluation.dialogues.reader.load_hub", lambda name: {"train": table} if name == HUB else {})
    loaded = read_dialogues("multiverse", limit=2)
    assert loaded.faults == []
    assert [one.image.data for one in loaded.dialogues if one.image] == [row["image"]["bytes"] for row in ROWS[:2]]


def test_line_ends_and_cases_do_not_matter(tmp_path: Path) -> None:
    row = made.as_json(made.row(0))
    row["conversation"][0] |= {"speaker": "USER ", "utterance": "One\r\ntwo\rthree"}
    row["conversation"][1] |= {"speaker": "assistant", "checklist": row["conversation"][1]["checklist"]}
    (dialogue,) = read(made.write_jsonl(tmp_path / "a.jsonl", [row]))
    assert dialogue.turns[0].utterance == "One\ntwo\nthree"


def changed(**values: Any) -> dict[str, Any]:
    return made.as_json(made.row(0)) | values


def conversation(*changes: tuple[int, str, Any]) -> dict[str, Any]:
    row = made.as_json(made.row(0))
    for number, name, value in changes:
        row["conversation"][number][name] = value
    return row


def without(name: str) -> dict[str, Any]:
    row = made.as_json(made.row(0))
    del row[name]
    return row


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (without("goal"), "the columns goal are missing"),
        (without("conversation"), "it needs the columns of MultiVerse"),
        (["a"], "it must be an object with named fields"),
        (changed(index=""), "the index is empty"),
        (changed(index=["x"]), "index is list: it must be a text"),
        (changed(character=3), "character is int: it must be a text"),
        (changed(main_task_category=["x"]), "main_task_category is list"),
        (changed(conversation="hello"), "conversation is str: it must be a list of objects, or an object of lists"),
        (changed(conversation=[]), "the conversation is empty"),
        (changed(conversation=["x"]), "conversation 1 is str: it must be an object"),
        (changed(conversation=[{"speaker": "user"}]), "conversation 1 has no utterance, checklist"),
        (changed(conversation={"speaker": ["user"], "utterance": ["a"]}), "conversation has no checklist"),
        (
            changed(conversation={"speaker": ["user"], "utterance": ["a", "b"], "checklist": [None]}),
            "lists of different lengths: 1 of speaker, 2 of utterance, 1 of checklist",
        ),
        (changed(conversation={"speaker": "user", "utterance": [], "checklist": []}), "conversation.speaker is str"),
        (conversation((0, "speaker", "system")), "utterance 1 is 'system': user and assistant take turns, here user was due"),
        (conversation((1, "speaker", "user")), "utterance 2 is 'user'.*here assistant was due"),
        (conversation((2, "utterance", "  ")), "utterance 3 is empty"),
        (conversation((2, "utterance", None)), "utterance 3 is empty"),
        (conversation((2, "utterance", "a\0b")), "utterance 3 holds a zero character"),
        (conversation((0, "checklist", made.row(0)["conversation"][1]["checklist"])), "is the user's and has a checklist"),
        (conversation((1, "checklist", [{"question": "?"}])), "checklist of utterance 2 1 has no main_criteria, sub_criteria"),
        (
            conversation((1, "checklist", [{"question": " ", "main_criteria": "", "sub_criteria": ""}])),
            "question 1 of the checklist of utterance 2 is empty",
        ),
        (changed(conversation=made.row(0)["conversation"][:3]), "the last utterance is the user's"),
        (
            conversation(
                (1, "checklist", []),
                (3, "checklist", None),
                (5, "checklist", {"question": [], "main_criteria": [], "sub_criteria": []}),
            ),
            "no answer has a checklist",
        ),
        (changed(image="missing.png"), "there is no image file"),
        (changed(image="https://example.org/a.png"), "is an address: nothing is fetched"),
        (changed(image="data:image/png,abc"), "is not valid: it begins with data:image/png;base64,"),
        (changed(image="data:image/png;base64,####"), "the data URL is not base64"),
        (changed(image=7), "the image is int"),
        (changed(image={"file": "a"}), "the image is an object with file"),
        (changed(image="a\0.png"), "is no path"),
    ],
)
def test_rows_that_are_no_dialogue(row: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        dialogue_of(row, tmp_path, LIMITS)


def test_faulty_rows_are_named_and_others_kept(tmp_path: Path) -> None:
    rows = [made.as_json(made.row(number)) for number in range(4)]
    rows[1]["image"] = "data:image/png;base64,AAAA"
    rows[3]["index"] = "made-0"
    path = made.write_jsonl(tmp_path / "rows.jsonl", rows)
    path.write_bytes(path.read_bytes() + b'{"index": "torn", "ima')
    loaded = read_dialogues(str(path))
    assert [one.id for one in loaded.dialogues] == ["made-0", "made-2"]
    assert [(fault.line, fault.problem[:30]) for fault in loaded.faults] == [
        (2, "the image is no PNG, JPEG or W"),
        (4, "the index 'made-0' is that of "),
        (5, "the line breaks off in column "),
    ]
    assert len(read_dialogues(str(path), limit=1).dialogues) == 1


def test_a_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"Or give a file: its rows as Parquet or JSON lines"):
        read_dialogues("nobody/nothing")
    assert "there is no such file" in read_dialogues(str(tmp_path / "no.jsonl")).faults[0].problem


# ---- images


def png(width: int, height: int) -> bytes:
    """A PNG of one colour and one bit a pixel: small, whatever its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress((b"\0" + b"\0" * ((width + 7) // 8)) * height, 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animated() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(written, "WEBP", save_all=True, append_images=frames[1:])
    return written.getvalue()


def gif() -> bytes:
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "GIF")
    return written.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the image is empty"),
        (b"not an image at all", r"no PNG, JPEG or WebP \(it begins with b'not an image'\)"),
        (gif(), "no PNG, JPEG or WebP .*GIF8"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG or WebP"),
        (made.image(1)[:-40], "cannot be decoded"),
        (made.image(1, "JPEG")[:300], "cannot be decoded|no PNG"),
        (made.image(1, "WEBP")[:60], "cannot be decoded|no PNG"),
        (made.image(1)[:60], "cannot be decoded|no PNG"),
        (png(10_000, 5_000), "10000 x 5000 = 50.0 megapixels, more than 40: shrink it, or raise --max-image-megapixels"),
        (png(20_000, 20_000), "megapixels|more than 40"),
        (animated(), "has 2 frames"),
        (made.image(1) + bytes(21_000_000), "has 21.0 MB, more than 20"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_images_that_are_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_picture(data, None, LIMITS)


def test_limits_can_be_raised() -> None:
    picture = read_picture(png(10_000, 5_000), None, ImageLimits(20, 60))
    assert (picture.width, picture.height) == (10_000, 5_000)


@pytest.mark.parametrize("kind", made.FORMATS)
def test_the_content_decides_not_the_name(kind: str, tmp_path: Path) -> None:
    data = made.image(5, kind)
    (tmp_path / "a.gif").write_bytes(data)
    wrong = f"data:image/gif;base64,{base64.b64encode(data).decode()}"
    for value in ("a.gif", str(tmp_path / "a.gif"), wrong, data, {"bytes": None, "path": "a.gif"}):
        picture = read_picture(value, tmp_path, LIMITS)
        assert (picture.format, picture.data) == (kind, data)
        assert picture.url.startswith(f"data:{made.FORMATS[kind]};base64,")
    assert Picture(data, kind, 64, 48).preview()[:2] == b"\xff\xd8"


def test_a_path_that_would_block_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="there is no image file"):
        read_picture("pipe", tmp_path, LIMITS)
    with pytest.raises(ValueError, match="there are no files beside the data"):
        read_picture("a.png", None, LIMITS)


# ---- rules and other sets


def test_rules_of_items() -> None:
    for rule in (IntegerRule(24), ExpressionRule((1, 2), "+-", 3), ContainsRule(("red", "Square"))):
        assert rule_of(rule_record(rule)) == rule
    assert decide(IntegerRule(24), "2*12=24\nAnswer: 24.")
    assert not decide(IntegerRule(24), "Answer: 24\nAnswer: 68")
    assert decide(ContainsRule(("red", "Square")), "A RED square")
    for record in (
        {"kind": "magic"},
        "x",
        {"kind": "integer"},
        {"kind": "integer", "value": "24"},
        {"kind": "integer", "values": 1},
    ):
        with pytest.raises(ValueError, match="the rule"):
            rule_of(record)
    assert resembles("I think there is a red square", "The square is red.")
    assert not resembles("I cannot see it", "The square is red.")


def test_other_sets_are_read_by_adapters(tmp_path: Path) -> None:
    mt_bench = {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."], "reference": ["A", "B"]}
    challenge = {
        "QUESTION_ID": "q1",
        "AXIS": "INFERENCE_MEMORY",
        "CONVERSATION": [{"role": role, "content": role} for role in ("user", "assistant", "user")],
        "TARGET_QUESTION": "Does it remember?",
        "PASS_CRITERIA": "NO",
    }
    first, second = read(made.write_jsonl(tmp_path / "a.jsonl", [mt_bench, challenge]))
    assert (first.id, first.categories["main_task_category"]) == ("81", "writing")
    assert [(turn.utterance, turn.reference, len(turn.checklist)) for turn in first.turns] == [
        ("Write.", "A", 2),
        ("Rewrite.", "B", 3),
    ]
    assert [len(turn.checklist) for turn in second.turns] == [0, 1]
    assert second.turns[1].checklist[0].question == "Is the answer to this question no: Does it remember?"
    with pytest.raises(ValueError, match="must be a list of texts"):
        dialogue_of({"question_id": 1, "turns": ["a", 3]}, None, LIMITS)
    with pytest.raises(ValueError, match="the user is last"):
        dialogue_of(challenge | {"CONVERSATION": challenge["CONVERSATION"][:2]}, None, LIMITS)
