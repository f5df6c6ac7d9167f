"""Write a data set as a folder that the hub and `datasets` read, and upload it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError, require
from ..structure import MULTIVERSE, Dialect
from .row import Fault, Row
from .source import FAULTS, shorten
from .statistics import NAMES, Statistics, cells
from .write import whole_folder, write_faults, write_parquet

CARD = "README.md"
DATA = "data"

_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))


def publish(
    splits: Mapping[str, Sequence[Row]],
    folder: Path,
    card: str,
    dialect: Dialect = MULTIVERSE,
    *,
    faults: Sequence[Fault] = (),
) -> None:
    """Write a data set's folder: `data/<split>.parquet` for each split that has rows, the card, and faults if there are any.

    A data set that is already in the folder is replaced after the new one is complete.

    Raises:
        DataError: the folder holds something else, or cannot be written.
        ExtraError: pyarrow is not installed.
    """
    folder = folder.resolve()
    check_folder(folder)
    with whole_folder(folder) as part:
        (part / DATA).mkdir()
        for name, rows in splits.items():
            if rows:
                write_parquet(rows, part / DATA / f"{name}.parquet", dialect)
        (part / CARD).write_text(card, encoding="utf-8")
        if faults:
            write_faults(faults, part / FAULTS)


def check_folder(folder: Path) -> None:
    """Raise `DataError` unless the folder is new, empty, or holds a data set."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{str(folder)!r} is a file: give a folder for the data set")
    strange = sorted(path.name for path in folder.iterdir() if path.name not in (CARD, DATA, FAULTS)) if folder.exists() else []
    if strange:
        raise DataError(f"{str(folder)!r} holds {strange[0]!r}, which does not belong to a data set: give a new folder")


def card(
    title: str, splits: Mapping[str, Sequence[Row]], statistics: Statistics, dialect: Dialect = MULTIVERSE, *, counted: str
) -> str:
    """The card of a data set, with the metadata that the hub reads.

    Args:
        counted: which tokens the statistics count, in words.
    """
    sizes = {name: len(rows) for name, rows in splits.items() if rows}
    files = "\n".join(f"  - split: {name}\n    path: {DATA}/{name}.parquet" for name in sizes)
    total = sum(sizes.values())
    size = next((name for name, most in _SIZES if total < most), "n>10M")
    return _CARD.format(
        files=files,
        size=size,
        dialect=dialect.name,
        title=title,
        parts=", ".join(f"{number:,} in {name}" for name, number in sizes.items()),
        tags=" ".join(f"`{tag}`" for tag in dialect.tags),
        forked=f"{statistics.forked:.0%}",
        counted=counted,
        table=markdown(statistics),
    )


def markdown(statistics: Statistics) -> str:
    """The statistics as a table in Markdown."""
    lines = ["| a document has | mean | median | min | p90 | max |", "|---|---:|---:|---:|---:|---:|"]
    summaries = statistics.summaries
    for name, title in NAMES.items():
        lines.append(f"| {' | '.join((title, *cells(name, summaries.get(name))))} |")
    return "\n".join(lines)


def push(folder: Path, hub_id: str, *, private: bool = False) -> str:
    """Upload a data set's folder; returns its address.

    Raises:
        DataError: the folder holds no data set, or the upload fails.
    """
    if not (folder / CARD).is_file() or not any((folder / DATA).glob("*.parquet")):
        raise DataError(f"{str(folder)!r} holds no data set: give a folder that `multiverse data build` has written")
    hub = require("huggingface_hub", "train")
    try:
        api = hub.HfApi()
        api.create_repo(hub_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=hub_id,
            repo_type="dataset",
            folder_path=str(folder),
            allow_patterns=[CARD, f"{DATA}/*.parquet"],
            delete_patterns=[f"{DATA}/*.parquet"],
            commit_message="Upload data set",
        )
    except Exception as error:  # of many classes
        remedy = "check the id and the network, and log in with `hf auth login`"
        raise DataError(f"{hub_id!r} could not be uploaded ({shorten(error)}): {remedy}") from error
    return f"https://huggingface.co/datasets/{hub_id}"


_CARD = """\
---
configs:
- config_name: default
  data_files:
{files}
task_categories:
- text-generation
size_categories:
- {size}
tags:
- parallel-reasoning
- multiverse
---

# {title}

Chats whose last message thinks in parallel: it forks into paths that do not see each other, and joins them again.
Each row is a chat under `messages`; the last message is the assistant's. Rows: {parts}.

Dialect `{dialect}`, with the tags {tags}.

{forked} of the documents fork. Counted in {counted}, without prompts:

{table}

Parallelism is all tokens over the critical path, the longest chain of tokens that had to be written one after the other.
"""
