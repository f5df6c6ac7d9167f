"""Write the question files from the hand-written lists beside them.

python -m recipes.smol.make_questions

Reads `questions/topics.txt`, `wordings.txt` and `general.txt`. Writes `questions/single.jsonl`, one question to a line, with
topic, item, template and split, and `questions/general.jsonl`, single requests that do not split. Fifteen in a hundred
topics of each category are held out, and so are the wordings marked ``heldout``: the split of a question is ``train``,
``heldout_topic``, ``heldout_wording`` or ``heldout`` (both).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "questions"
HELD_OUT = 0.15
_SINGULAR = {
    "economics", "statistics", "the immune system", "photosynthesis", "osmosis", "the Colosseum", "Paris", "Big Ben",
    "a compass", "a bus", "GPS", "a magnifying glass", "Stonehenge", "the Statue of Liberty", "the greenhouse effect",
    "an ecosystem", "a virus", "Mars", "Niagara Falls", "the solar system",
}  # fmt: skip
_PLURAL = {"bacteria", "the Pyramids of Giza", "the Olympic Games of ancient Greece"}


def sections(name: str) -> dict[str, list[str]]:
    """The lines of each ``[section]`` of a list."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[(.+)\]", line):
            found[header[1]] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def is_plural(item: str, category: str) -> bool:
    if category == "animals" or item in _PLURAL:
        return True
    of_both = category in {"places", "foods", "things", "science", "ideas"}
    return of_both and item not in _SINGULAR and item.endswith("s") and not item.endswith("ss")


def agree(template: str, item: str, category: str) -> str:
    """The wording with its verb in the item's number; ``{x}`` stays."""
    plural = is_plural(item, category)
    verbs = ("are", "do", "were") if plural else ("is", "does", "was")
    return (
        template.replace("{is}", verbs[0])
        .replace("{Is}", verbs[0].capitalize())
        .replace("{do}", verbs[1])
        .replace("{was}", verbs[2])
    )


def topics(lines: list[str], category: str) -> list[tuple[str, str, str]]:
    """(topic, item, question) of each topic; items are clauses where the list holds questions."""
    if category in {"why", "how"}:
        pairs = [line.split(" | ") for line in lines]
        return [(question.rstrip("?"), clause, question) for question, clause in pairs]
    return [(item, item, "") for line in lines for item in line.split(", ")]


def single() -> Iterator[dict[str, Any]]:
    """Every question: train topics in two to four train wordings, held-out ones mostly in held-out wordings."""
    wordings = sections("wordings.txt")
    for category, lines in sections("topics.txt").items():
        rng = random.Random(f"questions of {category}")
        found = topics(lines, category)
        held_out = set(rng.sample(range(len(found)), round(HELD_OUT * len(found))))
        forms = [
            re.fullmatch(r"(\w+) (train|heldout)(?: only (\d+))? \| ([^|]+?)(?: \| (.+))?", line) for line in wordings[category]
        ]
        assert all(forms), category
        for number, (topic, item, question) in enumerate(found):
            usable = [form.groups() for form in forms if form and (form[3] is None or number < int(form[3]))]
            train = [form for form in usable if form[1] == "train"]
            new = [form for form in usable if form[1] == "heldout"]
            if number in held_out:
                chosen = [*new, train[number % len(train)]]
            else:
                count = min(len(train), 2 + (number % 4 == 0) + (number % 8 == 0))
                chosen = rng.sample(train, count) + (rng.sample(new, 1) if number % 6 == 0 else [])
                chosen += [form for form in train if form[0] in {"pets", "deal"} and form not in chosen]
            for kind, split, _, template, aspect in chosen:
                parts = (number in held_out, split == "heldout")
                name = {(False, False): "train", (True, False): "heldout_topic", (False, True): "heldout_wording"}.get(
                    parts, "heldout"
                )
                yield {
                    "question": question if template == "{question}" else agree(template, item, category).replace("{x}", item),
                    "topic": topic,
                    "item": item,
                    "template": "" if template == "{question}" else agree(template, item, category),
                    "aspect": aspect or "",
                    "group": category,
                    "kind": f"{category}.{kind}",
                    "split": name,
                }


def general() -> Iterator[dict[str, Any]]:
    """Requests that do not split; a follow-up comes with the turns before it."""
    for header, lines in sections("general.txt").items():
        kind, split = header.split()
        for line in lines:
            *turns, question = line.split(" | ") if kind == "followup" else [line]
            roles = ("user", "assistant")
            history = [{"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns)]
            row = {"question": question, "kind": kind, "split": split, "single": True}
            yield row | ({"history": history} if history else {})


def write(name: str, rows: Iterator[dict[str, Any]]) -> int:
    found = list({(row["question"], str(row.get("history"))): row for row in rows}.values())
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    (FOLDER / name).write_text(text, encoding="utf-8")
    return len(found)


def main() -> None:
    print(f"{write('single.jsonl', single())} questions, {write('general.jsonl', general())} single requests in {FOLDER}")


if __name__ == "__main__":
    main()
