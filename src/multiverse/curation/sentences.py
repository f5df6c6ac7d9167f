"""Split a text into sentences whose concatenation is the text.

A heuristic: in doubt it does not split, since a piece with two sentences does less harm than a formula in two pieces. White
space belongs to the sentence before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Never split inside code and formulas (from the longest delimiter to the shortest). All have a maximum length, which limits the
# effect of a delimiter that is never closed. A dollar opens a formula unless a blank follows, and closes one unless a blank
# comes before or a digit after it: prices are not formulas.
_WHOLE = re.compile(
    r"```.{1,8000}?```"
    r"|\$\$.{1,4000}?\$\$"
    r"|\\\[.{1,4000}?\\\]"
    r"|\\begin\{(\w+\*?)\}.{1,4000}?\\end\{\1\}"
    r"|\\\((?:(?!\n[ \t]*\n).){1,1000}?\\\)"
    r"|\$(?=[^\s$])(?:(?!\n[ \t]*\n)[^$]){1,600}?(?<=\S)\$(?!\d)",
    re.DOTALL,
)
_CLOSERS = "\"'”’)\\]}»*_"
_END = re.compile(rf"(?:(?P<dot>\.|…)|[!?])[.!?…]*[{_CLOSERS}]*(?=\s)|[。！？][。！？{_CLOSERS}」』]*|(?P<line>\n)")
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\s(\[\"'“*_]*$")
_MARKER = re.compile(r"\s*(?:[-*•]\s+)?[*_]*\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{2,4})[.)][*_]*")
_ABBREVIATION = re.compile(
    r"(?:e\.g|i\.e|cf|vs|dr|mr|mrs|ms|prof|st|jr|fig|figs|eq|eqs|sec|ch|thm|lem|prop|def|resp|approx|ca|w\.r\.t|w\.l\.o\.g"
    r"|s\.t|viz|al|ref|vol|pp)",
    re.IGNORECASE,
)
_INITIAL = re.compile(r"(?:^|\s)[A-Z][\w.]*\s+[A-Z]$")


def cut(text: str) -> tuple[str, ...]:
    """The sentences of a text. None is blank, unless the whole text is."""
    pieces: list[str] = []
    start = 0
    for end in _ends(text):
        if end <= start or not text[start:end].strip():
            continue
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        pieces.append(text[start:])
    if len(pieces) > 1 and not pieces[-1].strip():
        last = pieces.pop()
        pieces[-1] += last
    return tuple(pieces)


def _ends(text: str) -> Iterator[int]:
    """Offsets of the ends of sentences, after their white space."""
    wholes = [match.span() for match in _WHOLE.finditer(text)]
    inside = 0
    for match in _END.finditer(text):
        at = match.start()
        while inside < len(wholes) and wholes[inside][1] <= at:
            inside += 1
        if inside < len(wholes) and wholes[inside][0] <= at:
            continue
        space = _SPACE.match(text, match.end())
        end = space.end() if space else match.end()
        if match["line"] or "\n" in text[match.end() : end] or _is_end(text, match, end):
            yield end


def _is_end(text: str, match: re.Match[str], following: int) -> bool:
    """Whether a sentence ends at this mark, within a line."""
    if text[following : following + 1].islower():
        return False
    if not match["dot"]:
        return True
    line = text.rfind("\n", 0, match.start()) + 1
    if _MARKER.fullmatch(text, line, match.end()):
        return False
    before = text[max(line, match.start() - 40) : match.start()]
    word = _WORD.search(before)
    last = word[0] if word else ""
    if _ABBREVIATION.fullmatch(last) or _INITIAL.search(before):
        return False
    # "No. 7", but "No. The".
    return not (last.lower() in ("no", "nos", "step", "case", "p") and text[following : following + 1].isdigit())
