"""Data sets of structured documents: read, check, measure, split and write them. No torch, no transformers.

Libraries for Parquet, the hub and figures are imported on first use (extra `train`).
"""

from .check import check, distinct, duplicates
from .plot import plot
from .publish import card, publish, push
from .read import read, scan
from .row import Duplicate, Fault, Loaded, Message, Row
from .source import FAULTS
from .statistics import Statistics, Summary, survey
from .write import Split, split, write_jsonl, write_parquet, write_rows

__all__ = [
    "FAULTS",
    "Duplicate",
    "Fault",
    "Loaded",
    "Message",
    "Row",
    "Split",
    "Statistics",
    "Summary",
    "card",
    "check",
    "distinct",
    "duplicates",
    "plot",
    "publish",
    "push",
    "read",
    "scan",
    "split",
    "survey",
    "write_jsonl",
    "write_parquet",
    "write_rows",
]
