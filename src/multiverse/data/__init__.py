"""Data sets of structured documents: read, check, measure, split and write them. No torch, no transformers.

Libraries for Parquet, the hub and figures are imported on first use (extra `train`).
"""

from .check import check
from .plot import plot
from .publish import card, publish, push
from .read import read, scan
from .row import Fault, Loaded, Message, Row
from .source import FAULTS
from .statistics import Statistics, Summary, survey
from .write import Split, split, write_jsonl, write_parquet, write_rows

__all__ = [
    "FAULTS",
    "Fault",
    "Loaded",
    "Message",
    "Row",
    "Split",
    "Statistics",
    "Summary",
    "card",
    "check",
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
