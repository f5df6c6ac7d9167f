"""Data sets of structured documents: read, check, measure, split and write them. No torch here, nor transformers.

The libraries that read and write Parquet, the hub and figures are imported when they are needed (extra `train`).
"""

from .check import check
from .plot import plot
from .publish import card, publish, push
from .read import FAULTS, read, scan
from .row import Fault, Loaded, Message, Row
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
