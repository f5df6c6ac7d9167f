"""The figures of a run as one HTML file that needs no network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..data.write import whole
from ..errors import DataError
from ..pages import embedded, fill
from .record import Record


def write_page(record: Record, path: Path) -> None:
    """Write the page; a file of this name is replaced.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written ({error.strerror or error}): give a path that can be") from error
    template = (files(__package__) / "page.html").read_text(encoding="utf-8")
    with whole(path) as part, part.open("w", encoding="utf-8", errors="replace") as stream:
        stream.writelines(fill(template, {"data": embedded(record.to_json())}))
