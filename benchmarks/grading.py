"""How well answers to mathematical problems are graded: references against their own rewritings, and against each other.

`python -m benchmarks.grading math500.json` takes a list of records with a ``solution`` and an ``answer`` (MATH-500 as
published), and counts:

- references that are not graded equal to themselves, as their solution states them;
- common rewritings of references that are not graded equal (ten kinds; each where it applies);
- pairs of references that are written differently and graded equal: these are printed, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from multiverse.evaluation.graders.mathematics import MathGrader

_INTEGER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
_MIXED = re.compile(r"(\d+)\s*\\[dt]?frac\s*\{(\d+)\}\{(\d+)\}")
_INTERVAL = re.compile(r"(?:\\left)?([(\[])\s*(.+?)\s*,\s*(.+?)\s*(?:\\right)?([)\]])")
_UNIT = re.compile(r"\\(?:text|mbox)\{\s*(?:inches|cm|cents|degrees)\s*\}(?:\^2)?|\^\\circ|\\\$")


def rewritings(answer: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each rewriting that applies to an answer."""
    for kind, rewrite in REWRITINGS.items():
        for text in rewrite(answer):
            if text != answer:
                yield kind, text


def spacing(answer: str) -> Iterator[str]:
    """Blanks where they mean nothing."""
    if "\\text" not in answer and "\\mbox" not in answer and "matrix" not in answer:
        yield re.sub(r"(?<=[\d})a-z]) ?([+\-=,]) ?(?=[\d\\(a-z])", r" \1 ", answer)
        yield re.sub(r"\s*([+\-=])\s*", r"\\,\1\\;", answer)
        yield re.sub(r" (?![a-zA-Z])", "", answer)
    yield f" {answer} "
    yield f"{answer}."


def fractions(answer: str) -> Iterator[str]:
    r"""``\dfrac``, ``\tfrac``, ``a/b``, braces."""
    if "frac" in answer:
        plain = re.sub(r"\\[dt]?frac", r"\\frac", answer)
        yield plain.replace("\\frac", "\\dfrac")
        yield plain.replace("\\frac", "\\tfrac")
        yield re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", plain)
    found = _FRACTION.fullmatch(answer)
    if found:
        yield f"{found[1]}{found[2] or found[3]}/{found[4] or found[5]}"


def brackets(answer: str) -> Iterator[str]:
    r"""``\left`` and ``\right``, or without."""
    if "\\left" in answer:
        yield answer.replace("\\left", "").replace("\\right", "")
        yield answer.replace("\\left", "\\bigl").replace("\\right", "\\bigr")
    elif answer[0] in "([" and answer[-1] in ")]" and "cup" not in answer and answer.count("(") < 2:
        yield f"\\left{answer[:-1]}\\right{answer[-1]}"


def units(answer: str) -> Iterator[str]:
    """A unit behind a number, or none."""
    if _UNIT.search(answer):
        yield _UNIT.sub("", answer).strip()
    elif _INTEGER.fullmatch(answer) or _FRACTION.fullmatch(answer):
        yield f"{answer}\\text{{ cm}}"
        yield f"{answer} \\mbox{{ square inches}}"
        yield f"{answer}\\ \\mathrm{{km/h}}"
        yield f"{answer} units"


def degrees(answer: str) -> Iterator[str]:
    """Degrees as a circle, a sign, or a word."""
    if "^\\circ" in answer:
        number = answer.replace("^\\circ", "")
        yield from (
            f"{number}^{{\\circ}}",
            f"{number}°",
            f"{number} degrees",
            f"{number}\\text{{ degrees}}",
            f"{number}^\\circ.",
        )


def thousands(answer: str) -> Iterator[str]:
    """Separators of thousands, or none."""
    joined = re.sub(r",(?:\\!)?\s*(?=\d{3})", "", answer)
    if joined != answer and re.fullmatch(r"(?:\\\$)?\d+", joined):
        yield joined
    if re.fullmatch(r"\d{4,}", joined):
        yield from (separator.join(re.findall(r"\d{1,3}(?=(?:\d{3})*$)", joined)) for separator in (",", "{,}", ",\\!", "\\,"))


def mixed(answer: str) -> Iterator[str]:
    """Mixed numbers and improper fractions."""
    found = _FRACTION.fullmatch(answer)
    if found:
        value = Fraction(int(found[2] or found[3]), int(found[4] or found[5]))
        whole, rest = divmod(value, 1)
        if whole and rest:
            yield f"{found[1]}{whole}\\frac{{{rest.numerator}}}{{{rest.denominator}}}"
            yield f"{found[1]}{whole} {rest.numerator}/{rest.denominator}"
    found = _MIXED.fullmatch(answer)
    if found:
        value = int(found[1]) + Fraction(int(found[2]), int(found[3]))
        yield f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
        if value * 1000 % 1 == 0:
            yield str(float(value))


