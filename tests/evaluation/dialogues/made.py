"""A data set of MultiVerse's exact schema, with texts and images that we make.

    python -m tests.evaluation.dialogues.made FOLDER

No row of the real set is in it (CC-BY-NC-4.0). Written as Parquet (sequences as objects of parallel lists, as the hub has them)
and as JSON lines (lists of objects, images as data URLs or paths).
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 80, 220), "yellow": (240, 210, 40)}
_GOALS = (("Information Seeking", "Look up"), ("Creation", "Write"))
_TASKS = (("Perception", "Colours"), ("Reasoning", "Counting"))


def image(seed: int, kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """Coloured shapes as an image file."""
    from PIL import Image, ImageDraw

    rng = Random(seed)
    drawn = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(drawn)
    for _ in range(4):
        x, y = rng.randrange(size[0] - 16), rng.randrange(size[1] - 16)
        draw.rectangle((x, y, x + 14, y + 14), fill=_COLOURS[rng.choice(list(_COLOURS))])
    written = io.BytesIO()
    drawn.save(written, kind)
    return written.getvalue()


def row(number: int, turns: int = 3) -> dict[str, Any]:
    """A row, its conversation and checklists as lists of objects, its image as bytes."""
    conversation: list[dict[str, Any]] = []
    for turn in range(1, turns + 1):
        conversation.append({"speaker": "User", "utterance": f"Question {number}.{turn}: what is there?", "checklist": []})
        checklist = [
            {
                "question": f"Does answer {number}.{turn} name shape {item}?",
                "main_criteria": ("Perceptual Accuracy", "Factual Correctness")[item % 2],
                "sub_criteria": ("Colour", "Count", "Place")[item % 3],
            }
            for item in range(1 + (number + turn) % 3)
        ]
        said = f"Reference {number}.{turn}: a red square beside shape {turn}."
        conversation.append({"speaker": "Assistant", "utterance": said, "checklist": checklist})
    goal, task = _GOALS[number % 2], _TASKS[number // 2 % 2]
    return {
        "index": f"made-{number}",
        "image": {"bytes": image(number, list(FORMATS)[number % 3]), "path": None},
        "character": f"A painter, number {number}",
        "scenario": "Looks at a picture of shapes.",
        "goal": "Learn what the picture shows.",
        "conversation": conversation,
        "main_goal_category": goal[0],
        "sub_goal_category": goal[1],
        "main_task_category": task[0],
        "sub_task_category": task[1],
        "image_main_category": "Drawing",
        "image_sub_category": "Shapes",
    }


def columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A sequence of objects as an object of parallel lists."""
    return {name: [record[name] for record in records] for name in records[0]} if records else {}


def parallel(record: dict[str, Any]) -> dict[str, Any]:
    """A row as `datasets` returns it and Parquet holds it."""
    empty: dict[str, list[Any]] = {"question": [], "main_criteria": [], "sub_criteria": []}
    turns = [turn | {"checklist": columns(turn["checklist"]) or empty} for turn in record["conversation"]]
    return record | {"conversation": columns(turns)}


def as_json(record: dict[str, Any]) -> dict[str, Any]:
    """A row with its image as a data URL."""
    data = record["image"]["bytes"]
    kind = {b"\x89P": "image/png", b"\xff\xd8": "image/jpeg", b"RI": "image/webp"}[data[:2]]
    return record | {"image": f"data:{kind};base64,{base64.b64encode(data).decode()}"}


def write_jsonl(path: Path, records: list[dict[str, Any]], end: str = "\n") -> Path:
    """Rows as JSON lines."""
    path.write_bytes("".join(json.dumps(record) + end for record in records).encode())
    return path


def write_parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    """Rows as Parquet, in the schema of the hub's files."""
    import pyarrow as arrow
    from pyarrow import parquet

    text = arrow.string()
    texts = arrow.list_(text)
    checklist = arrow.struct([("question", texts), ("main_criteria", texts), ("sub_criteria", texts)])
    conversation = arrow.struct([("speaker", texts), ("utterance", texts), ("checklist", arrow.list_(checklist))])
    picture = arrow.struct([("bytes", arrow.binary()), ("path", text)])
    names = list(records[0])
    kinds = {"image": picture, "conversation": conversation}
    schema = arrow.schema([(name, kinds.get(name, text)) for name in names])
    rows = [parallel(record) for record in records]
    parquet.write_table(arrow.Table.from_pylist(rows, schema), path)
    return path


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(number) for number in range(8)]
    write_parquet(folder / "train-00000-of-00001.parquet", rows)
    write_jsonl(folder / "rows.jsonl", [as_json(one) for one in rows])


if __name__ == "__main__":
    main()
