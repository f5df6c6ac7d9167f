"""A generation drawn as HTML, for notebooks: paths side by side, each block's conclusion below. Torch-free.

Whatever a model wrote is escaped. There is no script, and every style is inline: notebooks that are not trusted keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..structure import Block, Body, Document, child_label

_COLORS = ("#2f6fb3", "#a35a00", "#2e7d32", "#8e3a9d", "#b3372f", "#00727d")
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0"
_PATH = "flex:1 1 12em;min-width:0;border-left:3px solid {color};padding:2px 8px"


def draw_html(tree: Document | None, *, text: str, answer: str, lines: Sequence[str]) -> str:
    """A generation's tree with its answer, and lines about it; its text, if it has no tree."""
    parts = ['<div style="font-size:90%;line-height:1.35;text-align:left">']
    if tree is None:
        parts.append(_text(text))
    else:
        if tree.thinking is not None:
            parts += _body(tree.thinking, "")
        if tree.plain_answer is None:
            parts += _body(tree.answer, "")
        elif answer:
            parts.append(f'<div style="{_TEXT};font-weight:bold">{escape(answer)}</div>')
    return "".join([*parts, *map(_line, lines), "</div>"])


def _body(body: Body, label: str) -> Iterator[str]:
    """Texts below each other, and the paths of each block side by side."""
    for item in body:
        if not isinstance(item, Block):
            yield _text(item)
            continue
        yield '<div style="display:flex;flex-wrap:wrap;gap:8px;margin:4px 0">'
        for index, (written, outline, path) in enumerate(item.titled()):
            child = child_label(label, index)
            yield f'<div style="{_PATH.format(color=_COLORS[index % len(_COLORS)])}">'
            yield f"<div><b>{escape(written or child)}</b> {escape(outline.strip())}</div>"
            yield from _body(path, child)
            yield "</div>"
        yield "</div>"
        if item.conclusion.strip():
            yield f'<div style="{_TEXT}">⇒ {escape(item.conclusion.strip())}</div>'


def _text(text: str) -> str:
    return f'<div style="{_TEXT}">{escape(text.strip())}</div>' if text.strip() else ""


def _line(text: str) -> str:
    return f'<div style="opacity:.65">{escape(text)}</div>'
