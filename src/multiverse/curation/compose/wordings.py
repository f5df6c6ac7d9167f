"""The wordings of composed requests, read from `wordings.txt` or from a file of the user's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from ...errors import DataError

OWN = Path(__file__).parent / "wordings.txt"

FORMS = (
    "running", "sentences", "ordered", "numbered", "bullets", "lines", "letters", "table",
    "each", "compare", "compare_by", "kinds", "aspects", "nested", "after", "joint",
    "conclusion", "conclusion_compare", "conclusion_aspects", "conclusion_kinds",
)  # fmt: skip

_FIELDS = {
    *("parts", "Parts", "n", "n_parts", "all", "items", "group", "blank", "list", "aspect", "Aspect", "item", "names", "nouns"),
    *("ones", "Ones", "verb", "verb_small", "blanks", "blank_parts", "request", "a", "b"),
    *map(str, range(1, 13)),
}


@dataclass(frozen=True)
class Wordings:
    """Templates by form and split; `any` wordings belong to both splits."""

    by_form: dict[tuple[str, str], tuple[str, ...]]

    def neutral(self) -> Wordings:
        """Those of the joining forms that hold no word of any language; they belong to both splits."""
        forms = ("sentences", "numbered", "bullets", "lines", "letters")
        return Wordings({(form, "any"): ("{parts}",) for form in forms if "{parts}" in self.of(form, held_out=False)})

    def of(self, form: str, *, held_out: bool) -> tuple[str, ...]:
        """The wordings of a form in a split."""
        own = self.by_form.get((form, "heldout" if held_out else "train"), ())
        return own + self.by_form.get((form, "any"), ())


def read_wordings(path: Path = OWN) -> Wordings:
    """The wordings of a file.

    Raises:
        DataError: the file cannot be read, or a section is not known.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}): give a file of wordings") from error
    found: dict[tuple[str, str], list[str]] = {}
    section: list[str] | None = None
    for number, line in enumerate(lines, 1):
        if header := re.fullmatch(r"\[(\w+) (train|heldout|any)\]\s*", line):
            if header[1] not in FORMS:
                raise DataError(f"{path}:{number}: there is no form {header[1]!r}; known are {', '.join(FORMS)}")
            section = found.setdefault((header[1], header[2]), [])
        elif line.strip() and not line.startswith("#"):
            if section is None:
                raise DataError(f"{path}:{number}: the line stands before the first section, such as [running train]")
            text = line.replace("\\n", "\n")
            unknown = {name for _, name, *_ in Formatter().parse(text) if name is not None} - _FIELDS
            if unknown:
                raise DataError(f"{path}:{number}: there is no {{{min(unknown)}}}; known are {', '.join(sorted(_FIELDS))}")
            section.append(text)
    if not any(form in ("running", "sentences", "numbered", "bullets", "lines") for form, _ in found):
        raise DataError(f"{str(path)!r} has no wording that joins questions: add a section such as [numbered train]")
    return Wordings({key: tuple(texts) for key, texts in found.items()})