def order(answer: str) -> Iterator[str]:
    """Another order of what has none: lists, sets, unions, plus and minus."""
    inner = answer.removeprefix("\\{").removesuffix("\\}")
    if "," in inner and not re.search(r"[(\[]|\d,(?:\\!|\d{3})", inner):
        items = [item.strip() for item in inner.split(",")][::-1]
        yield ", ".join(items) if inner == answer else f"\\{{{', '.join(items)}\\}}"
        yield f"\\{{{', '.join(items)}\\}}"
        yield " and ".join(items)
    if "\\cup" in answer:
        yield " \\cup ".join(part.strip() for part in answer.split("\\cup")[::-1])
    if answer.count("\\pm") == 1 and "," not in answer:
        left, right = answer.split("\\pm")
        yield f"{left}-{right}, {left}+{right}"
        yield f"\\{{{left}\\mp{right}\\}}"


def set_builder(answer: str) -> Iterator[str]:
    """Intervals and values as sets with a condition, and as inequalities."""
    pieces = [_INTERVAL.fullmatch(part.strip()) for part in answer.removeprefix("x \\in ").split("\\cup")]
    conditions = [
        _condition(*piece.groups()) for piece in pieces if piece is not None and piece[2].count(",") + piece[3].count(",") == 0
    ]
    if len(conditions) == len(pieces):
        condition = " \\text{ or } ".join(conditions)
        yield f"\\{{x \\mid {condition}\\}}"
        yield f"\\{{ x \\in \\mathbb{{R}} : {condition} \\}}"
        if any("\\infty" in piece[0] or "]" in piece[0] for piece in pieces if piece is not None):
            yield condition
    elif _INTEGER.fullmatch(answer):
        yield f"\\{{x \\mid x = {answer}\\}}"
        yield f"\\{{{answer}\\}}"


def _condition(opener: str, low: str, high: str, closer: str) -> str:
    below, above = ("\\le" if opener == "[" else "<"), ("\\le" if closer == "]" else "<")
    if "\\infty" in low:
        return f"x {above} {high}"
    if "\\infty" in high:
        return f"x {below.replace('<', '>').replace('le', 'ge')} {low}"
    return f"{low} {below} x {above} {high}"


def assigned(answer: str) -> Iterator[str]:
    """``x =`` before a value, or not."""
    if re.match(r"[a-z] = |[a-z]=", answer):
        yield answer.split("=", 1)[1].strip()
    elif "=" not in answer and "\\in" not in answer.replace("\\infty", ""):
        yield f"x = {answer}"
        yield f"\\theta={answer}"


REWRITINGS: dict[str, Callable[[str], Iterator[str]]] = {
    "spacing": spacing,
    "\\dfrac": fractions,
    "\\left": brackets,
    "units": units,
    "degrees": degrees,
    "thousands": thousands,
    "mixed numbers": mixed,
    "order": order,
    "set-builder": set_builder,
    "x =": assigned,
}


def main() -> None:
    """Grade, count, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="JSON list of records with solution and answer")
    parser.add_argument("--pairs", type=int, default=5000, help="random pairs of different references (default: 5000)")
    parser.add_argument("--show", type=int, default=20, help="misgraded rewritings to print (default: 20)")
    options = parser.parse_args()
    records = json.loads(options.data.read_text(encoding="utf-8"))
    grader = MathGrader(workers=1)
    started = time.monotonic()
    own = [record for record in records if not grader.grade(record["answer"], record["solution"]).right]
    print(f"references not equal to themselves in their solution: {len(own)} of {len(records)}")
    tried, missed = Counter[str](), Counter[str]()
    shown = 0
    for record in records:
        for kind, text in rewritings(record["answer"]):
            tried[kind] += 1
            if not grader.grade(record["answer"], f"\\boxed{{{text}}}").right:
                missed[kind] += 1
                shown += 1
                if shown <= options.show:
                    print(f"  {kind}: {record['answer']}  is not  {text}")
    for kind, count in tried.items():
        print(f"{kind:<14} {missed[kind]:>4} of {count} rewritings not equal")
    print(f"{'in all':<14} {missed.total():>4} of {tried.total()}")
    draw = random.Random(1)
    answers = sorted({record["answer"] for record in records})
    pairs = [draw.sample(answers, 2) for _ in range(options.pairs)]
    equal = [(one, other) for one, other in pairs if grader.grade(one, f"\\boxed{{{other}}}").right]
    print(f"pairs graded equal: {len(equal)} of {len(pairs)}")
    for one, other in equal:
        print(f"  {one}  is  {other}")
    print(f"{time.monotonic() - started:.0f} seconds")
    grader.close()


if __name__ == "__main__":
    main()
